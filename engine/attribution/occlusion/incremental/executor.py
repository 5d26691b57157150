"""Runs a plan: covers images at every position and says by how much the output changes.

Bands go one after the other through the part of the network that works on maps. What comes out of
it, pooled features or the last maps, is collected for many positions, which then go through the
linear layers together: their weights are read once for all.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fc7.engine.attribution.occlusion.incremental.base import Base
from fc7.engine.attribution.occlusion.incremental.calls import Call, Rule, on_map
from fc7.engine.attribution.occlusion.incremental.layout import everywhere, exact
from fc7.engine.attribution.occlusion.incremental.plan import Plan
from fc7.engine.attribution.occlusion.incremental.rules import rule_for
from fc7.engine.attribution.occlusion.incremental.spans import whole
from fc7.engine.attribution.occlusion.incremental.windows import Windows, pairs, pairs_of_map
from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.ops import Op
from fc7.kernels import linear

_POSITIONS_TOGETHER = 1024
_BYTES_TOGETHER = 2**26  # of collected maps
_POSITIONS_COPIED = 256  # at once, of maps that are brought into another order
_UNITS_TOGETHER = 1024  # of a linear layer whose weights are copied
# Above this share of a map, windows are not worth the pixel by pixel product.
_MOST_OF_MAP = 0.7


class Executor:
    """A plan, ready to run on any number of images."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        graph = plan.graph
        self._front = [op for op in graph.ops[1:] if op not in plan.behind]
        self._back = [op for op in graph.ops if op in plan.behind]
        self._rules = {
            op: rule_for(op, plan.layouts[op], [plan.layouts[source] for source in op.inputs])
            for op in self._front
            if op not in plan.in_full
        }
        read = (source for op in self._back for source in op.inputs)
        collected = dict.fromkeys(source for source in read if source not in plan.behind)
        self._collected = list(collected) or [graph.output]
        self._last = _last_readers(self._front, self._collected)
        self._last_behind = _last_readers(self._back, [graph.output])
        self._back_rules = cache(self._make_back_rules)
        self._covered_at = on_map(graph.input, plan.layouts[graph.input])
        # What becomes whole maps: for the linear layers, or for what runs in full.
        spread = {*self._collected, *(source for op in plan.in_full for source in op.inputs)}
        self._spread = {
            op: everywhere(plan.layouts[op], op.grid[1]) for op in spread - plan.in_full
        }

    def run(self, base: Base, fill: Tensor, bands: range) -> Iterator[Tensor]:
        """Yield the logits' change for some rows of positions, from the top to the bottom.

        Args:
            base: the undisturbed images.
            fill: (3,), what covers.
            bands: the rows of positions.

        Returns:
            (N, rows, columns, classes) each time; all of them together are `bands`.
        """
        plan = self.plan
        bytes_each = max(
            int(np.prod(op.shape)) * base.images * fill.itemsize for op in self._collected
        )
        together = min(_POSITIONS_TOGETHER, _BYTES_TOGETHER // bytes_each) // plan.positions
        parts = max(1, -(-len(bands) // max(1, together)))
        together = max(1, -(-len(bands) // parts))  # as many each time
        for first in range(bands.start, bands.stop, together):
            yield self._run_bands(range(first, min(first + together, bands.stop)), base, fill)

    def _run_bands(self, bands: range, base: Base, fill: Tensor) -> Tensor:
        plan = self.plan
        shape = (base.images, len(bands), plan.positions)
        collected: dict[Op, Tensor] = {}
        for place, band in enumerate(bands):
            windows, full = self._run_band(band, base, fill)
            for op in self._collected:
                if not place:  # half precision shows only now
                    like = windows[op].blocks[0] if op in windows else base.output
                    collected[op] = like.new_zeros((*shape, *op.grid, op.channels))
                maps = collected[op][:, place]
                if op in windows:
                    for to, part in pairs(maps, 0, windows[op], self._spread[op]):
                        to.copy_(part)
                else:  # then it is the output: all behind an unknown is in full
                    change = full[op].view(-1, plan.positions, *op.shape) - base.output[:, None]
                    maps.copy_(change.view_as(maps))
        if not self._back:
            (out,) = collected.values()
            return out.reshape(*shape, -1)
        return self._run_back(bands, base, collected).reshape(*shape, -1)

    def _run_band(
        self, band: int, base: Base, fill: Tensor
    ) -> tuple[dict[Op, Windows], dict[Op, Tensor]]:
        """Return what the collected operations change, or their whole values if in full."""
        plan = self.plan
        windows: dict[Op, Windows] = {plan.graph.input: self._covered(band, base, fill)}
        full: dict[Op, Tensor] = {}
        for number, op in enumerate(self._front):
            done = [source for source in set(op.inputs) if self._last.get(source) == number]
            if op in plan.in_full:
                full[op] = self._run_in_full(op, windows, full, base)
            else:
                rows = plan.rows[op]
                span = int(rows.starts[band]), int(rows.stops[band])
                inputs = [windows[source] for source in op.inputs]
                windows[op] = self._rules[op](Call(base, inputs, _spare(op, done), span))
            for source in done:
                windows.pop(source, None)
                full.pop(source, None)
        return windows, full

    def _covered(self, band: int, base: Base, fill: Tensor) -> Windows:
        """Return by how much covering changes the images."""
        plan, images = self.plan, self.plan.graph.input
        rows, layout = plan.rows[images], plan.layouts[images]
        top, bottom = int(rows.starts[band]), int(rows.stops[band])
        source = base.map(images)
        blocks = []
        for (width, members, _), places in zip(layout.groups, self._covered_at, strict=True):
            shape = (base.images, len(members), bottom - top, width, images.channels)
            block = fill.expand(shape).clone()
            for part, pixels in pairs_of_map(block, top, source, places):
                part.sub_(pixels)
            blocks.append(block)
        return Windows(top, bottom - top, layout, blocks)

    def _run_in_full(
        self, op: Op, windows: dict[Op, Windows], full: dict[Op, Tensor], base: Base
    ) -> Tensor:
        values = (
            full[source] if source in full else self._disturbed(source, windows[source], base)
            for source in dict.fromkeys(op.inputs)
        )
        return op.full(*values)

    def _disturbed(self, op: Op, windows: Windows, base: Base) -> Tensor:
        """Return an operation's whole values under each position, (N * positions, *shape)."""
        maps = base.map(op)[:, None].expand(-1, self.plan.positions, -1, -1, -1).clone()
        for to, part in pairs(maps, 0, windows, self._spread[op]):
            to.add_(part)
        return maps.flatten(0, 1).permute(0, 3, 1, 2).reshape(-1, *op.shape)

    def _run_back(self, bands: range, base: Base, collected: dict[Op, Tensor]) -> Tensor:
        plan = self.plan
        positions = len(bands) * plan.positions
        layout = exact(whole(positions, 1))
        rules = self._back_rules(positions)
        values: dict[Op, Windows] = {
            op: Windows(0, 1, layout, [maps.flatten(1, 2)])
            for op, maps in collected.items()
            if op.grid == (1, 1)
        }
        for number, op in enumerate(self._back):
            done = [source for source in set(op.inputs) if self._last_behind.get(source) == number]
            if op in rules:
                inputs = [values[source] for source in op.inputs]
                values[op] = rules[op](Call(base, inputs, _spare(op, done), (0, 1)))
            else:
                (source,) = op.inputs
                if isinstance(op, o.Linear):
                    found = self._linear(op, collected[source], bands)
                else:
                    assert isinstance(op, o.Flatten)
                    found = collected[source].permute(0, 1, 2, 5, 3, 4).flatten(3)
                values[op] = Windows(0, 1, layout, [found.flatten(1, 2)[:, :, None, None]])
            for source in done:
                values.pop(source, None)
                collected.pop(source, None)
        return values[plan.graph.output].blocks[0]

    def _make_back_rules(self, positions: int) -> dict[Op, Rule]:
        layout = exact(whole(positions, 1))
        return {
            op: rule_for(op, layout, [layout] * len(op.inputs))
            for op in self._back
            if all(source.grid == (1, 1) for source in op.inputs)
        }

    def _linear(self, op: o.Linear, maps: Tensor, bands: range) -> Tensor:
        """Return a linear layer's change, (N, rows, columns, D), by that of all of its map.

        Where windows are small, pixel by pixel: each meets only the positions that change it.
        """
        (source,) = op.inputs
        rows, columns = self.plan.rows[source], self.plan.layouts[source].spans
        height, width = source.grid
        down = [_covering(rows.starts[bands], rows.stops[bands], y) for y in range(height)]
        across = [_covering(columns.starts, columns.stops, x) for x in range(width)]
        covered = sum(s.stop - s.start for s in down) * sum(s.stop - s.start for s in across)
        if covered > _MOST_OF_MAP * height * width * len(bands) * self.plan.positions:
            bands_each = max(1, _POSITIONS_COPIED // self.plan.positions)
            split = torch.split(maps, bands_each, 1)
            parts = (part.permute(0, 1, 2, 5, 3, 4).flatten(3) for part in split)
            return torch.cat([linear(part, op.weight.flatten(1)) for part in parts], 1)
        out = maps.new_zeros((*maps.shape[:3], len(op.weight)))
        for units in range(0, len(op.weight), _UNITS_TOGETHER):
            some = slice(units, units + _UNITS_TOGETHER)
            for y, here in enumerate(down):
                # A row's weights at once: a single pixel's lie apart, one to a line of the cache.
                weights = op.weight[some, :, y].permute(2, 0, 1).contiguous()
                for x, there in enumerate(across):
                    part = maps[:, here, there, y, x]
                    if part.numel():
                        out[:, here, there, some] += linear(part.contiguous(), weights[x])
        return out


def _covering(starts: np.ndarray, stops: np.ndarray, place: int) -> slice:
    """Return the smallest range of positions that holds all those whose span holds a place."""
    found = np.flatnonzero((starts <= place) & (stops > place))
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _spare(op: Op, done: list[Op]) -> list[bool]:
    """Return which inputs' memory an operation may write over: what nothing reads afterwards."""
    twice = len(set(op.inputs)) < len(op.inputs)
    return [source in done and not twice for source in op.inputs]


def _last_readers(ops: list[Op], collected: list[Op]) -> dict[Op, int]:
    """Return which operation reads each one last, by number; what is collected, none of them.

    A reshaped tensor is the tensor itself: both are read until the last reader of either is done.
    """
    last: dict[Op, int] = {}
    same: dict[Op, Op] = {}
    for number, op in enumerate(ops):
        if isinstance(op, o.Reshape | o.Pad | o.Flatten):
            same[op] = same.get(op.inputs[0], op.inputs[0])
        for source in op.inputs:
            last[source] = number
    last |= dict.fromkeys(collected, len(ops))
    for root in dict.fromkeys(same.values()):
        family = [root, *(each for each, of in same.items() if of is root)]
        # None of them may be written over by its own last reader while another lives.
        latest = max(last.get(each, -1) for each in family)
        for each in family:
            if last.get(each) != latest:
                last.pop(each, None)
    return last
