"""What happens to one part of a map: rows in, arrays computed, cast, written and committed.

Arrays are cast, written and committed by one writer thread while the next batch is computed; at
most a few batches wait for it, so memory is bounded by the batch and the queue, never by the
number of rows.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import BadImage
from fc7.engine.store.job import Map, Output, RowStream, Yielded
from fc7.engine.store.job_folder import Job
from fc7.engine.store.part import Part, PartWriter

_QUEUED_WRITES = 4


class Clock:
    """Seconds by kind of work: the reader's own, forward, wait and write."""

    def __init__(self, stream: RowStream) -> None:
        self._stream = stream
        self._mine = {"forward": 0.0, "wait": 0.0, "write": 0.0}
        self._lock = threading.Lock()
        self._marked, self._marked_wall = self.totals(), time.perf_counter()

    def add(self, kind: str, seconds: float) -> None:
        """Count `seconds` of one kind of work; any thread may."""
        with self._lock:
            self._mine[kind] += seconds

    def totals(self) -> dict[str, float]:
        """Return the seconds by kind since the clock was made."""
        with self._lock:
            return {**self._stream.seconds, **self._mine}

    def lap(self) -> tuple[dict[str, float], float]:
        """Return the seconds by kind, and of wall time, since the last lap."""
        totals, wall = self.totals(), time.perf_counter()
        lap = {kind: round(value - self._marked[kind], 6) for kind, value in totals.items()}
        elapsed = round(wall - self._marked_wall, 6)
        self._marked, self._marked_wall = totals, wall
        return lap, elapsed


class Writer:
    """One thread that runs tasks in order; `submit` blocks while several are waiting."""

    def __enter__(self) -> "Writer":
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fc7-write")
        self._waiting: deque[Future[None]] = deque()
        return self

    def submit(self, task: Callable[[], None]) -> None:
        """Queue a task; raise here what an earlier one raised."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= _QUEUED_WRITES):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(task))

    def clean_up(self, task: Callable[[], None]) -> None:
        """Queue a task whose outcome nobody waits for."""
        self._pool.submit(task)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error too the queue runs dry: parts that were whole are committed.
        self._pool.shutdown(wait=True)
        if kind is None:
            for future in self._waiting:
                future.result()


class PartTask:
    """One part of a map on its way from rows to a commit."""

    def __init__(self, folder: Job, job: Map, part: Part, clock: Clock, writer: Writer) -> None:
        self._folder, self._job = folder, job
        self._part, self._clock, self._writer = part, clock, writer
        self._outputs = {output.name: output for output in job.outputs}
        self._bad: list[tuple[int, str, str]] = []
        self._nonfinite = {
            output.name: {"nan": 0, "infinite": 0} for output in job.outputs if not output.is_bytes
        }
        self._open: PartWriter | None = None
        self._failed = False

    @property
    def bad_count(self) -> int:
        """How many bad rows the part has had so far."""
        return len(self._bad)

    def compute(self, rows: Iterator[Any]) -> Iterator[int]:
        """Run the job over the part's rows; yield how many rows each step took care of."""
        arrays = {o.name: ((len(self._part), *o.shape), o.dtype) for o in self._job.outputs}
        self._open = PartWriter(self._folder.folder, self._part, arrays)
        seen = np.zeros(len(self._part), dtype=np.bool_)
        reported = 0
        try:
            started = time.perf_counter()
            waited_before = self._clock.totals()["wait"]
            for numbers, values in self._job.run(self._good(itertools.islice(rows, len(seen)))):
                self._mark(seen, numbers)
                self._enqueue(numbers, values)
                yield len(numbers)
                reported += len(numbers)
            waited = self._clock.totals()["wait"] - waited_before
            self._clock.add("forward", time.perf_counter() - started - waited)
            self._check_all(seen)
            yield len(seen) - reported
        except BaseException:
            self._failed = True
            # In the writer's thread: closing a file under a write could let it hit another file.
            self._writer.clean_up(self._open.discard)
            raise

    def commit(self, then: Callable[[Part], None]) -> None:
        """Hand the commit to the writer, and what follows it."""
        self._writer.submit(lambda: self._commit(then))

    def _commit(self, then: Callable[[Part], None]) -> None:
        if self._failed or self._open is None:
            return
        seconds, wall = self._clock.lap()
        notes = {
            "bad": self._bad,
            "nonfinite": self._nonfinite,
            "seconds": seconds,
            "wall_seconds": wall,
        }
        try:
            self._open.commit(self._folder.digest, notes)
        except BaseException:
            self._abandon()
            raise
        then(self._part)

    def _abandon(self) -> None:
        """Drop what was written; a commit or write still in the queue does nothing then.

        Called in the writer's thread.
        """
        self._failed = True
        if self._open is not None:
            self._open.discard()

    def _good(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Pass the good rows on, note the bad ones, and time the waiting."""
        while True:
            started = time.perf_counter()
            row = next(rows, None)
            self._clock.add("wait", time.perf_counter() - started)
            if row is None:
                return
            if row.bad is None:
                yield row
            elif isinstance(row.bad, BadImage):
                self._bad.append((row.number, row.bad.status, str(row.bad)))
            else:
                raise row.bad

    def _mark(self, seen: NDArray[np.bool_], numbers: NDArray[np.int64]) -> None:
        places = numbers - self._part.start
        if len(places) and not (places.min() >= 0 and places.max() < len(seen)):
            raise RuntimeError(f"{self._job.name} yielded a row that is not of {self._part}")
        if seen[places].any() or len(np.unique(places)) != len(places):
            raise RuntimeError(f"{self._job.name} yielded a row of {self._part} twice")
        seen[places] = True

    def _check_all(self, seen: NDArray[np.bool_]) -> None:
        missing = set(np.flatnonzero(~seen) + self._part.start) - {row for row, _, _ in self._bad}
        if missing:
            raise RuntimeError(f"{self._job.name} yielded no arrays for row {min(missing)}")

    def _enqueue(self, numbers: NDArray[np.int64], values: Yielded) -> None:
        part_writer = self._open
        assert part_writer is not None

        def write() -> None:
            if self._failed:
                return
            started = time.perf_counter()
            try:
                for name, output in self._outputs.items():
                    array = values[name]
                    if not output.is_bytes:
                        array = cast(np.asarray(array), output, self._nonfinite[name])
                    part_writer.write(name, numbers - self._part.start, array)
            except BaseException:
                self._abandon()
                raise
            self._clock.add("write", time.perf_counter() - started)

        self._writer.submit(write)


def cast(values: NDArray[Any], output: Output, counts: dict[str, int]) -> NDArray[Any]:
    """Cast to the output's dtype, counting NaN and what the cast made infinite.

    Values that come in the output's own float16 were cast on the device: every infinity counts.
    """
    with np.errstate(over="ignore"):
        cast = values.astype(output.dtype, copy=False)
    if cast.dtype.kind == "f" and not np.isfinite(cast).all():
        counts["nan"] += int(np.isnan(cast).sum())
        was_cast = values.dtype == cast.dtype == np.float16
        infinite = np.isinf(cast) if was_cast else np.isinf(cast) & np.isfinite(values)
        counts["infinite"] += int(infinite.sum())
    return cast
