"""What rules are given, and what several of them do."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from fc7.engine.attribution.occlusion.incremental.base import Base
from fc7.engine.attribution.occlusion.incremental.layout import Copy, Layout, everywhere, views
from fc7.engine.attribution.occlusion.incremental.windows import (
    Windows,
    as_block,
    as_maps,
    pairs,
    pairs_of_map,
)
from fc7.engine.attribution.tracing.ops import Op


class Call(NamedTuple):
    """One run of a rule.

    Attributes:
        base: the undisturbed activations.
        inputs: differences in the operation's inputs.
        spare: for each of them whether its blocks may be written over.
        rows: the first row that the result holds, and the one behind the last.
    """

    base: Base
    inputs: Sequence[Windows]
    spare: Sequence[bool]
    rows: tuple[int, int]


Rule = Callable[[Call], Windows]


def result(call: Call, layout: Layout, blocks: list[Tensor]) -> Windows:
    """Return a rule's result, in the rows it was asked for."""
    first, stop = call.rows
    return Windows(first, stop - first, layout, blocks)


def zeros(call: Call, layout: Layout, channels: int) -> list[Tensor]:
    """Return blocks of a layout without any difference."""
    first, stop = call.rows
    like = call.inputs[0].blocks[0]
    return [
        like.new_zeros((len(like), len(members), stop - first, width, channels))
        for width, members, _ in layout.groups
    ]


def own_blocks(call: Call, layout: Layout, sources: Sequence[Layout]) -> list[Tensor]:
    """Return the only input's blocks, to be written over, in the layout of the result."""
    (source,), (spare,) = call.inputs, call.spare
    assert sources[0] is layout
    return source.blocks if spare else [block.clone() for block in source.blocks]


def on_map(op: Op, layout: Layout) -> list[list[Copy]]:
    """Return where the windows of a layout lie on the map of an operation."""
    return [views(op.grid[1], group.starts, group.width) for group in layout.groups]


def adds_base(op: Op, layout: Layout) -> Callable[[Call, list[Tensor]], list[Tensor]]:
    """Return what adds an operation's undisturbed values to differences, in place."""
    of_map = on_map(op, layout)

    def add(call: Call, blocks: list[Tensor]) -> list[Tensor]:
        for block, places in zip(blocks, of_map, strict=True):
            for part, base in pairs_of_map(block, call.rows[0], call.base.map(op), places):
                part.add_(base)
        return blocks

    return add


def subtracts_base(op: Op, layout: Layout) -> Callable[[Call, list[Tensor]], Windows]:
    """Return what makes differences of values, in place."""
    of_map = on_map(op, layout)

    def subtract(call: Call, blocks: list[Tensor]) -> Windows:
        for block, places in zip(blocks, of_map, strict=True):
            for part, base in pairs_of_map(block, call.rows[0], call.base.map(op), places):
                part.sub_(base)
        return result(call, layout, blocks)

    return subtract


def through(op: Op, values: Sequence[Tensor]) -> Tensor:
    """Run an operation on values in windows, (N, members, h, w, C); return a block."""
    maps = [as_maps(value) for value in values]
    if len(op.shape) != 3:
        maps = [each.reshape(-1, *op.shape) for each in maps]
    out = op.full(*maps)
    return as_block(out.reshape(len(out), op.channels, *_sides(op, maps)), len(values[0]))


def _sides(op: Op, maps: Sequence[Tensor]) -> tuple[int, int]:
    if len(op.shape) != 3:
        return 1, 1
    return max(each.shape[2] for each in maps), max(each.shape[3] for each in maps)


def distinct(op: Op, sources: Sequence[Layout]) -> list[tuple[Op, Layout]]:
    """Return the inputs that differ from one another, with their layouts."""
    return list(dict(zip(op.inputs, sources, strict=True)).items())


def spreads(op: Op, layout: Layout) -> Callable[[Windows], Tensor]:
    """Return what spreads windows over whole maps, zero elsewhere: (N, positions, H, W, C)."""
    height, width = op.grid
    found = everywhere(layout, width)
    as_it_lies = len(layout.groups) == 1 and layout.groups[0].width == width

    def spread(source: Windows) -> Tensor:
        like = source.blocks[0]
        if as_it_lies and source.height == height:
            return like
        target = like.new_zeros((len(like), layout.positions, height, width, like.shape[4]))
        for to, part in pairs(target, 0, source, found):
            to.copy_(part)
        return target

    return spread
