"""Builders of the layers that hold weights or slide over the image."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.building import (
    Arguments,
    Made,
    common,
    map_of,
    op_of,
    pair,
    require,
)
from fc7.engine.attribution.tracing.ops import Op, Slide


def _slides(kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> tuple[Slide, Slide]:
    kernel, padding, dilation = pair(kernel), pair(padding), pair(dilation)
    stride = pair(stride) if stride != [] else kernel
    down, across = (
        Slide(kernel[axis], stride[axis], padding[axis], dilation[axis]) for axis in (0, 1)
    )
    return down, across


def conv(made: Made, a: Arguments) -> Op:
    """Build a convolution."""
    source, weight, padding = map_of(a["input"]), a["weight"], a["padding"]
    require(isinstance(weight, Tensor) and not a.get("transposed", False))
    kernel = weight.shape[2:]
    if isinstance(padding, str):
        reach = [d * (k - 1) for k, d in zip(kernel, pair(a["dilation"]), strict=True)]
        require(padding == "valid" or all(each % 2 == 0 for each in reach))
        padding = 0 if padding == "valid" else [each // 2 for each in reach]
    slides = _slides(list(kernel), a["stride"], padding, a["dilation"])
    require(source.channels == weight.shape[1] * a["groups"])
    weight = weight.detach().contiguous(memory_format=torch.channels_last)
    return o.Conv(*common(made), slides, weight, a["groups"])


def batch_norm(made: Made, a: Arguments) -> Any:
    """Build a normalisation by fixed statistics."""
    source = op_of(a["input"])
    require(not a.get("training", False))
    mean, variance = a["running_mean"], a["running_var"]
    require(isinstance(mean, Tensor) and isinstance(variance, Tensor))
    scale = torch.rsqrt(variance.double() + a["eps"])
    if a["weight"] is not None:
        scale = scale * a["weight"].double()
    if made.shape is not None:
        return o.Scale(*common(made), scale.to(variance.dtype))
    # The functional form returns statistics too.
    full, inputs = made.full()
    first = o.Scale(
        made.name, inputs, source.shape, lambda *v: full(*v)[0], scale.to(variance.dtype)
    )
    return (first, None, None)


def max_pool(made: Made, a: Arguments) -> Any:
    """Build max-pooling."""
    source = map_of(a["self"])
    slides = _slides(a["kernel_size"], a["stride"], a["padding"], a["dilation"])
    if made.shape is not None:
        return o.MaxPool(*common(made), slides)
    require(not made.reads(1))
    full, inputs = made.full()
    pooled = full(torch.zeros(1, *source.shape))[0]
    return (o.MaxPool(made.name, inputs, pooled.shape[1:], lambda *v: full(*v)[0], slides), None)


def avg_pool(made: Made, a: Arguments) -> Op:
    """Build average pooling."""
    source = map_of(a["self"])
    name, inputs, shape, full = common(made)
    slides = _slides(a["kernel_size"], a["stride"], a["padding"])
    return o.AvgPool(name, inputs, shape, full, slides, _divisor(full, source, slides))


def _divisor(full: Callable[..., Tensor], source: Op, slides: tuple[Slide, Slide]) -> Tensor:
    """Return what each place's sum is divided by, (H', W'): of ones, the sum over the mean."""
    ones = torch.ones(1, 1, *source.grid, dtype=torch.float64)
    (kernel, stride, padding) = zip(*(slide[:3] for slide in slides), strict=True)
    mean = full(ones)[0, 0]
    # On the right and below, ceil_mode looks further than the padding.
    more = [
        max(0, (out - 1) * slide.stride + slide.kernel - side - 2 * slide.padding)
        for out, side, slide in zip(mean.shape, source.grid, slides, strict=True)
    ]
    (top, left), (below, right) = padding, more
    padded = functional.pad(ones, (left, left + right, top, top + below))
    count = functional.avg_pool2d(padded, kernel, stride, divisor_override=1)[0, 0]
    return count[: mean.shape[0], : mean.shape[1]] / mean


def adaptive_avg_pool(made: Made, a: Arguments) -> Op:
    """Build adaptive average pooling, as the plainest operation that does it."""
    source, size = map_of(a["self"]), pair(a["output_size"])
    name, inputs, shape, full = common(made)
    if size == source.grid:
        return source
    if size == (1, 1):
        return o.Mean(name, inputs, shape, full)
    if all(side % out == 0 for side, out in zip(source.grid, size, strict=True)):
        kernel = [side // out for side, out in zip(source.grid, size, strict=True)]
        divisor = torch.full(size, float(kernel[0] * kernel[1]), dtype=torch.float64)
        return o.AvgPool(name, inputs, shape, full, _slides(kernel, kernel, 0), divisor)
    return o.AdaptiveAvgPool(name, inputs, shape, full)


def mean(made: Made, a: Arguments) -> Op:
    """Build an average over the image."""
    source = map_of(a["self"])
    require(a.get("dim") is not None and a["dtype"] is None)
    require({dim % 4 for dim in a["dim"]} == {2, 3} and made.shape is not None)
    require(made.shape in ((source.channels,), (source.channels, 1, 1)))
    return o.Mean(*common(made))


def pad(made: Made, a: Arguments) -> Op:
    """Build lines of a constant around the image."""
    source = map_of(a["self"])
    require(a.get("mode", "constant") == "constant" and len(a["pad"]) in (2, 4))
    left, right, top, bottom = [*a["pad"], 0, 0][:4]
    require(min(left, right, top, bottom) >= 0)
    name, inputs, shape, full = common(made)
    require(shape[0] == source.channels)
    return o.Pad(name, inputs, shape, full, top, left)


def linear(made: Made, a: Arguments) -> Op:
    """Build a linear layer, over a map where the vector is a flattened one."""
    source, weight = op_of(a["input"]), a["weight"]
    require(isinstance(weight, Tensor) and len(source.shape) == 1)
    name, inputs, shape, full = common(made)
    if isinstance(source, o.Flatten):
        flattened, (before,) = source.full, source.inputs
        c, h, w = before.shape
        spread = weight.detach().view(-1, c, h, w)
        return o.Linear(name, (before,), shape, lambda x: full(flattened(x)), spread)
    return o.Linear(name, inputs, shape, full, weight.detach()[:, :, None, None])
