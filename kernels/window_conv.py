"""Convolution of differences in windows: each position's window from its window a layer before.

    y[n, p, o, v, u] = sum over c, i, j of w[o, c, i, j] d[n, p, c, v s - q + i t, u s - q + j t]

with stride s, padding q and dilation t, for the pixels (v, u) of position p's window on the target
map; d is zero outside p's window on the source map. A bias is in both of what is subtracted from
one another, and falls out. What often follows is done on the way to memory: a residual is added,
and where a ReLU stands behind,

    y <- max(y + low, high),  low = min(b, 0),  high = -max(b, 0)

which is max(b + y, 0) - max(b, 0) for the undisturbed map b in front of it.

This is what an occluded patch does to a layer, computed where it does anything, as Nakandala,
Nagrecha, Kumar and Papakonstantinou (2019, "Incremental and approximate inference for faster
occlusion-based deep CNN explanations") compute it, but for all positions at once and carrying
differences in place of values.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from fc7.kernels import backend
from fc7.kernels.linear import linear
from fc7.kernels.pixel_lists import Bounds, PixelList, Residual, Slides
from fc7.kernels.window_conv_triton import window_conv_triton

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Numbers gathered at a time: on a CPU so few that they are multiplied while in the cache.
_GATHERED_CPU, _GATHERED = 2**20, 2**27


@torch.no_grad()
def window_conv(
    differences: Tensor,
    weight: Tensor,
    source: PixelList,
    target: PixelList,
    slides: Slides,
    groups: int = 1,
    residual: Residual | None = None,
    bounds: Bounds | None = None,
) -> Tensor:
    """Return a convolution of differences, where the target list asks for it.

    No gradient is recorded. On a GPU, 16-bit numbers and, where torch lets convolutions
    (`torch.backends.cudnn.conv.fp32_precision`), float32 ones as tf32 are multiplied on tensor
    cores and added up in float32; other float32 are multiplied and added up as they are. Groups and
    float64 are gathered and multiplied by cuBLAS.

    Args:
        differences: (N, M, C), any floating dtype.
        weight: (C', C / groups, height, width of the kernel), the same dtype; read without a copy
            where it is channels_last.
        source: the list of the differences, M entries.
        target: the list of the result, M' entries of the same positions.
        slides: how the kernel slides from the source's map to the target's.
        groups: of channels.
        residual: what is added, of any floating dtype; its map is the target's.
        bounds: of a ReLU that follows, of any floating dtype; maps of the target's size.

    Returns:
        (N, M', C'), contiguous, in the dtype of the differences.

    Raises:
        ValueError: a shape, dtype or device does not fit the others.
    """
    _check(differences, weight, source, target, slides, groups, residual, bounds)
    tensors = [differences, weight, *(residual[:1] if residual else ()), *(bounds or ())]
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    if backend.uses_triton(*tensors, source.boxes, target.boxes) and groups == 1 and not wide:
        return window_conv_triton(differences, weight, source, target, slides, residual, bounds)
    out = _convolved(differences, weight, source, target, slides, groups)
    if residual is not None:
        padded = functional.pad(residual.differences, (0, 0, 0, 1))  # the zero outside the windows
        out = out + padded.index_select(1, residual.pixels.places_of(target))
    if bounds is not None:
        low, high = (bound.flatten(1, 2).index_select(1, target.on_map) for bound in bounds)
        out = torch.maximum(out + low, high)
    return out.to(differences.dtype)


def _check(
    differences: Tensor,
    weight: Tensor,
    source: PixelList,
    target: PixelList,
    slides: Slides,
    groups: int,
    residual: Residual | None,
    bounds: Bounds | None,
) -> None:
    check_entries("differences", differences, source)
    channels_out = len(weight)
    if tuple(weight.shape[1:]) != (differences.shape[2] // groups, *slides.kernel) or (
        differences.shape[2] % groups or channels_out % groups
    ):
        raise ValueError(
            f"expected a weight for {differences.shape[2]} channels in {groups} groups under a "
            f"kernel of {slides.kernel}, got {tuple(weight.shape)}"
        )
    if weight.dtype != differences.dtype or weight.device != differences.device:
        raise ValueError(
            f"differences are {differences.dtype} on {differences.device}, but the weight is "
            f"{weight.dtype} on {weight.device}"
        )
    check_positions(source, target)
    if residual is not None:
        check_entries("a residual", residual.differences, residual.pixels)
        check_positions(residual.pixels, target)
        if residual.differences.shape[::2] != (len(differences), channels_out):
            raise ValueError(
                f"expected a residual ({len(differences)}, M', {channels_out}), got "
                f"{tuple(residual.differences.shape)}"
            )
        if residual.pixels.size != target.size:
            raise ValueError(f"a residual on a map of {residual.pixels.size}, not {target.size}")
    for bound in bounds or ():
        if bound.shape != (len(differences), *target.size, channels_out):
            raise ValueError(
                f"expected bounds ({len(differences)}, {target.size[0]}, {target.size[1]}, "
                f"{channels_out}), got {tuple(bound.shape)}"
            )


def check_entries(what: str, differences: Tensor, pixels: PixelList) -> None:
    """Raise ValueError where differences are not one floating row of channels for each pixel."""
    if differences.ndim != 3 or differences.shape[1] != len(pixels):
        shape = tuple(differences.shape)
        raise ValueError(f"expected {what} (N, {len(pixels)}, C), got {shape}")
    if differences.dtype not in _DTYPES:
        raise ValueError(f"expected {what} of a floating dtype, got {differences.dtype}")
    if differences.device != pixels.boxes.device:
        raise ValueError(
            f"{what} on {differences.device}, but their pixels on {pixels.boxes.device}"
        )


def check_positions(source: PixelList, target: PixelList) -> None:
    """Raise ValueError where two lists are not of the same positions on one device."""
    if source.positions != target.positions or source.boxes.device != target.boxes.device:
        raise ValueError(
            f"expected lists of the same positions, got {source.positions} on "
            f"{source.boxes.device} and {target.positions} on {target.boxes.device}"
        )


def _convolved(
    differences: Tensor,
    weight: Tensor,
    source: PixelList,
    target: PixelList,
    slides: Slides,
    groups: int,
) -> Tensor:
    """Gather what each output reads, a part of the outputs at a time, and multiply."""
    n, _, c = differences.shape
    out = differences.new_empty((n, len(target), len(weight)))
    if out.numel() == 0 or c == 0:
        return out.zero_()
    # (groups, C' / groups, taps, C / groups), as the channels of a tap lie side by side.
    by_group = weight.permute(0, 2, 3, 1).reshape(groups, -1, slides.taps, c // groups)
    if source is target and slides == Slides((1, 1)) and groups == 1:
        return linear(differences, by_group.flatten(2)[0], None)
    padded = functional.pad(differences, (0, 0, 0, 1))  # the last row is the zero outside
    for part, places in parts(source, target, slides, n * c):
        read = padded.index_select(1, places.flatten())
        if groups == 1:
            out[:, part] = linear(read.view(n, -1, slides.taps * c), by_group.flatten(2)[0])
        else:
            read = read.view(n, -1, slides.taps, groups, c // groups)
            out[:, part] = torch.einsum("nmtgc,gotc->nmgo", read, by_group).flatten(2)
    return out


def parts(
    source: PixelList, target: PixelList, slides: Slides, numbers: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield parts of the target's entries, and the source's entries that each reads, (m, taps).

    Args:
        source: where from; its length stands for what lies outside a window.
        target: where to.
        slides: how.
        numbers: that one entry of the source holds, for a part not to become too large.
    """
    most = _GATHERED_CPU if target.boxes.device.type == "cpu" else _GATHERED
    step = max(1, most // max(1, slides.taps * numbers))
    for first in range(0, len(target), step):
        part = slice(first, first + step)
        rows, columns = read_pixels(target, part, slides)
        yield part, source.places(target.owners[part, None], rows, columns)


def read_pixels(target: PixelList, part: slice, slides: Slides) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the source's map that entries read, (m, taps) each; int32."""
    found = []
    for axis, at in enumerate((target.rows[part], target.columns[part])):
        tap = torch.arange(slides.taps, dtype=torch.int32, device=at.device)
        tap = tap // slides.kernel[1] if axis == 0 else tap % slides.kernel[1]
        first = at * slides.stride[axis] - slides.padding[axis]
        found.append(first[:, None] + tap * slides.dilation[axis])
    return found[0], found[1]


def window_conv_reference(
    differences: Tensor,
    weight: Tensor,
    source: PixelList,
    target: PixelList,
    slides: Slides,
    groups: int = 1,
    residual: Residual | None = None,
    bounds: Bounds | None = None,
) -> Tensor:
    """The definition, on whole maps, in the dtype that it is given; float64 is the reference."""
    maps = source.spread(differences).flatten(0, 1).permute(0, 3, 1, 2)
    y = functional.conv2d(
        maps, weight, None, slides.stride, slides.padding, slides.dilation, groups
    )
    height, width = target.size
    y = y[:, :, :height, :width].permute(0, 2, 3, 1)
    y = y.reshape(len(differences), source.positions, height, width, len(weight))
    if residual is not None:
        y = y + residual.pixels.spread(residual.differences)
    if bounds is not None:
        low, high = (bound[:, None] for bound in bounds)
        y = torch.maximum(y + low, high)
    return target.gather(y)
