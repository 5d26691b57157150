"""A source of numbers and jobs whose arrays can be told from the row number alone."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fc7.engine.errors import BadImage
from fc7.engine.store import Arrays, Output


class Numbers:
    """N rows; row r has the key `number-r` and the label r mod 3."""

    kind = "numbers"
    label_names = ("zero", "one", "two")

    def __init__(self, count: int, name: str = "numbers") -> None:
        self.count, self.spec = count, name

    def __len__(self) -> int:
        return self.count

    def rows(self, start: int = 0, stop: int | None = None) -> Any:
        numbers = range(start, self.count if stop is None else stop)
        return pa.table(
            {
                "key": pa.array([f"number-{n}" for n in numbers], pa.large_string()),
                "label": pa.array([n % 3 for n in numbers], pa.int32()),
            }
        )

    def digest(self) -> str:
        return f"{self.spec}-{self.count}"


@dataclass(frozen=True)
class NumberRow:
    number: int
    bad: Exception | None = None


class NumberStream:
    def __init__(self, rows: Iterable[NumberRow]) -> None:
        self.rows = rows
        self.seconds = {"read": 0.0, "decode": 0.0}

    def __iter__(self) -> Iterator[NumberRow]:
        for row in self.rows:
            self.seconds["read"] += 0.001
            yield row


def vectors(rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """What `Powers` stores: (B, 3) with r, r squared mod 97, -r."""
    return np.stack([rows, rows**2 % 97, -rows], axis=1).astype(np.float32)


@dataclass
class Powers:
    """Yields `vectors` and `scalars` in batches, the last rows of a batch first if `backwards`."""

    batch: int = 4
    factor: int = 1
    dtype: str = "float32"
    backwards: bool = False
    bad: frozenset[int] = frozenset()
    computed: list[int] = field(default_factory=list)
    pause_seconds: float = 0.0
    name: str = "powers"

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (
            Output("vectors", (3,), self.dtype, {"layer": "none"}),
            Output("scalars", (), "int64"),
        )

    def fingerprint(self) -> Mapping[str, Any]:
        return {"factor": self.factor, "software": {"toy": "1"}}

    def notes(self) -> Mapping[str, Any]:
        return {"made by": "a test"}

    def rows(self, numbers: Iterable[int]) -> NumberStream:
        def row(number: int) -> NumberRow:
            bad = BadImage("empty", "0 bytes") if number in self.bad else None
            return NumberRow(number, bad)

        return NumberStream(row(number) for number in numbers)

    def run(self, rows: Iterator[Any]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        waiting: list[int] = []
        for row in rows:
            waiting.append(row.number)
            if len(waiting) == self.batch:
                yield self._batch(waiting)
                waiting = []
        if waiting:
            yield self._batch(waiting)

    def _batch(self, numbers: list[int]) -> tuple[NDArray[np.int64], Arrays]:
        time.sleep(self.pause_seconds)
        self.computed += numbers
        rows = np.asarray(numbers[::-1] if self.backwards else numbers, dtype=np.int64)
        return rows, {"vectors": vectors(rows) * self.factor, "scalars": rows * 7}


def text(row: int) -> bytes:
    """What `Texts` stores: nothing in one row of four, zeros at the end in the others."""
    return bytes([row % 251]) * (row * row % 97) * bool(row % 4) + b"\0" * (row % 4)


@dataclass
class Texts(Powers):
    """Yields `texts`, byte strings of any length, with `scalars` beside them."""

    name: str = "texts"

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (Output("texts", (), "bytes", {"of": "a test"}), Output("scalars", (), "int64"))

    def _batch(self, numbers: list[int]) -> tuple[NDArray[np.int64], Any]:
        rows, arrays = super()._batch(numbers)
        return rows, {"texts": [text(row) for row in rows], "scalars": arrays["scalars"]}


@dataclass(frozen=True)
class Total:
    """Sums the vectors, and keeps the order of parts, which a sum would not show."""

    name: str = "total"
    inputs: tuple[str, ...] = ("vectors",)
    scale: float = 1.0

    def fingerprint(self) -> Mapping[str, Any]:
        return {"scale": self.scale}

    def part(self, rows: NDArray[np.int64], arrays: Arrays) -> Arrays:
        return {"sum": arrays["vectors"].sum(axis=0, dtype=np.float64), "order": rows[:1]}

    def merge(self, state: Arrays, later: Arrays) -> Arrays:
        return {
            "sum": state["sum"] + later["sum"],
            "order": np.concatenate([state["order"], later["order"]]),
        }

    def finish(self, state: Arrays) -> Arrays:
        return {"sum": state["sum"] * self.scale, "order": state["order"]}
