"""One job's folder in a run: what it holds, and how far it has come."""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import StoreError
from fc7.engine.store.atomic import read_json
from fc7.engine.store.fingerprint import digest
from fc7.engine.store.job import Output
from fc7.engine.store.part import (
    Part,
    is_committed,
    is_folded,
    read_record,
    record_path,
)

if TYPE_CHECKING:
    from fc7.engine.store.run import Run


class Job:
    """One job's folder in a run."""

    def __init__(self, run: "Run", name: str) -> None:
        self.run, self.name = run, name
        self.folder = run.folder / "jobs" / name
        self.meta: dict[str, Any] = read_json(self.folder / "job.json")

    @property
    def kind(self) -> str:
        """`map`, `fold` or `stage`."""
        return str(self.meta["kind"])

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the job's arrays depend on."""
        return dict(self.meta["fingerprint"])

    @property
    def digest(self) -> str:
        """The fingerprint's digest, as in every commit record."""
        return digest(self.fingerprint)

    @cached_property
    def outputs(self) -> dict[str, Output]:
        """The job's outputs by name."""
        return {
            entry["name"]: Output(
                entry["name"], tuple(entry["shape"]), entry["dtype"], entry["attributes"]
            )
            for entry in self.meta["outputs"]
        }

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the commit records in part order, of the parts whose files are there."""
        for part in self.committed():
            yield read_record(record_path(self.folder, part))

    def committed(self) -> list[Part]:
        """Return the parts whose commit records and files are there."""
        digest = self.digest
        check = is_folded if self.kind == "fold" else is_committed
        return [part for part in self.run.parts if check(self.folder, part, digest)]

    @property
    def is_complete(self) -> bool:
        """Whether every part is committed, or the result is there."""
        if self.kind == "map":
            return len(self.committed()) == len(self.run.parts)
        return self.result_record() is not None

    def bad_rows(self, part: Part) -> list[int]:
        """Return the source rows of `part` that had no usable data."""
        record = read_record(record_path(self.folder, part))
        return [int(row) for row, _, _ in record.get("bad", ())]

    def bytes_of(self, output: str) -> int:
        """Return the bytes of one output's committed files; of byte strings, without offsets."""
        return sum(int(record["files"][output]["bytes"]) for record in self.records())

    def result_record(self) -> dict[str, Any] | None:
        """Return the record of the result, or None while there is none for this fingerprint."""
        path = self.folder / "result" / "record.json"
        if not path.exists():
            return None
        record = read_json(path)
        return record if record.get("fingerprint") == self.digest else None

    def result(self, name: str) -> NDArray[Any]:
        """Return one array of a finished fold or stage, as a read-only memory map."""
        if self.result_record() is None:
            raise StoreError(f"{self.name} is not finished; give the command that makes it again")
        path = self.folder / "result" / f"{name}.npy"
        if not path.exists():
            raise StoreError(f"{self.name} has no array {name!r} ({path} is missing)")
        return np.asarray(np.load(path, mmap_mode="r"))
