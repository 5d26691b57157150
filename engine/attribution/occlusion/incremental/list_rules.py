"""How differences pass through each operation, all positions at once, as lists of pixels.

The rules of `rules`, for another layout: (N, M, C), one row of channels for each pixel of each
position's window (`fc7.kernels.pixel_lists`). A rule is made once for an operation and its lists.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fc7.engine.attribution.occlusion.incremental.base import Base
from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.ops import Op
from fc7.kernels import PixelList, Slides, linear, window_max_pool
from fc7.kernels.window_conv import read_pixels

Rule = Callable[[Base, Sequence[Tensor]], Tensor]


def rule_for(op: Op, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    """Return what makes an operation's differences from those of its inputs.

    Args:
        op: the operation; not a convolution, whose rule is what it is fused with.
        target: the pixels of its result.
        sources: those of its inputs.
    """
    return RULES[type(op)](op, target, sources)


def slides_of(op: o.Sliding) -> Slides:
    """Return an operation's slides as the kernels want them."""
    down, across = op.slides
    kernel, stride, padding, dilation = zip(down, across, strict=True)
    return Slides(kernel, stride, padding, dilation)


def at_pixels(maps: Tensor, pixels: PixelList) -> Tensor:
    """Return what maps hold at the pixels of a list: (N, H, W, C) -> (N, M, C)."""
    return maps.flatten(1, 2).index_select(1, pixels.on_map)


def relu_of(base: Base, before: Op, pixels: PixelList, differences: Tensor) -> Tensor:
    """Return differences behind a ReLU; see `Base.relu_bounds`."""
    low, high = base.relu_bounds(before)
    return torch.maximum(differences + at_pixels(low, pixels), at_pixels(high, pixels))


def _moved(source: PixelList, target: PixelList) -> Callable[[Tensor], Tensor]:
    """Return what makes the target's list of a source's, zero where it has none."""
    if source is target:
        return lambda differences: differences
    places = source.places_of(target)
    return lambda differences: _with_zero(differences).index_select(1, places)


def _with_zero(differences: Tensor) -> Tensor:
    """Return differences and one row of zeros, which stands for all pixels outside a window."""
    return functional.pad(differences, (0, 0, 0, 1))


def _relu(op: o.Relu, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    return lambda base, inputs: relu_of(base, op.inputs[0], target, inputs[0])


def _pointwise(op: o.Pointwise, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    return _by_values(op, target, [_moved(sources[0], target)])


def _binary(op: o.Binary, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    pairs = dict(zip(op.inputs, sources, strict=True)).items()
    return _by_values(op, target, [_widened(before, given, target) for before, given in pairs])


def _widened(op: Op, source: PixelList, target: PixelList) -> Callable[[Tensor], Tensor]:
    """Return what moves an input; a vector, which is one pixel, to every pixel of its position."""
    if op.grid == target.size:
        return _moved(source, target)
    owners = target.owners.long()
    return lambda differences: differences.index_select(1, owners)


def _by_values(op: Op, target: PixelList, moved: Sequence[Callable[[Tensor], Tensor]]) -> Rule:
    """A function of each pixel: of the disturbed values, less the undisturbed result."""
    distinct = list(dict.fromkeys(op.inputs))

    def run(base: Base, inputs: Sequence[Tensor]) -> Tensor:
        given = dict(zip(op.inputs, inputs, strict=True))
        values = []
        for before, move in zip(distinct, moved, strict=True):
            maps = base.map(before)
            if before.grid == target.size:
                values.append(move(given[before]) + at_pixels(maps, target))
            else:
                values.append(move(given[before] + maps[:, 0]))
        if len(op.shape) == 3:  # a map of one column
            shaped = [value.transpose(1, 2)[..., None] for value in values]
            found = op.full(*shaped)[..., 0].transpose(1, 2)
        else:
            found = op.full(*(value.flatten(0, 1) for value in values)).view_as(values[0])
        return found - at_pixels(base.map(op), target)

    return run


def _scale(op: o.Scale, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    def run(base: Base, inputs: Sequence[Tensor]) -> Tensor:
        return inputs[0] if op.scale is None else inputs[0] * op.scale.to(inputs[0])

    return run


def _reshape(op: o.Reshape, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    return lambda base, inputs: inputs[0] if op.dtype is None else inputs[0].to(op.dtype)


def _pad(op: o.Pad, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    return lambda base, inputs: inputs[0]  # the same pixels, elsewhere on the map


def _add(op: o.Add, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    left, right = (_moved(source, target) for source in sources)
    return lambda base, inputs: torch.add(left(inputs[0]), right(inputs[1]), alpha=op.alpha)


def _cat(op: o.Cat, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    moved = [_moved(source, target) for source in sources]

    def run(base: Base, inputs: Sequence[Tensor]) -> Tensor:
        return torch.cat([move(each) for move, each in zip(moved, inputs, strict=True)], 2)

    return run


def _channels(op: o.Channels, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    return lambda base, inputs: inputs[0][..., op.index].contiguous()


def _max_pool(op: o.MaxPool, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    (before,), (source,), slides = op.inputs, sources, slides_of(op)

    def run(base: Base, inputs: Sequence[Tensor]) -> Tensor:
        return window_max_pool(inputs[0], base.map(before), source, target, slides)

    return run


def _avg_pool(op: o.AvgPool, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    (source,) = sources
    rows, columns = read_pixels(target, slice(None), slides_of(op))
    places = source.places(target.owners[:, None], rows, columns)
    share = (1 / op.divisor).reshape(-1).to(target.on_map.device)[target.on_map, None]

    def run(base: Base, inputs: Sequence[Tensor]) -> Tensor:
        padded = _with_zero(inputs[0])
        total = padded.index_select(1, places[:, 0])
        for tap in places.T[1:]:
            total += padded.index_select(1, tap)
        return total.mul_(share.to(total))

    return run


def _adaptive_avg_pool(op: Op, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    (source,) = sources

    def run(base: Base, inputs: Sequence[Tensor]) -> Tensor:
        maps = source.spread(inputs[0]).flatten(0, 1).permute(0, 3, 1, 2)
        pooled = functional.adaptive_avg_pool2d(maps, op.grid).permute(0, 2, 3, 1)
        shape = (len(inputs[0]), source.positions, *pooled.shape[1:])
        return target.gather(pooled.reshape(shape))

    return run


def _mean(op: o.Mean, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    (source,) = sources
    pixels = source.size[0] * source.size[1]
    return lambda base, inputs: source.spread(inputs[0]).sum((2, 3)) / pixels


def _flatten(op: o.Flatten, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    (source,) = sources
    return lambda base, inputs: _flat(source, inputs[0])


def _linear(op: o.Linear, target: PixelList, sources: Sequence[PixelList]) -> Rule:
    (source,), weight = sources, op.weight.flatten(1)
    return lambda base, inputs: linear(_flat(source, inputs[0]), weight)


def _flat(source: PixelList, differences: Tensor) -> Tensor:
    """Return whole maps as vectors, (N, P, C * H * W)."""
    if source.size == (1, 1):
        return differences
    return source.spread(differences).permute(0, 1, 4, 2, 3).flatten(2)


# What spreads windows over whole maps first, which may take more memory than the windows.
SPREADING = (o.AdaptiveAvgPool, o.Mean, o.Flatten, o.Linear)

RULES: dict[type[Op], Callable[..., Rule]] = {
    o.Relu: _relu,
    o.Pointwise: _pointwise,
    o.Binary: _binary,
    o.Scale: _scale,
    o.Reshape: _reshape,
    o.Pad: _pad,
    o.Add: _add,
    o.Cat: _cat,
    o.Channels: _channels,
    o.MaxPool: _max_pool,
    o.AvgPool: _avg_pool,
    o.AdaptiveAvgPool: _adaptive_avg_pool,
    o.Mean: _mean,
    o.Flatten: _flatten,
    o.Linear: _linear,
}
