# ruff: noqa: N803 (Triton's constants are in capitals)
"""Max-pooling of values that differ in windows: by how much each position changes the maxima.

    y[n, p, c, v, u] = max over taps of (b + d) - max over taps of b
                     = max over taps of ((b - max over taps of b) + d)

for the pixels (v, u) of position p's window on the target map, with the undisturbed map b and the
difference d, which is zero outside p's window on the source map. Outside the map there is nothing.
The second form is computed: where the largest value stays the largest its difference comes out as
it is, and a small one keeps all its digits.
"""

from math import gcd

import torch
from torch import Tensor
from torch.nn import functional

from fc7.kernels import backend
from fc7.kernels.backend import tl, triton
from fc7.kernels.pixel_lists import PixelList, Slides
from fc7.kernels.window_conv import check_entries, check_positions, parts, read_pixels
from fc7.kernels.window_conv_triton import window_of

_TILE = 1024  # numbers of a program: two or four loads of 16 bytes a thread; untuned on a GPU
_WARPS = 4


@torch.no_grad()
def window_max_pool(
    differences: Tensor, base: Tensor, source: PixelList, target: PixelList, slides: Slides
) -> Tensor:
    """Return by how much differences change the maxima, where the target list asks for it.

    No gradient is recorded. 16-bit numbers are compared in float32 on a GPU.

    Args:
        differences: (N, M, C), any floating dtype.
        base: (N, H, W, C), the undisturbed map, of the source's size and of the same dtype.
        source: the list of the differences, M entries.
        target: the list of the result, M' entries of the same positions.
        slides: how the kernel slides from the source's map to the target's; some of every window
            must lie on the map.

    Returns:
        (N, M', C), contiguous, in the dtype of the differences.

    Raises:
        ValueError: a shape, dtype or device does not fit the others.
    """
    check_entries("differences", differences, source)
    check_positions(source, target)
    n, _, c = differences.shape
    if base.shape != (n, *source.size, c) or base.dtype != differences.dtype:
        raise ValueError(
            f"expected a base ({n}, {source.size[0]}, {source.size[1]}, {c}) of "
            f"{differences.dtype}, got {tuple(base.shape)} of {base.dtype}"
        )
    wide = base.dtype == torch.float64
    if backend.uses_triton(differences, base, source.boxes, target.boxes) and not wide:
        return _window_max_pool_triton(differences, base, source, target, slides)
    return _window_max_pool_torch(differences, base, source, target, slides)


def _window_max_pool_torch(
    differences: Tensor, base: Tensor, source: PixelList, target: PixelList, slides: Slides
) -> Tensor:
    n, _, c = differences.shape
    height, width = source.size
    out = differences.new_empty((n, len(target), c))
    if out.numel() == 0:
        return out
    changes = functional.pad(differences, (0, 0, 0, 1))  # the zero outside the windows
    values = functional.pad(base.flatten(1, 2), (0, 0, 0, 1), value=-torch.inf)
    for part, places in parts(source, target, slides, 2 * n * c):
        rows, columns = read_pixels(target, part, slides)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        on_map = torch.where(inside, rows.long() * width + columns, height * width)
        shape = (n, *places.shape, c)
        read = values.index_select(1, on_map.flatten()).view(shape)
        read -= read.amax(2, keepdim=True)
        read += changes.index_select(1, places.flatten()).view(shape)
        torch.amax(read, 2, out=out[:, part])
    return out


def _window_max_pool_triton(
    differences: Tensor, base: Tensor, source: PixelList, target: PixelList, slides: Slides
) -> Tensor:
    n, entries_in, c = differences.shape
    entries = len(target)
    # The interpreter would cut off a bf16's digits where a GPU rounds.
    dtype = torch.float32 if backend.INTERPRETED else differences.dtype
    out = differences.new_empty((n, entries, c), dtype=dtype)
    if out.numel() == 0:
        return out.to(differences.dtype)
    block_c = min(64, triton.next_power_of_2(c))
    block_m = _TILE // block_c
    tiles = triton.cdiv(entries, block_m) * triton.cdiv(c, block_c)
    # Triton launches on the current device.
    with torch.cuda.device_of(differences):  # type: ignore[no-untyped-call]
        _window_max_pool_kernel[(n * tiles,)](
            *(differences.contiguous(), base.contiguous(), out),
            *(source.boxes, source.starts, target.owners, target.pixels),
            *(entries_in, entries, c, *source.size),
            **slides.constants,
            GRANULE=gcd(c, 16 // differences.itemsize),
            BLOCK_M=block_m,
            BLOCK_C=block_c,
            num_warps=_WARPS,
            maxnreg=backend.ALL_REGISTERS,
        )
    return out.to(differences.dtype)


@triton.jit
def _window_max_pool_kernel(
    differences,
    base,
    out,
    boxes,
    starts,
    owners,
    pixels,
    entries_in,
    entries,
    channels,
    height,
    width,
    KERNEL_Y: tl.constexpr,
    KERNEL_X: tl.constexpr,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    PADDING_Y: tl.constexpr,
    PADDING_X: tl.constexpr,
    DILATION_Y: tl.constexpr,
    DILATION_X: tl.constexpr,
    GRANULE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    tiles_c = tl.cdiv(channels, BLOCK_C)
    tiles_m = tl.cdiv(entries, BLOCK_M)
    c = tl.program_id(0) % tiles_c * BLOCK_C + tl.arange(0, BLOCK_C)
    m = tl.program_id(0) // tiles_c % tiles_m * BLOCK_M + tl.arange(0, BLOCK_M)
    image = (tl.program_id(0) // tiles_c // tiles_m).to(tl.int64)
    channels = channels // GRANULE * GRANULE  # says so to the compiler
    stored = (m < entries)[:, None] & (c < channels)[None, :]

    # An entry behind the last is taken for the first pixel of the first position.
    owner = tl.load(owners + m, mask=m < entries, other=0)
    pixel = tl.load(pixels + m, mask=m < entries, other=0)
    y = (pixel >> 16) * STRIDE_Y - PADDING_Y  # of the first tap, on the source's map
    x = (pixel & 0xFFFF) * STRIDE_X - PADDING_X
    top, left, across, down, start = window_of(boxes, starts, owner)
    differences += image * entries_in * channels
    base += image * height * width * channels

    most = tl.full((BLOCK_M, BLOCK_C), float("-inf"), tl.float32)
    for tap in range(KERNEL_Y * KERNEL_X):
        at_y, at_x = y + tap // KERNEL_X * DILATION_Y, x + tap % KERNEL_X * DILATION_X
        value = _value(base, at_y, at_x, height, width, c, channels, stored)
        most = tl.maximum(most, value, propagate_nan=tl.PropagateNan.ALL)
    most = tl.where(stored, most, 0.0)  # where nothing was loaded, no infinity less another

    best = tl.full((BLOCK_M, BLOCK_C), float("-inf"), tl.float32)
    for tap in range(KERNEL_Y * KERNEL_X):
        at_y, at_x = y + tap // KERNEL_X * DILATION_Y, x + tap % KERNEL_X * DILATION_X
        value = _value(base, at_y, at_x, height, width, c, channels, stored)
        row, column = at_y - top, at_x - left
        inside = (row >= 0) & (row < down) & (column >= 0) & (column < across)
        place = (start + row * across + column).to(tl.int64)
        change = tl.load(
            differences + (place[:, None] * channels + c[None, :]),
            mask=stored & inside[:, None],
            other=0.0,
        )
        value = value - most + change.to(tl.float32)
        best = tl.maximum(best, value, propagate_nan=tl.PropagateNan.ALL)
    places = (image * entries + m)[:, None] * channels + c[None, :]
    tl.store(out + places, best.to(out.dtype.element_ty), mask=stored)


@triton.jit
def _value(base, row, column, height, width, c, channels, stored):
    """Load the undisturbed values at pixels; minus infinity outside the map."""
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = (row.to(tl.int64) * width + column) * channels
    value = tl.load(
        base + (place[:, None] + c[None, :]),
        mask=stored & inside[:, None],
        other=float("-inf"),
    )
    return value.to(tl.float32)


def window_max_pool_reference(
    differences: Tensor, base: Tensor, source: PixelList, target: PixelList, slides: Slides
) -> Tensor:
    """The definition, on whole maps, in the dtype that it is given; float64 is the reference."""
    n, height, width, _ = base.shape
    changed = source.spread(differences) + base[:, None]
    maxima = []
    for maps in (changed.flatten(0, 1), base):
        # Enough rows and columns of nothing for an output that begins on the map and ends beyond.
        more = [
            max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - side - padding)
            for out, stride, kernel, dilation, side, padding in zip(
                target.size,
                slides.stride,
                slides.kernel,
                slides.dilation,
                (height, width),
                slides.padding,
                strict=True,
            )
        ]
        (top, left), (below, right) = slides.padding, more
        padded = functional.pad(
            maps.permute(0, 3, 1, 2), (left, right, top, below), value=-torch.inf
        )
        found = functional.max_pool2d(padded, slides.kernel, slides.stride, 0, slides.dilation)
        maxima.append(found[:, :, : target.size[0], : target.size[1]].permute(0, 2, 3, 1))
    disturbed = maxima[0].reshape(n, source.positions, *maxima[1].shape[1:])
    return target.gather(disturbed - maxima[1][:, None])
