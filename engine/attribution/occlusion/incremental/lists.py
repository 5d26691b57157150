"""Runs a plan as lists of pixels: every position of every image at once, one kernel a layer.

`Executor` goes band by band, for a CPU's cache, and convolves windows of a few sizes. Here windows
keep their own sizes, no two need be alike, and a convolution, the sum behind it and the ReLU
behind that are one kernel (`fc7.kernels.window_conv`): few launches, each large enough for a GPU.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fc7.engine.attribution.occlusion.incremental.base import Base
from fc7.engine.attribution.occlusion.incremental.list_rules import (
    RULES,
    SPREADING,
    Rule,
    at_pixels,
    rule_for,
    slides_of,
)
from fc7.engine.attribution.occlusion.incremental.plan import Plan
from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.ops import Graph, Op
from fc7.kernels import Bounds, PixelList, Residual, pixel_list, window_conv
from fc7.kernels.pixel_lists import LARGEST_SIDE

_BYTES_TOGETHER = 2**30  # of the largest layer; a few such are in memory at once
_PROGRAMS = 64  # ranges of bands whose lists are kept


class ListExecutor:
    """A plan, ready to run on any number of images.

    Raises:
        ValueError: the plan holds an operation that lists do not serve.
    """

    def __init__(self, plan: Plan) -> None:
        if not self.serves(plan):
            raise ValueError("the network has operations that run in full only; use Executor")
        self.plan = plan
        self._steps = fused(plan.graph)
        self._bytes = _bytes_of_bands(plan)
        self._program = lru_cache(_PROGRAMS)(self._make_program)

    @staticmethod
    def serves(plan: Plan) -> bool:
        """Say whether every operation of a plan is one that can be run on lists."""
        return all(
            (type(op) in RULES or isinstance(op, o.Input | o.Conv)) and max(op.grid) <= LARGEST_SIDE
            for op in plan.graph.ops
        )

    @property
    def bytes_per_image(self) -> int:
        """Bytes that one image takes in the layer where all its windows are largest."""
        return int(self._bytes.sum(1).max())

    def run(self, base: Base, fill: Tensor, bands: range) -> Iterator[Tensor]:
        """Yield the logits' change for some rows of positions; see `Executor.run`."""
        if not len(bands):
            return
        largest = int(self._bytes[:, bands.start : bands.stop].sum(1).max()) * base.images
        runs = min(len(bands), -(-largest // _BYTES_TOGETHER))
        together = -(-len(bands) // runs)
        for first in range(bands.start, bands.stop, together):
            part = range(first, min(first + together, bands.stop))
            changes = self._run(part, base, fill)
            yield changes.reshape(base.images, len(part), self.plan.positions, -1)

    def _run(self, bands: range, base: Base, fill: Tensor) -> Tensor:
        image = self.plan.graph.input
        program = self._program(bands, base.output.device)
        covered = fill - at_pixels(base.map(image), program.pixels)
        values: dict[Op, Tensor] = {image: covered.to(base.map(image).dtype)}
        left = Counter(source for step in self._steps for source in set(step.inputs))
        for step, rule in zip(self._steps, program.rules, strict=True):
            values[step.op] = rule(base, [values[source] for source in step.inputs])
            for source in set(step.inputs):
                left[source] -= 1
                if not left[source]:
                    del values[source]
        return values[self.plan.graph.output]

    def _make_program(self, bands: range, device: torch.device) -> "_Program":
        lists: dict[tuple[object, ...], PixelList] = {}
        of: dict[Op, PixelList] = {}
        for op in self.plan.graph.ops:
            rows = [ends[bands.start : bands.stop] for ends in self.plan.rows[op]]
            columns = list(self.plan.columns[op])
            # Operations whose windows lie alike share a list, and see that they do.
            key = (op.grid, *(ends.tobytes() for ends in (*rows, *columns)))
            if key not in lists:
                lists[key] = pixel_list(_boxes(rows, columns).to(device), op.grid)
            of[op] = lists[key]
        rules = [
            _convolution(step, of)
            if step.conv
            else rule_for(step.op, of[step.op], [of[source] for source in step.op.inputs])
            for step in self._steps
        ]
        return _Program(of[self.plan.graph.input], rules)


class _Program(NamedTuple):
    """What is made once for a range of bands: the covered pixels, and each step's rule."""

    pixels: PixelList
    rules: list[Rule]


class Step(NamedTuple):
    """What one kernel does.

    Attributes:
        op: the operation whose result it makes.
        inputs: the operations whose results it reads.
        conv: a convolution to begin with, if any.
        adds: whether its second input is added then.
        relu: the operation in front of a ReLU to end with, if any.
    """

    op: Op
    inputs: tuple[Op, ...]
    conv: o.Conv | None = None
    adds: bool = False
    relu: Op | None = None


def fused(graph: Graph) -> list[Step]:
    """Return a network's steps: a convolution takes a sum and a ReLU behind it, if alone there."""
    readers = Counter(source for op in graph.ops for source in set(op.inputs))
    readers[graph.output] += 1
    order = {op: number for number, op in enumerate(graph.ops)}
    steps: dict[Op, Step] = {}
    for op in graph.ops[1:]:
        step = Step(op, op.inputs)
        if isinstance(op, o.Conv):
            step = step._replace(conv=op)
        elif isinstance(op, o.Add) and op.alpha == 1:
            alone = [s for s in op.inputs if isinstance(s, o.Conv) and readers[s] == 1]
            if alone and op.inputs[0] is not op.inputs[1]:
                # The later one: what it is added to is there by then.
                conv = max(alone, key=order.__getitem__)
                (other,) = (source for source in op.inputs if source is not conv)
                del steps[conv]
                step = Step(op, (*conv.inputs, other), conv, adds=True)
        elif isinstance(op, o.Relu):
            (before,) = op.inputs
            if readers[before] == 1 and before in steps and steps[before].conv:
                step = steps.pop(before)._replace(op=op, relu=before)
        steps[op] = step
    return list(steps.values())


def _convolution(step: Step, of: dict[Op, PixelList]) -> Rule:
    conv = step.conv
    assert conv is not None
    source, target, slides = of[step.inputs[0]], of[step.op], slides_of(conv)

    def run(base: Base, inputs: Sequence[Tensor]) -> Tensor:
        residual = Residual(inputs[1], of[step.inputs[1]]) if step.adds else None
        bounds = Bounds(*base.relu_bounds(step.relu)) if step.relu else None
        weight = conv.weight.to(inputs[0].dtype)
        return window_conv(inputs[0], weight, source, target, slides, conv.groups, residual, bounds)

    return run


def _boxes(rows: list[np.ndarray], columns: list[np.ndarray]) -> Tensor:
    """Return the windows of all positions, row by row, (P, 4)."""
    tops, lefts = np.meshgrid(rows[0], columns[0], indexing="ij")
    bottoms, rights = np.meshgrid(rows[1], columns[1], indexing="ij")
    return torch.from_numpy(np.stack([tops, lefts, bottoms, rights], -1).reshape(-1, 4))


def _bytes_of_bands(plan: Plan) -> np.ndarray:
    """Return how many bytes of one image each operation holds for each band, in float32."""
    found = []
    for op in plan.graph.ops:
        found.append(4 * op.channels * plan.rows[op].lengths * plan.columns[op].total)
        if isinstance(op, SPREADING):
            (source,) = op.inputs
            whole = 4 * int(np.prod(source.shape)) * plan.positions
            found.append(np.full(plan.bands, whole))
    return np.stack(found)
