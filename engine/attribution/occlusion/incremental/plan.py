"""What will be computed for a grid of windows on images of one size: geometry, and nothing else.

One plan serves every image. A row of positions is a band: its windows have the same rows in every
layer, and their columns lie as the layer's layout says. Bands go through the network one after the
other, so that what one leaves behind is still in the cache when it is read.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from fc7.engine.attribution.occlusion.incremental.layout import Group, Layout, exact, gather
from fc7.engine.attribution.occlusion.incremental.spans import (
    Spans,
    averaged,
    capped,
    hull,
    touched,
    whole,
)
from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.ops import Graph, Op

# What a group costs beside its elements, in multiplications and additions: some calls, and that
# oneDNN brings a convolution's weights into an order of its own each time.
_PER_CALL = 4e6
_PER_WEIGHT = 60


class Plan:
    """The windows of every operation.

    Args:
        graph: the network.
        rows: of the image that each row of positions covers.
        columns: of the image that each column of positions covers.
        growth: the largest share of a map's side that a window may take, above 0. Below 1, what a
            window would reach beyond it is left out, equally on both sides: an approximation.

    Attributes:
        rows: for each operation what each row of positions can change.
        columns: for each operation what each column of positions can change.
        layouts: for each operation how the windows of a row of positions lie.
        in_full: operations that run in full, because they have no rule or stand behind one that
            has none.
        behind: operations on vectors only, which are not run for a band but for many positions.
    """

    def __init__(self, graph: Graph, rows: Spans, columns: Spans, growth: float = 1.0) -> None:
        self.graph = graph
        self.bands, self.positions = len(rows.starts), len(columns.starts)
        self.rows: dict[Op, Spans] = {}
        self.columns: dict[Op, Spans] = {}
        self.layouts: dict[Op, Layout] = {}
        self._of_vectors = exact(whole(self.positions, 1))
        self.in_full = _in_full(graph)
        self.behind = _behind(graph, self.in_full)
        for op in graph.ops:
            if op in self.in_full:
                continue
            if isinstance(op, o.Input):
                self.rows[op], self.columns[op] = rows, columns
            else:
                self.rows[op] = _reached(op, [self.rows[s] for s in op.inputs], 0, growth)
                self.columns[op] = _reached(op, [self.columns[s] for s in op.inputs], 1, growth)
            self.layouts[op] = self._layout(op)

    def _layout(self, op: Op) -> Layout:
        if op.grid == (1, 1):
            return self._of_vectors
        spans = self.columns[op]
        if isinstance(op, o.Input):
            return gather(spans, op.grid[1])  # what covers them covers nothing beside them
        in_place = o.Scale | o.Pointwise | o.Channels | o.Reshape | o.Cat | o.Add | o.Binary
        if isinstance(op, in_place) or (isinstance(op, o.Conv) and op.stays_in_place):
            for source in op.inputs:
                if source.grid == op.grid and self.layouts[source].holds(spans):
                    return self.layouts[source]
        if isinstance(op, o.Pad):
            before = self.layouts[op.inputs[0]]
            return Layout([Group(w, m, starts + op.left) for w, m, starts in before.groups])
        height = self.rows[op].lengths.mean()
        per_pixel, per_group = float(op.channels), _PER_CALL
        if isinstance(op, o.Conv):
            per_pixel, per_group = _per_pixel(op), _PER_CALL + _PER_WEIGHT * op.weight.numel()
        return gather(spans, op.grid[1], per_pixel * height, per_group)

    @property
    def bytes_of_band(self) -> int:
        """Bytes that one image's windows of a band take in the layer where they are largest."""
        return max(
            4 * op.channels * int(self.rows[op].lengths.max()) * layout.spans.total
            for op, layout in self.layouts.items()
        )

    @cached_property
    def full_multiply_adds(self) -> float:
        """Of convolutions and linear layers, if every position ran through the whole network."""
        each = sum(_per_pixel(op) * np.prod(op.grid) for op in self.graph.ops)
        return float(each * self.bands * self.positions)

    @cached_property
    def multiply_adds(self) -> float:
        """Of convolutions and linear layers, as planned."""
        return self._multiply_adds({op: self.layouts[op].spans for op in self.layouts})

    @cached_property
    def least_multiply_adds(self) -> float:
        """The same if every window were as small as can be, and linear layers ran in full."""
        linear = sum(
            _per_pixel(op) * self.bands * self.positions
            for op in self.graph.ops
            if isinstance(op, o.Linear)
        )
        return self._multiply_adds(self.columns, linear)

    def _multiply_adds(self, columns: Mapping[Op, Spans], linear: float | None = None) -> float:
        total = 0.0 if linear is None else linear
        for op in self.graph.ops:
            if op in self.in_full:
                total += _per_pixel(op) * np.prod(op.grid) * self.bands * self.positions
            elif isinstance(op, o.Linear):
                if linear is None:
                    (source,) = op.inputs
                    read = self.rows[source].total * columns[source].total
                    total += _per_pixel(op) / np.prod(source.grid) * read
            else:
                total += _per_pixel(op) * self.rows[op].total * columns[op].total
        return float(total)


def _per_pixel(op: Op) -> float:
    """Return the multiplications and additions behind one pixel of an operation's map."""
    if isinstance(op, o.Conv | o.Linear):
        return float(op.weight.numel())
    return 0.0


def _reached(op: Op, sources: list[Spans], axis: int, growth: float) -> Spans:
    """Return what an operation changes where its inputs are changed, along an axis."""
    size, positions = op.grid[axis], len(sources[0].starts)
    if isinstance(op, o.Sliding):
        reached = touched(sources[0], op.slides[axis], size)
        return reached if growth >= 1 else capped(reached, max(1, int(growth * size)))
    if isinstance(op, o.AdaptiveAvgPool | o.Mean | o.Linear | o.Flatten):
        if isinstance(op, o.AdaptiveAvgPool):
            return averaged(sources[0], op.inputs[0].grid[axis], size)
        return whole(positions, 1)
    if isinstance(op, o.Pad):
        offset = (op.top, op.left)[axis]
        return Spans(sources[0].starts + offset, sources[0].stops + offset)
    if isinstance(op, o.Binary) and any(source.grid[axis] != size for source in op.inputs):
        return whole(positions, size)
    return hull(*sources)


def _in_full(graph: Graph) -> frozenset[Op]:
    found: set[Op] = set()
    for op in graph.ops:
        if isinstance(op, o.Other) or any(source in found for source in op.inputs):
            found.add(op)
    return frozenset(found)


def _behind(graph: Graph, in_full: frozenset[Op]) -> frozenset[Op]:
    """Return the operations on vectors that no map depends on."""
    before = {op for op in graph.ops if op in in_full or op.grid != (1, 1)}
    # Pooled features themselves still belong to their band, which is gone afterwards.
    before |= {op for op in graph.ops if isinstance(op, o.Input | o.Mean | o.Sliding)}
    for op in reversed(graph.ops):
        if op in before:
            before |= set(op.inputs)
    return frozenset(op for op in graph.ops if op not in before)
