"""Other ways through the same network: pooling by the mean, and images without a border.

    Averaging    y[i] = mean over a of x[i s - p + a], without the places that are padding
    Wrapped      y[i] = f over a of x[(i s - p + a) mod H],  i < H / s,  f a sum or a pooling
    Mirrored     as it is, but beyond the border is not 0 but what is before it, x[-1 - i] = x[i]

Gatys, Ecker and Bethge (2015) found that textures look better by average pooling, section 2. On a
torus no pixel is at the border, so that what is synthesised there tiles; a mirror hides the border
of a patch that does not tile. All are modes, which see every call however the network spells it,
and weights stay what they are:

    Perceptual(network, weights, way=WrappedAveraging)
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fc7.engine.errors import QuestionError
from fc7.engine.models.rectified import Rectified
from fc7.kernels.pairs import pair

_aten = torch.ops.aten
_CONVOLUTIONS = (F.conv2d, _aten.conv2d, _aten.conv2d.default)
_MAX_POOLS = (F.max_pool2d, torch.max_pool2d, _aten.max_pool2d, _aten.max_pool2d.default)
_MEANS = (F.avg_pool2d, _aten.avg_pool2d, _aten.avg_pool2d.default)


class Averaging(Rectified):
    """While active, in this thread, every max pooling returns the mean of its window.

    Raises:
        QuestionError: of a pooling with dilation, which has no such mean in torch.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call a mean where `func` is a maximum."""
        kwargs = kwargs or {}
        if func not in _MAX_POOLS:
            return super().__torch_function__(func, types, args, kwargs)
        x, window, stride, padding, dilation, ceil_mode = _max_pool(*args, **kwargs)
        if dilation != [1, 1]:
            raise QuestionError("a max pooling with dilation has no mean; ask for pooling by max")
        given = (x, window, stride, padding, ceil_mode, False)
        return super().__torch_function__(F.avg_pool2d, types, given)


class Wrapped(Rectified):
    """While active, in this thread, convolutions and poolings see images (N, C, H, W) as tori.

    Strides that divide the sides make every output a torus too, of H / s by W / s. A padding of its
    own, by whatever mode, moves where windows begin and adds nothing.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call `func` without padding, of an image that goes on around it."""
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            func, args, kwargs = F.conv2d, _around_conv(*args, **kwargs), {}
        elif func in _MAX_POOLS:
            x, window, stride, padding, dilation, _ = _max_pool(*args, **kwargs)
            x = _around(x, window, stride, padding, dilation)
            func, args, kwargs = F.max_pool2d, (x, window, stride, 0, dilation), {}
        elif func in _MEANS:
            func, args, kwargs = F.avg_pool2d, _around_mean(*args, **kwargs), {}
        elif func is F.pad:
            return _moved(func, *args, **kwargs)
        return super().__torch_function__(func, types, args, kwargs)


class Mirrored(Rectified):
    """While active, in this thread, what convolutions pad images with is the images' mirror."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call `func` without padding, of an image that goes on in its mirror."""
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            func, args, kwargs = F.conv2d, _mirrored_conv(*args, **kwargs), {}
        return super().__torch_function__(func, types, args, kwargs)


class WrappedAveraging(Wrapped, Averaging):
    """Both: means of windows on a torus."""


class MirroredAveraging(Mirrored, Averaging):
    """Both: means, and mirrors at the border."""


def _max_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, list[int], list[int], list[int], list[int], bool]:
    window = pair(kernel_size)
    step = pair(kernel_size if stride is None or stride == [] else stride)
    return x, window, step, pair(padding), pair(dilation), ceil_mode


def _around_conv(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    x, weight, bias, step, before, _, apart, groups = _conv(*args, **kwargs)
    x = _around(x, list(weight.shape[2:]), step, before, apart)
    return x, weight, bias, step, 0, apart, groups


def _mirrored_conv(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    x, weight, bias, step, before, after, apart, groups = _conv(*args, **kwargs)
    for axis in range(2):
        side = x.shape[axis - 2]
        places = torch.arange(-before[axis], side + after[axis], device=x.device) % (2 * side)
        if len(places) > side:
            x = x.index_select(axis - 2, torch.minimum(places, 2 * side - 1 - places))
    return x, weight, bias, step, 0, apart, groups


def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    """Return a convolution's arguments, with the padding before and after each axis in numbers."""
    apart = pair(dilation)
    if padding == "same":
        whole = [gap * (side - 1) for gap, side in zip(apart, weight.shape[2:], strict=True)]
        before = [pixels // 2 for pixels in whole]
        after = [pixels - first for pixels, first in zip(whole, before, strict=True)]
    else:
        before = after = [0, 0] if padding == "valid" else pair(padding)
    return input, weight, bias, pair(stride), before, after, apart, groups


def _around_mean(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> tuple[Any, ...]:
    x, window, step, before, apart, _ = _max_pool(input, kernel_size, stride, padding)
    x = _around(x, window, step, before, apart)
    return x, window, step, 0, False, True, divisor_override


def _around(
    x: Tensor, window: list[int], stride: list[int], before: list[int], dilation: list[int]
) -> Tensor:
    """Return x with what its windows reach across the border, on both sides."""
    for axis in range(2):
        reach = dilation[axis] * (window[axis] - 1) + 1
        # So many that the last window begins one stride before the first one comes again.
        x = _extended(x, axis - 2, before[axis], reach - stride[axis] - before[axis])
    return x


def _extended(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Return x along an axis from -before to its side + after, around the torus."""
    side = x.shape[axis]
    if before == after == 0:
        return x
    if min(before, after) < 0 or max(before, after) > side:
        places = torch.arange(-before, side + after, device=x.device) % side
        return x.index_select(axis, places)
    parts = [x.narrow(axis, side - before, before), x, x.narrow(axis, 0, after)]
    return torch.cat([part for part in parts if part.shape[axis]], axis)


def _moved(
    pad: Callable[..., Tensor],
    input: Tensor,
    pad_widths: Any = None,
    mode: str = "constant",
    value: float | None = None,
    **named: Any,
) -> Tensor:
    """Return an image moved down and to the right by a padding's top and left."""
    widths = list(named.get("pad", pad_widths))
    if input.ndim != 4 or len(widths) > 4:  # of channels, or no image
        return pad(input, widths, mode, value)
    left, top = widths[0], widths[2] if len(widths) == 4 else 0
    return input.roll((top, left), (-2, -1))
