"""How differences pass through what keeps every pixel in its place."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fc7.engine.attribution.occlusion.incremental.calls import (
    Call,
    Rule,
    adds_base,
    distinct,
    on_map,
    own_blocks,
    result,
    subtracts_base,
    through,
    zeros,
)
from fc7.engine.attribution.occlusion.incremental.layout import Layout, between
from fc7.engine.attribution.occlusion.incremental.windows import (
    Windows,
    pairs,
    pairs_of_map,
)
from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.ops import Op


def relu(op: o.Relu, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """A ReLU: max(x + d, 0) - max(x, 0), by two bounds; see `Base.relu_bounds_in`."""
    (before,) = op.inputs
    of_map = on_map(op, layout)

    def run(call: Call) -> Windows:
        blocks = own_blocks(call, layout, sources)
        lows, highs = call.base.relu_bounds_in(before, call.rows)
        for block, places in zip(blocks, of_map, strict=True):
            for part, low in pairs_of_map(block, 0, lows, places):
                part.add_(low)
            for part, high in pairs_of_map(block, 0, highs, places):
                torch.maximum(part, high, out=part)
        return result(call, layout, blocks)

    return run


def pointwise(op: o.Pointwise, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """Any function of an element: of the disturbed value, less the undisturbed result."""
    plus_base, minus_base = adds_base(op.inputs[0], layout), subtracts_base(op, layout)

    def run(call: Call) -> Windows:
        values = plus_base(call, own_blocks(call, layout, sources))
        return minus_base(call, [through(op, [value]) for value in values])

    return run


def scale(op: o.Scale, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """A factor by channel; what is added is in both and falls out."""

    def run(call: Call) -> Windows:
        blocks = own_blocks(call, layout, sources)
        if op.scale is not None:
            scale = op.scale.to(blocks[0])
            for block in blocks:
                block.mul_(scale)
        return result(call, layout, blocks)

    return run


def reshape(op: o.Reshape, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """The same elements under another name or dtype."""

    def run(call: Call) -> Windows:
        (source,) = call.inputs
        blocks = source.blocks
        if op.dtype is not None:
            blocks = [block.to(op.dtype) for block in blocks]
        return result(call, layout, blocks)

    return run


def add(op: o.Add, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """A sum of two, in the hull of their windows."""
    found = [between(source, layout) for source in sources]
    factors = (1.0, op.alpha)

    def run(call: Call) -> Windows:
        blocks, rest = None, [0, 1]
        for number, (source, spare) in enumerate(zip(call.inputs, call.spare, strict=True)):
            same = source.layout is layout and (source.top, source.bottom) == call.rows
            if spare and same and factors[number] == 1:
                blocks, rest = source.blocks, [1 - number]
                break
        if blocks is None:
            blocks = zeros(call, layout, op.channels)
        for number in rest:
            for block, places in zip(blocks, found[number], strict=True):
                for to, part in pairs(block, call.rows[0], call.inputs[number], places):
                    to.add_(part, alpha=factors[number])
        return result(call, layout, blocks)

    return run


def binary(op: Op, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """Any function of two elements, by their disturbed values."""
    widened = [_widened(source, layout, given) for source, given in distinct(op, sources)]
    minus_base = subtracts_base(op, layout)

    def run(call: Call) -> Windows:
        inputs = dict(zip(op.inputs, call.inputs, strict=True)).values()
        values = [widen(call, source) for widen, source in zip(widened, inputs, strict=True)]
        return minus_base(call, [through(op, group) for group in zip(*values, strict=True)])

    return run


def _widened(source: Op, layout: Layout, given: Layout) -> Callable[[Call, Windows], list[Tensor]]:
    """Return what makes an input's values in the windows of a layout; of a vector as it is."""
    if source.grid == (1, 1):
        plus_base = adds_base(source, given)

        def of_vector(call: Call, windows: Windows) -> list[Tensor]:
            rows = call._replace(rows=(0, 1))
            (value,) = plus_base(rows, [block.clone() for block in windows.blocks])
            return [value[:, group.members] for group in layout.groups]

        return of_vector
    plus_base = adds_base(source, layout)
    found = between(given, layout)

    def of_map(call: Call, windows: Windows) -> list[Tensor]:
        blocks = plus_base(call, zeros(call, layout, source.channels))
        for block, places in zip(blocks, found, strict=True):
            for to, part in pairs(block, call.rows[0], windows, places):
                to.add_(part)
        return blocks

    return of_map


def cat(op: o.Cat, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """Channels behind channels, in the hull of their windows."""
    found = [between(source, layout) for source in sources]

    def run(call: Call) -> Windows:
        blocks = zeros(call, layout, op.channels)
        channel = 0
        for before, source, places_of in zip(op.inputs, call.inputs, found, strict=True):
            channels = slice(channel, channel + before.channels)
            for block, places in zip(blocks, places_of, strict=True):
                for to, part in pairs(block[..., channels], call.rows[0], source, places):
                    to.copy_(part)
            channel += before.channels
        return result(call, layout, blocks)

    return run


def channels(op: o.Channels, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """Some of the channels."""

    def run(call: Call) -> Windows:
        # All channels, or those of a single pixel, would lie in the memory of the input.
        blocks = [
            block[..., op.index].clone(memory_format=torch.contiguous_format)
            for block in call.inputs[0].blocks
        ]
        return result(call, layout, blocks)

    return run


def pad(op: o.Pad, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """Lines around the image, which never change."""

    def run(call: Call) -> Windows:
        return result(call, layout, call.inputs[0].blocks)

    return run
