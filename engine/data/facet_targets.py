"""Facets of classes or units as rows, several of each: `facets:class:3x10,0+4x6`.

A row is one of several kinds of image that excite a unit of a layer, a class, or a union of
classes. As of other targets, there is nothing to read: who makes the images knows each facet.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch

from fc7.engine.data.source import TableSource
from fc7.engine.data.targets import CLASS
from fc7.engine.errors import BadImage, SourceError

_MOST = 10_000_000


@dataclass(frozen=True)
class FacetTarget:
    """One image to be made.

    Attributes:
        layer: of the unit; None is classes.
        units: one channel, or the classes of a union.
        facet: which of theirs, from 0.
    """

    layer: str | None
    units: tuple[int, ...]
    facet: int


class FacetsSource(TableSource):
    """Facets of units of one layer, of classes, or of unions of classes; those of one together.

    Args:
        layer: a canonical name or module path; None for classes.
        unions: what the facets are of: one unit each, or the classes of a union.
        counts: facets of each.

    Raises:
        SourceError: there is none, one is negative, or units of a layer are put together.
    """

    kind = "facets"

    def __init__(
        self, layer: str | None, unions: Sequence[Sequence[int]], counts: Sequence[int]
    ) -> None:
        if not unions or len(unions) != len(counts) or min(counts) < 1:
            raise SourceError("no facet: name at least one unit, and at least one facet of each")
        if any(not union or min(union) < 0 for union in unions) or sum(counts) > _MOST:
            raise SourceError(f"units count from 0, and facets go up to {_MOST:,}")
        if layer is not None and any(len(union) > 1 for union in unions):
            raise SourceError(f"units of {layer} have facets one by one; only classes make unions")
        self.layer = layer
        self.unions = tuple(tuple(union) for union in unions)
        self.counts = tuple(counts)
        pairs = zip(self.unions, self.counts, strict=True)
        listed = ",".join(f"{spell_union(union)}x{count}" for union, count in pairs)
        self._targets = [
            FacetTarget(layer, union, facet)
            for union, count in zip(self.unions, self.counts, strict=True)
            for facet in range(count)
        ]
        keys = pa.array([_key(target) for target in self._targets], pa.large_string())
        labels = None
        if layer is None:
            alone = [one.units[0] if len(one.units) == 1 else None for one in self._targets]
            labels = pa.array(alone, pa.int32())
        super().__init__(f"facets:{layer or CLASS}:{listed}", keys, labels, None, 1)

    def target(self, row: int) -> FacetTarget:
        """Return what a row is to be; IndexError if there is no such row."""
        self._check(row)
        return self._targets[row]

    def read(self, row: int) -> bytes:
        """Return the row's key: a target has nothing else."""
        return self.key(row).encode()

    def decode(self, payload: bytes) -> torch.Tensor:
        """Refuse: a target is no image yet."""
        raise BadImage("not-an-image", f"{payload.decode()} is a facet, of which images are made")


def open_facets(spec: str) -> FacetsSource:
    """Open `facets:LAYER:UNITSxCOUNT,...`.

    Raises:
        SourceError: it is not written so.
    """
    found = re.fullmatch(r"facets:([^:]+):([0-9+x,]+)", spec)
    parts = [
        re.fullmatch(r"([0-9]{1,8}(?:\+[0-9]{1,8})*)x([0-9]{1,7})", part)
        for part in (found[2].split(",") if found else [""])
    ]
    if found is None or not all(parts):
        raise SourceError(
            f"{spec!r} is not facets:LAYER:UNITSxCOUNT; write for example facets:class:3x10,0+4x6 "
            "or facets:conv5:17x10"
        )
    pairs = [(part[1], part[2]) for part in parts if part]
    unions = [[int(unit) for unit in union.split("+")] for union, _ in pairs]
    layer = None if found[1] == CLASS else found[1]
    return FacetsSource(layer, unions, [int(count) for _, count in pairs])


def spell_union(units: Sequence[int]) -> str:
    """Return `0+4`."""
    return "+".join(map(str, units))


def _key(target: FacetTarget) -> str:
    units = "+".join(f"{unit:04d}" for unit in target.units)
    return f"{target.layer or CLASS}-{units}-facet-{target.facet}"
