"""A run: one source and everything computed from it, in one folder.

    RUN/run.json                                the source, its digest, the size of a part
    RUN/rows.parquet                            row, key, label, status, detail
    RUN/jobs/JOB/job.json                       kind, outputs, fingerprint
    RUN/jobs/JOB/OUTPUT/part-000000.npy         arrays of a map, states of a fold
    RUN/jobs/JOB/OUTPUT/part-000000.offsets.npy where rows of bytes begin and end in the former
    RUN/jobs/JOB/commits/part-000000.json       sizes, checksums, bad rows, seconds
    RUN/jobs/JOB/result/                        what a fold or a stage made, with record.json
    RUN/jobs/JOB/checkpoints/000001/            what a stage has come to, until it is done

numpy and pyarrow alone can read it, and opening one imports nothing heavier.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import FingerprintError, StoreError
from fc7.engine.store import rows as rows_table
from fc7.engine.store.array import PartedArray
from fc7.engine.store.atomic import locked, read_json, write_json
from fc7.engine.store.fingerprint import differences
from fc7.engine.store.job import Output
from fc7.engine.store.job_folder import Job
from fc7.engine.store.part import (
    DEFAULT_PART_ROWS,
    Part,
    array_path,
    plan_parts,
)
from fc7.engine.store.parted_bytes import PartedBytes

FORMAT = 1


class SourceLike(Protocol):
    """What a run needs to know of its source."""

    spec: str
    kind: str
    label_names: tuple[str, ...] | None

    def __len__(self) -> int: ...

    def rows(self, start: int = 0, stop: int | None = None) -> Any:
        """Return a pyarrow table with the columns key and label."""

    def digest(self) -> str:
        """Return a hash of everything that identifies the rows."""


class Run:
    """A run on the disk, opened for reading; `fc7.open_store(folder)` returns one.

    `run["fc7"]` is an output as an array (`PartedArray`, or `PartedBytes` where a row is a byte
    string), `run.rows` a pyarrow table with the columns row, key, label, status and detail,
    `run.good` marks the rows that have data.

    Raises:
        StoreError: there is no run in the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        # A whole array stays whole: what is committed is never touched again.
        self._arrays: dict[str, PartedArray] = {}
        if not (self.folder / "run.json").exists():
            raise StoreError(f"no run in {self.folder}; make one with fc7 run DATA --out FOLDER")
        self.meta: dict[str, Any] = read_json(self.folder / "run.json")
        if self.meta.get("format") != FORMAT:
            raise StoreError(
                f"{self.folder} has format {self.meta.get('format')}, this fc7 reads {FORMAT}"
            )

    @classmethod
    def create(
        cls, folder: str | Path, source: SourceLike, part_rows: int = DEFAULT_PART_ROWS
    ) -> "Run":
        """Make a run for `source`, or open the one that is there.

        Raises:
            FingerprintError: the folder holds a run of another source.
            StoreError: the folder holds something else.
        """
        folder = Path(folder)
        if (folder / "run.json").exists():
            run = cls(folder)
            run.check_source(source)
            return run
        if part_rows < 1:
            raise StoreError(f"a part of {part_rows} rows; write 1 or more")
        is_taken = folder.exists() and (not folder.is_dir() or any(_visible(folder)))
        # Asked again: another process may have made the run just now.
        if is_taken and not (folder / "run.json").exists():
            raise StoreError(f"{folder} is not empty and not a run; choose another --out")
        with locked(folder):
            if not (folder / "run.json").exists():
                cls._make(folder, source, part_rows)
        return cls.create(folder, source, part_rows)

    @classmethod
    def _make(cls, folder: Path, source: SourceLike, part_rows: int) -> None:
        rows_table.write(folder / "rows.parquet", source)
        meta = {
            "format": FORMAT,
            "source": _describe(source),
            "rows": len(source),
            "part_rows": part_rows,
            "label_names": source.label_names,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / "run.json", meta)

    def check_source(self, source: SourceLike) -> None:
        """Raise FingerprintError when `source` is not the one that the run was made from."""
        # The spec may be typed differently for the same rows; the digest decides.
        old = {k: v for k, v in self.meta["source"].items() if k != "spec"} | {"rows": len(self)}
        new = {k: v for k, v in _describe(source).items() if k != "spec"} | {"rows": len(source)}
        if old != new:
            changed = "; ".join(differences({"source": old}, {"source": new}))
            raise FingerprintError(
                f"{self.folder} was made from {self.meta['source']['spec']}, which differs "
                f"({changed}); choose another --out"
            )

    def __len__(self) -> int:
        return int(self.meta["rows"])

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, rows={len(self)}, outputs={list(self.outputs())})"

    @property
    def part_rows(self) -> int:
        """Rows in every part but the last."""
        return int(self.meta["part_rows"])

    @cached_property
    def parts(self) -> list[Part]:
        """The plan: every part of the run."""
        return plan_parts(len(self), self.part_rows)

    @property
    def label_names(self) -> list[str] | None:
        """Names of the labels, or None where the source gives none."""
        names = self.meta["label_names"]
        return None if names is None else list(names)

    @property
    def rows(self) -> Any:
        """The rows as a pyarrow table: row, key, label, status, detail."""
        return rows_table.read(self.folder / "rows.parquet")

    @property
    def good(self) -> NDArray[np.bool_]:
        """(N,) bool: rows whose data could be used (all, before the first job has ended)."""
        return rows_table.good(self.folder / "rows.parquet")

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64: every row's label, -1 where unknown."""
        return rows_table.labels(self.folder / "rows.parquet")

    def jobs(self) -> dict[str, Job]:
        """Return the run's jobs by name."""
        paths = sorted((self.folder / "jobs").glob("*/job.json"))
        return {path.parent.name: Job(self, path.parent.name) for path in paths}

    def job(self, name: str) -> Job:
        """Return one job; raise StoreError with the names there are."""
        if not (self.folder / "jobs" / name / "job.json").exists():
            raise StoreError(f"no {name} in {self.folder}; it has {', '.join(self.jobs()) or '-'}")
        return Job(self, name)

    def outputs(self) -> dict[str, Job]:
        """Return the jobs that own the run's arrays, by the array's name."""
        return {
            output: job
            for job in self.jobs().values()
            if job.kind == "map"
            for output in job.outputs
        }

    def __contains__(self, output: object) -> bool:
        return output in self.outputs()

    def __getitem__(self, output: str) -> PartedArray:
        if output not in self._arrays:
            self._arrays[output] = self._whole(output)
        return self._arrays[output]

    def _whole(self, output: str) -> PartedArray:
        owners = self.outputs()
        if output not in owners:
            raise StoreError(f"no array {output!r} in {self.folder}; it has {', '.join(owners)}")
        job = owners[output]
        missing = len(self.parts) - len(job.committed())
        if missing:
            raise StoreError(
                f"{output} lacks {missing} of {len(self.parts)} parts; give the command that "
                f"made {self.folder} again, and it continues"
            )
        return self.array(job, output, self.parts)

    def array(self, job: Job, output: str, parts: Sequence[Part]) -> PartedArray:
        """Return one output over consecutive committed `parts`, without checking the others."""
        spec = job.outputs[output]
        count = parts[-1].stop - parts[0].start if parts else 0
        paths = [array_path(job.folder, output, part) for part in parts]
        if spec.is_bytes:
            return PartedBytes(paths, self.part_rows, count)
        return PartedArray(paths, self.part_rows, (count, *spec.shape), np.dtype(spec.dtype))

    def start_job(
        self,
        name: str,
        kind: str,
        fingerprint: Mapping[str, Any],
        outputs: Sequence[Output] = (),
        notes: Mapping[str, Any] | None = None,
    ) -> Job:
        """Make the folder of a job, or open it to continue.

        A map whose fingerprint differs is refused: its arrays took hours and are someone's. Folds
        and stages are derived from what the run holds, so theirs start afresh.

        `notes` is any JSON worth keeping that the arrays do not depend on.

        Raises:
            FingerprintError: names every entry that differs.
        """
        path = self.folder / "jobs" / name / "job.json"
        meta = {
            "kind": kind,
            "fingerprint": fingerprint,
            "notes": dict(notes or {}),
            "outputs": [
                {
                    "name": output.name,
                    "shape": list(output.shape),
                    "dtype": output.dtype,
                    "attributes": dict(output.attributes),
                }
                for output in outputs
            ],
        }
        meta = json.loads(json.dumps(meta))
        if path.exists():
            job = Job(self, name)
            if job.meta == meta:  # nothing to write: a run that others own can be read
                return job
        with locked(self.folder):
            self._check_outputs(name, meta["outputs"])
            return self._start_job(path, meta)

    def _check_outputs(self, name: str, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Refuse arrays that another job owns, or other arrays than the job's own."""
        owners = self.outputs()
        for output in (entry["name"] for entry in outputs):
            if output in owners and owners[output].name != name:
                raise StoreError(
                    f"{output} is in {self.folder} already, made by {owners[output].name}; "
                    "choose another --out"
                )
        own = {output for output, job in owners.items() if job.name == name}
        if own and own != {entry["name"] for entry in outputs}:
            # Two processes began at the same time and asked for different things.
            raise StoreError(
                f"{name} in {self.folder} makes {', '.join(sorted(own))}, begun by another "
                "process; give the command again"
            )

    def _start_job(self, path: Path, meta: dict[str, Any]) -> Job:
        name, kind, fingerprint = path.parent.name, meta["kind"], meta["fingerprint"]
        if path.exists():
            job = Job(self, name)
            changed = differences(job.fingerprint, fingerprint)
            if not changed:
                return job
            if kind == "map" and job.is_complete:
                # A finished array stays valid when only the software has moved on.
                changed = [line for line in changed if not line.startswith("software.")]
                if not changed:
                    return job
            if kind == "map":
                raise FingerprintError(
                    f"{name} in {self.folder} was made differently ({'; '.join(changed)}); "
                    "choose another --out"
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, meta)
        if (
            kind == "fold"
        ):  # a state of another k that a kill leaves here is made again all the same
            for record in (path.parent / "commits").glob("part-*.json"):
                record.unlink(missing_ok=True)
        return Job(self, name)


def open_store(folder: str | Path) -> Run:
    """Open the run in `folder`; see `Run`."""
    return Run(folder)


def _describe(source: SourceLike) -> dict[str, str]:
    return {"spec": source.spec, "kind": source.kind, "digest": source.digest()}


def _visible(folder: Path) -> Iterator[Path]:
    # rows.parquet alone is what a run leaves that was killed while being made.
    return (
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name != "rows.parquet"
    )
