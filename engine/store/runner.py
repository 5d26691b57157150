"""The runner: carries a job over a run, part by part, and commits, resumes and counts for it.

    run_map(run, job, folds)     every part not yet committed, folds following in the same pass
    run_fold(run, fold)          a fold over arrays that the run already holds
    run_stage(run, stage)        one folder, made as a whole, from the newest checkpoint on

Rows are read ahead across the borders of parts, so the network never waits at one. What happens
to a part on its way is in `fc7.engine.store.execution`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fc7.engine.errors import StoreError
from fc7.engine.store import rows as rows_table
from fc7.engine.store.atomic import locked, new_folder, sha256_file, write_json
from fc7.engine.store.checkpoints import FOLDER as CHECKPOINTS
from fc7.engine.store.checkpoints import Checkpoints
from fc7.engine.store.execution import Clock, PartTask, Writer
from fc7.engine.store.job import Arrays, Fold, Map, ResumableStage, Stage
from fc7.engine.store.job_folder import Job
from fc7.engine.store.part import (
    Part,
    PartWriter,
    is_committed,
    is_folded,
    read_record,
    select_parts,
)
from fc7.engine.store.run import Run


@dataclass(frozen=True)
class Progress:
    """How far a job is: rows done, of how many, and seconds by kind of work since it started."""

    job: str
    done: int
    total: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    bad: int = 0


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Summary:
    """What a map did, over all its parts, those committed by earlier processes included.

    Attributes:
        rows: rows in the parts committed so far.
        computed: rows that this call computed.
        wall_seconds: wall time of all parts, each counted once.
        seconds: by kind of work; read and decode are summed over their threads.
        bad: (row, status, detail) of every bad row.
        nonfinite: by output, how many values are NaN and how many a cast made infinite.
        is_complete: whether every part of the run is committed.
    """

    job: str
    rows: int
    computed: int
    wall_seconds: float
    seconds: dict[str, float]
    bad: list[tuple[int, str, str]]
    nonfinite: dict[str, dict[str, int]]
    is_complete: bool


def run_map(
    run: Run,
    job: Map,
    folds: Sequence[Fold] = (),
    selection: str | None = None,
    report: Report | None = None,
) -> Summary:
    """Compute every part that is not yet committed; then merge the folds.

    Args:
        run: where the arrays go.
        job: what computes them.
        folds: folds over this job's outputs, each part's state computed as the part is committed.
        selection: a slice of the parts, such as `0::8`, for one task of a job array; the folds
            are merged by whichever task finds every part committed.
        report: called after each batch.

    Raises:
        FingerprintError: the run holds this job made differently.
    """
    folder = run.start_job(job.name, "map", job.fingerprint(), job.outputs, job.notes())
    mine = select_parts(run.parts, selection)
    pending = [part for part in mine if not is_committed(folder.folder, part, folder.digest)]
    numbers = itertools.chain.from_iterable(range(part.start, part.stop) for part in pending)
    total = sum(len(part) for part in mine)
    done = total - sum(len(part) for part in pending)

    def follow(part: Part) -> None:
        for fold in folds:
            fold_job, owner = _start_fold(run, fold)
            if not is_folded(fold_job.folder, part, fold_job.digest):
                _fold_part(run, fold_job, owner, fold, part)

    if pending:
        stream = job.rows(numbers)
        rows = iter(stream)
        clock = Clock(stream)
        try:
            with Writer() as writer:
                for part in pending:
                    task = PartTask(folder, job, part, clock, writer)
                    for count in task.compute(rows):
                        done += count
                        if report:
                            report(Progress(job.name, done, total, clock.totals(), task.bad_count))
                    task.commit(follow)
        finally:
            close = getattr(rows, "close", None)
            if close:
                close()
    summary = summarize(run, folder, computed=sum(len(part) for part in pending))
    if summary.is_complete:
        _set_status(run)
        for fold in folds:
            run_fold(run, fold)
    return summary


def run_fold(run: Run, fold: Fold, report: Report | None = None) -> Job:
    """Fold the run's arrays, part by part, and commit the merged result."""
    job, owner = _start_fold(run, fold)
    if job.result_record() is not None:
        return job
    with locked(job.folder):
        if job.result_record() is None:
            _merge(run, fold, job, owner, report)
    return job


def _merge(run: Run, fold: Fold, job: Job, owner: Job, report: Report | None) -> None:
    state: Arrays | None = None
    for part in run.parts:
        if not is_folded(job.folder, part, job.digest):
            _fold_part(run, job, owner, fold, part)
        record = read_record(job.folder / "commits" / f"{part.name}.json")
        later = {name: np.load(job.folder / name / f"{part.name}.npy") for name in record["files"]}
        state = later if state is None else fold.merge(state, later)
        if report:
            report(Progress(fold.name, part.stop, len(run)))
    if state is None:
        raise StoreError(f"{fold.name}: the run has no rows")
    result = fold.finish(state)
    with new_folder(job.folder / "result") as folder:
        for name, array in result.items():
            np.save(folder / f"{name}.npy", array)
        _write_result_record(job, folder, {})


def run_stage(run: Run, stage: Stage | ResumableStage) -> Job:
    """Build the stage's folder, unless it is there and was made the same way.

    A resumable stage goes on from its newest checkpoint. Those of a stage of the same name that
    was asked for differently are its own no longer, and go when it commits.
    """
    job = run.start_job(stage.name, "stage", stage.fingerprint())
    checkpoints = Checkpoints(job.folder / CHECKPOINTS, job.digest)
    if job.result_record() is not None:
        if checkpoints.latest() is not None:  # killed as it had committed
            checkpoints.clear()
        return job
    with locked(job.folder):
        if job.result_record() is not None:
            return job
        with new_folder(job.folder / "result") as folder:
            if isinstance(stage, ResumableStage):
                info = stage.resume(folder, checkpoints)
            else:
                info = stage.build(folder)
            _write_result_record(job, folder, info)
        checkpoints.clear()
    return job


def summarize(run: Run, job: Job, computed: int = 0) -> Summary:
    """Add up a map's commit records."""
    bad: list[tuple[int, str, str]] = []
    seconds: dict[str, float] = {}
    nonfinite: dict[str, dict[str, int]] = {}
    rows, wall, parts = 0, 0.0, 0
    for record in job.records():
        parts += 1
        rows += record["stop"] - record["start"]
        wall += record["wall_seconds"]
        bad += [(row, status, detail) for row, status, detail in record["bad"]]
        for kind, value in record["seconds"].items():
            seconds[kind] = seconds.get(kind, 0.0) + value
        for output, counts in record["nonfinite"].items():
            into = nonfinite.setdefault(output, dict.fromkeys(counts, 0))
            for kind, value in counts.items():
                into[kind] += value
    complete = parts == len(run.parts)
    return Summary(job.name, rows, computed, wall, seconds, bad, nonfinite, complete)


def _set_status(run: Run) -> None:
    """Write into the rows table what every map found; a row bad for one is bad."""
    bad: dict[int, tuple[str, str]] = {}
    for job in run.jobs().values():
        if job.kind == "map":
            for record in job.records():
                bad |= {row: (status, detail) for row, status, detail in record["bad"]}
    path = run.folder / "rows.parquet"
    if not rows_table.has_status(path, bad):
        with locked(run.folder):
            rows_table.set_status(path, bad)


def _start_fold(run: Run, fold: Fold) -> tuple[Job, Job]:
    """Open the fold's job, and the map that owns its inputs."""
    owners = run.outputs()
    missing = [name for name in fold.inputs if name not in owners]
    if missing:
        raise StoreError(f"{fold.name} needs {', '.join(missing)}, which {run.folder} lacks")
    owner = owners[fold.inputs[0]]
    if any(owners[name].name != owner.name for name in fold.inputs):
        raise StoreError(f"{fold.name} needs arrays of one job: {', '.join(fold.inputs)}")
    if ragged := [name for name in fold.inputs if owner.outputs[name].is_bytes]:
        raise StoreError(
            f"{fold.name} needs arrays, and {', '.join(ragged)} holds byte strings, each of its "
            "own length"
        )
    fingerprint = {**fold.fingerprint(), "inputs": dict.fromkeys(fold.inputs, owner.digest)}
    return run.start_job(fold.name, "fold", fingerprint), owner


def _fold_part(run: Run, job: Job, owner: Job, fold: Fold, part: Part) -> None:
    bad = np.asarray(owner.bad_rows(part), dtype=np.int64)
    good = np.setdiff1d(np.arange(part.start, part.stop), bad)
    arrays = {name: run.array(owner, name, [part])[:] for name in fold.inputs}
    if len(bad):
        arrays = {name: array[good - part.start] for name, array in arrays.items()}
    state = {name: np.asarray(array) for name, array in fold.part(good, arrays).items()}
    writer = PartWriter(job.folder, part, {n: (a.shape, a.dtype.name) for n, a in state.items()})
    try:
        for name, array in state.items():
            writer.write(name, np.arange(len(array)), array)
        writer.commit(job.digest, {})
    except BaseException:
        writer.discard()
        raise


def _write_result_record(job: Job, folder: Any, info: Mapping[str, Any]) -> None:
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    record = {"fingerprint": job.digest, "files": files, "info": dict(info)}
    write_json(folder / "record.json", record)
