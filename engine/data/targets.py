"""What images are to be made of, as rows: `targets:class:0-9`, `targets:conv5:0-511:3`.

A row is a unit of a layer, or a class, and one of several starts. There is nothing to read: whoever
makes the images asks the source for the targets themselves.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch

from fc7.engine.data.source import TableSource
from fc7.engine.errors import BadImage, SourceError

CLASS = "class"
"""In place of a layer's name, in a spec."""
_MOST = 10_000_000


@dataclass(frozen=True)
class Target:
    """One image to be made.

    Attributes:
        layer: of the unit; None is a class.
        unit: channel or class.
        start: which of several, from 0.
    """

    layer: str | None
    unit: int
    start: int


class TargetsSource(TableSource):
    """Units of one layer, or classes, each from one or several starts; starts of a unit together.

    Args:
        layer: a canonical name or module path; None for classes.
        units: of the layer, in order.
        starts: of each.

    Raises:
        SourceError: there is none, or one is negative.
    """

    kind = "targets"

    def __init__(self, layer: str | None, units: Sequence[int], starts: int = 1) -> None:
        if starts < 1 or not units:
            raise SourceError("no target: name at least one unit, and at least one start")
        if min(units) < 0 or len(units) * starts > _MOST:
            raise SourceError(f"units count from 0, and targets go up to {_MOST:,}")
        self.layer, self.units, self.starts = layer, tuple(units), starts
        spec = f"targets:{layer or CLASS}:{spell_units(self.units)}:{starts}"
        keys = [_key(layer, unit, start, starts) for unit in self.units for start in range(starts)]
        labels = None
        if layer is None:
            labels = pa.array([unit for unit in self.units for _ in range(starts)], pa.int32())
        super().__init__(spec, pa.array(keys, pa.large_string()), labels, None, 1)

    def target(self, row: int) -> Target:
        """Return what a row is to be; IndexError if there is no such row."""
        self._check(row)
        return Target(self.layer, self.units[row // self.starts], row % self.starts)

    def read(self, row: int) -> bytes:
        """Return the row's key: a target has nothing else."""
        return self.key(row).encode()

    def decode(self, payload: bytes) -> torch.Tensor:
        """Refuse: a target is no image yet."""
        raise BadImage("not-an-image", f"{payload.decode()} is a target, of which images are made")


def open_targets(spec: str) -> TargetsSource:
    """Open `targets:LAYER:UNITS[:STARTS]`.

    Raises:
        SourceError: it is not written so.
    """
    found = re.fullmatch(r"targets:([^:]+):([0-9,-]+)(?::([0-9]{1,7}))?", spec)
    if found is None:
        raise SourceError(
            f"{spec!r} is not targets:LAYER:UNITS:STARTS; write for example targets:class:0-9 or "
            "targets:conv5:0-511:3"
        )
    layer = None if found[1] == CLASS else found[1]
    return TargetsSource(layer, parse_units(found[2]), int(found[3] or 1))


def parse_units(text: str) -> list[int]:
    """Return the numbers of `0-9,17`, each once, in the order in which they are written.

    Raises:
        SourceError: it is not written so.
    """
    units: dict[int, None] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,8})(?:-([0-9]{1,8}))?\s*", part)
        if found is None:
            raise SourceError(f"{text!r} is no list of units; write for example 0-9,17")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < _MOST:
            raise SourceError(
                f"{part.strip()!r} counts down, or beyond {_MOST:,}; write it upwards"
            )
        units.update(dict.fromkeys(range(first, last + 1)))
    return list(units)


def spell_units(units: Sequence[int]) -> str:
    """Return units as `parse_units` reads them, neighbours joined."""
    spans: list[list[int]] = []
    for unit in units:
        if spans and unit == spans[-1][1] + 1:
            spans[-1][1] = unit
        else:
            spans.append([unit, unit])
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in spans)


def _key(layer: str | None, unit: int, start: int, starts: int) -> str:
    name = f"{layer or CLASS}-{unit:04d}"
    return f"{name}-{start}" if starts > 1 else name
