"""How differences pass through what slides over the image: convolution and pooling."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fc7.engine.attribution.occlusion.incremental.calls import Call, Rule, result, subtracts_base
from fc7.engine.attribution.occlusion.incremental.layout import Copy, Group, Layout, copies, views
from fc7.engine.attribution.occlusion.incremental.spans import Ints
from fc7.engine.attribution.occlusion.incremental.windows import (
    Windows,
    as_block,
    as_maps,
    pairs,
    pairs_of_map,
)
from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.ops import Slide


class _Reading(NamedTuple):
    """How a kernel reads the windows that make one group of its output.

    Attributes:
        slide: across.
        starts: the first column that each member reads, the padding of `padding` left out.
        width: columns that each reads.
        padding: zeros on either side, for the convolution to add itself.
        copies: where they come from.
        is_group: they are one group of the input, as it lies.
    """

    slide: Slide
    starts: Ints
    width: int
    padding: int
    copies: list[Copy]
    is_group: bool


def _reading(slide: Slide, group: Group, source: Layout, pads: bool) -> _Reading:
    starts = group.starts * slide.stride - slide.padding
    width = (group.width - 1) * slide.stride + slide.reach
    held = source.spans
    left = held.starts[group.members] - starts
    right = starts + width - held.stops[group.members]
    padding = max(0, int(min(left.min(), right.min()))) if pads else 0
    starts, width = starts + padding, width - 2 * padding
    found = copies(source, group.members, starts, width)
    whole = len(found) == 1 and found[0].width == width
    is_group = whole and found[0].target.length == len(
        source.groups[found[0].source_group].members
    ) == len(group.members)
    return _Reading(slide, starts, width, padding, found, is_group)


def _rows(slide: Slide, call: Call, pads: bool) -> tuple[int, int, int]:
    """Return the first row read, how many, and the zeros on either side, likewise."""
    (source, *_), (first, stop) = call.inputs, call.rows
    top = first * slide.stride - slide.padding
    height = (stop - first - 1) * slide.stride + slide.reach
    margins = source.top - top, top + height - source.bottom
    padding = max(0, min(margins)) if pads else 0
    return top + padding, height - 2 * padding, padding


def _zero_filled(source: Windows, reading: _Reading, top: int, height: int) -> Tensor:
    """Return what a kernel reads of windows, zero outside: (N, members, height, width, C)."""
    as_it_lies = reading.is_group and (top, height) == (source.top, source.height)
    if as_it_lies and reading.width == source.blocks[reading.copies[0].source_group].shape[3]:
        return source.blocks[reading.copies[0].source_group]
    like = source.blocks[0]
    target = like.new_zeros((len(like), len(reading.starts), height, reading.width, like.shape[4]))
    for to, part in pairs(target, top, source, reading.copies):
        to.copy_(part)
    return target


def conv(op: o.Conv, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """A convolution, without its bias: outside the windows a difference is zero, as padding is."""
    down, across = op.slides
    readings = [_reading(across, group, sources[0], pads=True) for group in layout.groups]
    stride = (down.stride, across.stride)
    dilation = (down.dilation, across.dilation)

    def run(call: Call) -> Windows:
        (source,) = call.inputs
        top, height, above = _rows(down, call, pads=True)
        blocks = []
        for reading in readings:
            read = _zero_filled(source, reading, top, height)
            padding = (above, reading.padding)
            maps = functional.conv2d(
                as_maps(read), op.weight, None, stride, padding, dilation, op.groups
            )
            blocks.append(as_block(maps, len(read)))
        return result(call, layout, blocks)

    return run


def max_pool(op: o.MaxPool, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """The maximum of the disturbed values, less the undisturbed maximum."""
    (before,) = op.inputs
    down, across = op.slides
    readings = [_reading(across, group, sources[0], pads=False) for group in layout.groups]
    of_map = [views(before.grid[1], reading.starts, reading.width) for reading in readings]
    kernel, stride = (down.kernel, across.kernel), (down.stride, across.stride)
    dilation = (down.dilation, across.dilation)
    minus_base = subtracts_base(op, layout)

    def run(call: Call) -> Windows:
        (source,) = call.inputs
        top, height, _ = _rows(down, call, pads=False)
        blocks = []
        for reading, undisturbed in zip(readings, of_map, strict=True):
            like = source.blocks[0]
            shape = (len(like), len(reading.starts), height, reading.width, like.shape[4])
            read = like.new_full(shape, -torch.inf)
            for to, part in pairs_of_map(read, top, call.base.map(before), undisturbed):
                to.copy_(part)
            for to, part in pairs(read, top, source, reading.copies):
                to.add_(part)
            maps = functional.max_pool2d(as_maps(read), kernel, stride, 0, dilation)
            blocks.append(as_block(maps, len(read)))
        return minus_base(call, blocks)

    return run


def avg_pool(op: o.AvgPool, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """A sum under the kernel, divided by what belongs to the place."""
    down, across = op.slides
    readings = [_reading(across, group, sources[0], pads=False) for group in layout.groups]
    kernel, stride = (down.kernel, across.kernel), (down.stride, across.stride)
    share = (1 / op.divisor)[None, :, :, None]
    of_map = [views(op.grid[1], group.starts, group.width) for group in layout.groups]

    def run(call: Call) -> Windows:
        (source,) = call.inputs
        top, height, _ = _rows(down, call, pads=False)
        factors = share.to(source.blocks[0])
        blocks = []
        for reading, places in zip(readings, of_map, strict=True):
            read = _zero_filled(source, reading, top, height)
            sums = functional.avg_pool2d(as_maps(read), kernel, stride, divisor_override=1)
            block = as_block(sums, len(read))
            for part, factor in pairs_of_map(block, call.rows[0], factors, places):
                part.mul_(factor)
            blocks.append(block)
        return result(call, layout, blocks)

    return run
