"""The three kinds of job: what fc7 computes, without a word about files.

- A `Map` turns rows into named arrays, a part at a time: extraction, occlusion, class images.
- A `Fold` turns the arrays of each part into a small state, merged in part order: top-k, moments.
- A `Stage` fills one folder, committed as a whole: an index, a projection. One that takes long, a
  training run, is a `ResumableStage`: it is handed `Checkpoints`, writes one now and then, and
  after a kill goes on from the newest. They lie in `jobs/JOB/checkpoints`, each whole or not at
  all, belong to one fingerprint, and are removed once the result is committed.

A job states its name, its fingerprint and its outputs, and computes. The runner
(`fc7.engine.store.runner`) plans parts, commits, resumes, verifies and reports progress.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import StoreError
from fc7.engine.store.checkpoints import Checkpoints

Arrays = Mapping[str, NDArray[Any]]
"""Named arrays, one name an output."""

Yielded = Mapping[str, NDArray[Any] | Sequence[bytes]]
"""Named arrays as a map yields them; of an output of bytes, a list or object array of `bytes`."""

BYTES = "bytes"
"""The dtype of an output whose rows are byte strings, each of its own length."""


@dataclass(frozen=True)
class Output:
    """One named array of a job: `shape` and `dtype` of a single row.

    With the dtype "bytes" and the shape () a row is a byte string of any length, such as a file.
    `attributes` is any JSON that readers of the run need, such as the layer behind the array.

    Raises:
        StoreError: an array of byte strings for a row.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.is_bytes and self.shape != ():
            raise StoreError(f"{self.name}: a row of bytes has the shape (), not {self.shape}")

    @property
    def is_bytes(self) -> bool:
        """Whether rows are byte strings, each of its own length."""
        return self.dtype == BYTES

    @property
    def bytes_per_row(self) -> int:
        """Bytes that one row takes on the disk.

        Raises:
            StoreError: rows are byte strings, each of its own length.
        """
        if self.is_bytes:
            raise StoreError(f"{self.name}: each row has a length of its own; see Job.bytes_of")
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Row(Protocol):
    """What a map is fed: a row's number, and whatever its own `rows` attached to it."""

    @property
    def number(self) -> int:
        """The row's number in the source."""

    @property
    def bad(self) -> Exception | None:
        """Why the row has no data, an error with a `status`; None for a good row."""


class RowStream(Protocol):
    """Rows on their way to a map, with the seconds spent on them so far."""

    def __iter__(self) -> Iterator[Any]:
        """Yield rows in the order they were asked for."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by kind of work, such as read and decode, summed over threads."""


class Map(Protocol):
    """Rows in, arrays out."""

    @property
    def name(self) -> str:
        """The job's name in the run."""

    @property
    def outputs(self) -> Sequence[Output]:
        """The arrays it makes."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that the arrays depend on, as JSON."""

    def notes(self) -> Mapping[str, Any]:
        """What a reader may want to know that the arrays do not depend on, as JSON."""

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Start reading the rows of these numbers, ahead of their use."""

    def run(self, rows: Iterator[Any]) -> Iterator[tuple[NDArray[np.int64], Yielded]]:
        """Yield (row numbers (B,), arrays (B, ...)) until the iterator of good rows ends.

        Any order and any B will do; each row is yielded once. Bad rows never come here. Of an
        output of bytes, B byte strings.
        """


class Fold(Protocol):
    """Arrays of a part in, a small state out; states merge into one result."""

    @property
    def name(self) -> str:
        """The job's name in the run."""

    @property
    def inputs(self) -> Sequence[str]:
        """The outputs, of one map, that it folds."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything beyond its inputs that the result depends on, as JSON."""

    def part(self, rows: NDArray[np.int64], arrays: Arrays) -> Arrays:
        """Return the state of one part: `rows` are its good rows, `arrays` theirs."""

    def merge(self, state: Arrays, later: Arrays) -> Arrays:
        """Merge a state with that of later rows."""

    def finish(self, state: Arrays) -> Arrays:
        """Turn the last state into the result's arrays."""


class Stage(Protocol):
    """One folder, built as a whole."""

    @property
    def name(self) -> str:
        """The job's name in the run."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that the files depend on, as JSON."""

    def build(self, folder: Path) -> Mapping[str, Any]:
        """Fill the empty folder; return a JSON summary of what was made."""


@runtime_checkable
class ResumableStage(Protocol):
    """One folder, built as a whole, by work that can go on where it was stopped."""

    @property
    def name(self) -> str:
        """The job's name in the run."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that the files depend on, as JSON."""

    def resume(self, folder: Path, checkpoints: Checkpoints) -> Mapping[str, Any]:
        """Fill the empty folder from the newest checkpoint on; return a JSON summary.

        What comes of it must not depend on where it was stopped, or how often.
        """
