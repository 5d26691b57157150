"""Reads every byte of a run and compares it with what was committed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fc7.engine.errors import StoreError
from fc7.engine.store.atomic import sha256_file
from fc7.engine.store.job_folder import Job
from fc7.engine.store.part import committed_files, read_record, record_path
from fc7.engine.store.run import Run
from fc7.engine.store.runner import Progress, Report


@dataclass(frozen=True)
class Damage:
    """One file that is not what was committed, and the cure."""

    path: Path
    what: str


def verify(run: Run, report: Report | None = None) -> list[Damage]:
    """Check sizes and checksums of every committed file; return what is damaged, in path order.

    Parts that were never committed are not damage: giving the run's command again makes them.
    """
    damage = list(_check_rows(run))
    for job in run.jobs().values():
        for part in run.parts:
            path = record_path(job.folder, part)
            if path.exists():
                damage += _check_part(job, path)
            if report:
                report(Progress(f"verify {job.name}", part.stop, len(run)))
        damage += _check_result(job)
    return sorted(damage, key=lambda one: one.path)


def _check_rows(run: Run) -> Iterator[Damage]:
    path = run.folder / "rows.parquet"
    try:
        count = run.rows.num_rows
    except Exception as error:  # pyarrow raises its own errors, and OSError, for a damaged file
        yield Damage(path, f"cannot be read ({error}); make the run again in another folder")
        return
    if count != len(run):
        yield Damage(path, f"has {count} rows, run.json says {len(run)}")


def _check_part(job: Job, path: Path) -> Iterator[Damage]:
    try:
        record = read_record(path)
    except StoreError:
        yield Damage(path, "is not a commit record; delete it to have the part made again")
        return
    if record["fingerprint"] != job.digest:
        yield Damage(path, "belongs to another job; delete it to have the part made again")
    part = job.run.parts[record["part"]]
    for file, entry in committed_files(record, job.folder, part):
        yield from _check_file(file, entry, path)


def _check_result(job: Job) -> Iterator[Damage]:
    try:
        record = job.result_record()
    except StoreError:
        folder = job.folder / "result"
        yield Damage(folder / "record.json", f"cannot be read; delete {folder} to make it again")
        return
    if record is not None:
        folder = job.folder / "result"
        for name, entry in record["files"].items():
            yield from _check_file(folder / name, entry, folder)


def _check_file(path: Path, entry: Mapping[str, Any], owner: Path) -> Iterator[Damage]:
    cure = f"delete {owner} and give the run's command again"
    if not path.exists():
        yield Damage(path, f"is missing; {cure}")
    elif path.stat().st_size != entry["bytes"]:
        yield Damage(path, f"has {path.stat().st_size} bytes, committed {entry['bytes']}; {cure}")
    elif sha256_file(path) != entry["sha256"]:
        yield Damage(path, f"has another checksum than committed; {cure}")
