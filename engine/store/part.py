"""Parts: the unit of work, of commitment and of resumption.

A part is a fixed range of rows. Its arrays are npy files, `jobs/JOB/OUTPUT/part-000007.npy` (see
`fc7.engine.store.part_files`), written with plain writes (memory maps write two to five times
slower) under temporary names. The commit record `jobs/JOB/commits/part-000007.json` is written
last: with it the part exists, without it nothing of the part does. Two processes may make the same
part: the first to commit is kept.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import StoreError
from fc7.engine.store.atomic import (
    flush_folder,
    locked,
    remove_stale,
    write_json,
)
from fc7.engine.store.job import BYTES
from fc7.engine.store.part_files import ArrayFile, BytesFile, offsets_path

DEFAULT_PART_ROWS = 1024


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` (exclusive) of the source, number `index` of the plan."""

    index: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def name(self) -> str:
        """The stem of the part's file names; six digits or more, so names sort as numbers do."""
        return f"part-{self.index:06d}"


def plan_parts(rows: int, part_rows: int = DEFAULT_PART_ROWS) -> list[Part]:
    """Cut `rows` rows into parts of `part_rows`; the last one may be shorter."""
    return [
        Part(index, start, min(start + part_rows, rows))
        for index, start in enumerate(range(0, rows, part_rows))
    ]


def record_path(job_folder: Path, part: Part) -> Path:
    """Return where the commit record of `part` is, or will be."""
    return job_folder / "commits" / f"{part.name}.json"


def array_path(job_folder: Path, output: str, part: Part) -> Path:
    """Return where the npy file of one output of `part` is, or will be."""
    return job_folder / output / f"{part.name}.npy"


class PartWriter:
    """Writes the arrays of one part and commits them together.

    Args:
        job_folder: the job's folder in the run.
        part: which part.
        arrays: shape and dtype of each whole array. Elements never written stay zero. With the
            dtype "bytes" the rows are byte strings of any length, and those never written empty.

    Nothing is visible under a final name before `commit`.
    """

    def __init__(
        self, job_folder: Path, part: Part, arrays: Mapping[str, tuple[tuple[int, ...], str]]
    ) -> None:
        self._folder, self._part = job_folder, part
        self._files: dict[str, ArrayFile | BytesFile] = {}
        try:
            with locked(job_folder / "commits"):
                for name, (shape, dtype) in arrays.items():
                    path = array_path(job_folder, name, part)
                    path.parent.mkdir(exist_ok=True)
                    remove_stale(path.parent, path.name)
                    if dtype == BYTES:
                        remove_stale(path.parent, offsets_path(path).name)
                        self._files[name] = BytesFile(path, shape[0])
                    else:
                        self._files[name] = ArrayFile(path, shape, np.dtype(dtype))
        except BaseException:
            self.discard()
            raise

    def write(
        self, name: str, places: NDArray[np.int64], values: NDArray[Any] | Sequence[bytes]
    ) -> None:
        """Write `values` (B, ...), already in the array's dtype, at these first indices (B,)."""
        file = self._files[name]
        if isinstance(file, BytesFile):
            file.write(places, values)
        else:
            file.write(places, np.asarray(values))

    def commit(self, fingerprint_digest: str, notes: Mapping[str, Any]) -> None:
        """Publish every array, then the record with sizes, shapes and checksums."""
        entry = {
            "part": self._part.index,
            "start": self._part.start,
            "stop": self._part.stop,
            "fingerprint": fingerprint_digest,
            "files": {name: file.finish() for name, file in self._files.items()},
            **notes,
        }
        record = record_path(self._folder, self._part)
        with locked(record.parent):
            if is_folded(self._folder, self._part, fingerprint_digest):
                # Another process was faster; what is committed is never touched.
                self.discard()
                return
            if record.exists():  # of files that were damaged; it must not vouch for the new ones
                record.unlink()
                flush_folder(record.parent)
            for file in self._files.values():
                file.publish()
            write_json(record, entry)

    def discard(self) -> None:
        """Remove what was written and not committed."""
        for file in self._files.values():
            file.discard()


def read_record(path: Path) -> dict[str, Any]:
    """Read a commit record; raise StoreError when it is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["files"], record["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is not a commit record ({error}); delete it to have the part made again"
        ) from error
    return dict(record)


def is_committed(job_folder: Path, part: Part, fingerprint_digest: str) -> bool:
    """Say whether `part` is committed: by its record and the sizes of its files.

    Checksums are for `verify`: reading every byte would make resuming as slow as reading the run.
    A part with a record whose file is missing or has another size counts as not committed, and is
    made again. A record of another job raises StoreError.
    """
    path = record_path(job_folder, part)
    if not path.exists():
        return False
    record = read_record(path)
    if record["fingerprint"] != fingerprint_digest:
        raise StoreError(
            f"{path} was committed by another job ({record['fingerprint'][:8]}, this one is "
            f"{fingerprint_digest[:8]}); use a new folder"
        )
    return _has_files(record, job_folder, part)


def is_folded(job_folder: Path, part: Part, fingerprint_digest: str) -> bool:
    """Say the same for a fold, whose states are made again where they are another fold's."""
    path = record_path(job_folder, part)
    if not path.exists():
        return False
    record = read_record(path)
    return record["fingerprint"] == fingerprint_digest and _has_files(record, job_folder, part)


def committed_files(
    record: Mapping[str, Any], job_folder: Path, part: Part
) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield every file of a commit record, with its entry: bytes, sha256, shape and dtype."""
    for name, entry in record["files"].items():
        path = array_path(job_folder, name, part)
        yield path, entry
        if "offsets" in entry:
            yield offsets_path(path), entry["offsets"]


def _has_files(record: Mapping[str, Any], job_folder: Path, part: Part) -> bool:
    return all(
        path.exists() and path.stat().st_size == entry["bytes"]
        for path, entry in committed_files(record, job_folder, part)
    )


def select_parts(parts: Sequence[Part], selection: str | None) -> Sequence[Part]:
    """Return the parts of a slice such as `0::8` (every eighth), for one task of a job array."""
    if selection is None:
        return parts
    try:
        fields = [int(field) if field else None for field in selection.split(":")]
        if not 2 <= len(fields) <= 3:
            raise ValueError
        return parts[slice(*fields)]
    except ValueError:
        raise StoreError(
            f"no parts {selection!r}; write a slice, START:STOP:STEP, such as 0::8"
        ) from None
