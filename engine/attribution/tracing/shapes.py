"""Builders of what moves elements: channels joined, cut, picked and shuffled."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.building import (
    Arguments,
    Grouped,
    Made,
    Part,
    Selected,
    common,
    map_of,
    op_of,
    require,
)
from fc7.engine.attribution.tracing.elements import same
from fc7.engine.attribution.tracing.ops import Op


def cat(made: Made, a: Arguments) -> Op:
    """Build a concatenation of channels."""
    for value in a["tensors"]:
        op_of(value)
    name, _, shape, full = common(made)
    require(a["dim"] in (1, -len(shape)))
    return o.Cat(name, tuple(a["tensors"]), shape, full)


def reshape(made: Made, a: Arguments) -> Any:
    """Build what changes the axes: a vector of a map, channels in groups, or nothing at all."""
    value = next(iter(a.values()))
    if isinstance(value, Grouped):
        return _ungroup(made, value)
    source = op_of(value)
    shape = made.shape
    require(shape is not None)
    assert shape is not None
    # Not the call itself: the number of images may stand in it.
    reshaped = partial(_reshaped, shape=shape)
    if shape == source.shape or (source.grid == (1, 1) and shape[:1] == source.shape[:1]):
        return o.Reshape(made.name, (source,), shape, reshaped, None)
    if len(shape) == 1:
        return o.Flatten(made.name, (source,), shape, reshaped)
    require(len(shape) == 4 and shape[2:] == source.grid)
    part = Grouped(source, made.as_op)
    part.groups, part.turned = shape[0], False
    return part


def _reshaped(value: Tensor, shape: Sequence[int]) -> Tensor:
    return value.reshape(len(value), *shape)


def _ungroup(made: Made, part: Grouped) -> Op:
    source, shape = part.op, made.shape
    require(part.turned and shape == source.shape)
    order = torch.arange(source.channels).view(part.groups, -1).T.reshape(-1)
    return o.Channels(
        made.name, (source,), source.shape, partial(_take_channels, index=order), order
    )


def _take_channels(value: Tensor, index: Any) -> Tensor:
    return value[:, index]


def turn(made: Made, a: Arguments) -> Part:
    """Turn groups of channels inside out, the middle of a channel shuffle."""
    part = a["self"]
    require(isinstance(part, Grouped) and not part.turned)
    require({a["dim0"] % 5, a["dim1"] % 5} == {1, 2})
    turned = Grouped(part.op, made.as_op)
    turned.groups, turned.turned = part.groups, True
    return turned


def kept(made: Made, a: Arguments) -> Any:
    """A copy of a `Part` is the same part."""
    value = next(iter(a.values()))
    return value if isinstance(value, Grouped) else same(made, a)


def split(made: Made, a: Arguments) -> Any:
    """Build the pieces that channels are cut into."""
    source = map_of(a["self"])
    require(a["dim"] in (1, -3))
    sizes = a.get("split_size", a.get("split_sizes"))
    if "chunks" in a:
        sizes = -(-source.channels // a["chunks"])
    if isinstance(sizes, int):
        cuts = [*range(0, source.channels, sizes), source.channels]
    else:
        cuts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    return [
        _slice_of(f"{made.name}_{number}", source, slice(start, stop))
        for number, (start, stop) in enumerate(pairwise(cuts))
    ]


def cut(made: Made, a: Arguments) -> Op:
    """Build a piece of the channels."""
    source = op_of(a["self"])
    start, stop = a["start"] or 0, a["end"]
    if made.shape == source.shape:
        return source
    require(a["dim"] == 1 and a["step"] == 1 and isinstance(stop, int))
    return _slice_of(made.name, map_of(source), slice(*slice(start, stop).indices(source.channels)))


def _slice_of(name: str, source: Op, index: slice) -> Op:
    shape = (index.stop - index.start, *source.grid)
    return o.Channels(name, (source,), shape, partial(_take_channels, index=index), index)


def select(made: Made, a: Arguments) -> Part:
    """Take one channel and its axis away."""
    source = map_of(a["self"])
    require(a["dim"] in (1, -3))
    part = Selected(source, made.as_op)
    part.index = a["index"] % source.channels
    return part


def unsqueeze(made: Made, a: Arguments) -> Op:
    """Give a single channel its axis back."""
    part = a["self"]
    require(isinstance(part, Selected) and a["dim"] in (1, -3))
    return _slice_of(made.name, part.op, slice(part.index, part.index + 1))
