# ruff: noqa: N803 (Triton's constants are in capitals)
"""The convolution of windows on a GPU: one matrix product whose rows are found by lookup.

A program makes a tile of the result: some entries of the target list by some channels. It walks
over taps and input channels as over one long row of the weight. At each step an entry looks up
where the pixel under the tap lies in its position's window on the source map, and reads zeros
where that is outside. No patches are written to memory, and positions need no common window size.

Where input channels are few, as in the first layer, the steps run over taps and channels as one
axis (FLAT), so that a step is full: each few numbers of it are looked up by themselves. Odd numbers
of channels are filled up with zeros, in a copy, to what is read 8 or 16 bytes at a time: addresses
of single numbers would not fit the registers.

Places in a list are 32 bits wide, addresses 64.
"""

from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fc7.kernels import backend
from fc7.kernels.backend import IN_INTERPRETER, tl, triton
from fc7.kernels.gram_triton import narrow
from fc7.kernels.pixel_lists import Bounds, PixelList, Residual, Slides

_BYTES_PER_STEP = 128  # of each entry: a line of the cache
_FLAT = 8  # channels at most: a step of one tap would be half empty, or more


class Plan(NamedTuple):
    """How a launch is cut up.

    Attributes:
        block_m: entries of a tile.
        block_n: channels of a tile.
        block_k: numbers of each that are multiplied at a time.
        warps: of a program.
        stages: steps in flight.
        filled: input channels, filled up.
        flat: taps and channels are one axis.
        precision: of the products of float32.
    """

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    filled: int
    flat: bool
    precision: str


def plan(
    rows: int, channels_in: int, channels_out: int, dtype: torch.dtype, multiprocessors: int
) -> Plan:
    """Choose the tiles for so many entries of all images; by counting, untuned on a GPU."""
    flat = channels_in <= _FLAT
    filled = _filled(channels_in, 16 // dtype.itemsize if channels_in > 4 else 4)
    cudnn: Any = torch.backends.cudnn  # torch's types do not know `conv`
    tf32 = cudnn.conv.fp32_precision == "tf32"
    ieee = dtype == torch.float32 and not tf32
    block_n = 64 if flat or ieee or channels_out <= 64 else 128
    # What is not written a few numbers at a time needs a register pair for every address.
    alone = gcd(channels_out, 4) < 4
    if alone or channels_out <= 32:
        block_n = 32
    if ieee:  # without tensor cores a thread multiplies what it holds in registers: a small tile
        return Plan(64, block_n, 16, 4, 2, filled, flat, "ieee")
    programs = triton.cdiv(rows, 128) * triton.cdiv(channels_out, block_n)
    block_m = 128 if programs >= multiprocessors and not alone else 64
    warps = 8 if block_m * block_n == 128 * 128 else 4
    block_k = 32 if flat else _BYTES_PER_STEP // dtype.itemsize
    while not flat and block_k > 16 and _filled(channels_in, block_k) > 1.1 * channels_in:
        block_k //= 2
    return Plan(block_m, block_n, block_k, warps, 3, filled, flat, "tf32")


def _filled(number: int, block: int) -> int:
    return -(-number // block) * block


def window_conv_triton(
    differences: Tensor,
    weight: Tensor,
    source: PixelList,
    target: PixelList,
    slides: Slides,
    residual: Residual | None = None,
    bounds: Bounds | None = None,
) -> Tensor:
    """Return as `window_conv` does, for one group and at most 32 bits an element."""
    n, entries_in, channels_in = differences.shape
    entries, channels = len(target), len(weight)
    # The interpreter would cut off a bf16's digits where a GPU rounds.
    dtype = torch.float32 if backend.INTERPRETED else differences.dtype
    out = differences.new_empty((n, entries, channels), dtype=dtype)
    if out.numel() == 0:
        return out.to(differences.dtype)
    cut = plan(
        n * entries,
        channels_in,
        channels,
        differences.dtype,
        backend.multiprocessors(differences.device),
    )
    wide = 16 // differences.itemsize  # numbers that are loaded and stored at once
    if cut.filled > channels_in:
        more = (0, cut.filled - channels_in)
        differences = functional.pad(differences, more)
        weight = functional.pad(weight.permute(0, 2, 3, 1), more).permute(0, 3, 1, 2)
    low, high = (bound.contiguous() for bound in bounds) if bounds else (None, None)
    tiles = triton.cdiv(entries, cut.block_m) * triton.cdiv(channels, cut.block_n)
    # Triton launches on the current device.
    with torch.cuda.device_of(differences):  # type: ignore[no-untyped-call]
        _window_conv_kernel[(n * tiles,)](
            *(differences.contiguous(), weight.permute(0, 2, 3, 1).contiguous(), out),
            *(source.boxes, source.starts, target.owners, target.pixels),
            *(residual.differences.contiguous() if residual else None,),
            *(residual.pixels.boxes, residual.pixels.starts) if residual else (None, None),
            *(low, high),
            *(entries_in, len(residual.pixels) if residual else 0, entries),
            *(cut.filled, channels, *target.size),
            **slides.constants,
            FLAT=cut.filled if cut.flat else 0,
            WIDE=wide,
            GRANULE=gcd(channels, wide),
            BLOCK_M=cut.block_m,
            BLOCK_N=cut.block_n,
            BLOCK_K=cut.block_k,
            PRECISION=cut.precision,
            num_warps=cut.warps,
            num_stages=cut.stages,
            maxnreg=backend.ALL_REGISTERS,
        )
    return out.to(differences.dtype)


@triton.jit
def _window_conv_kernel(
    differences,
    weight,
    out,
    boxes,
    starts,
    owners,
    pixels,
    residual,
    residual_boxes,
    residual_starts,
    low,
    high,
    entries_in,
    residual_entries,
    entries,
    channels_in,
    channels_out,
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
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    GRANULE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    # The tiles of the same entries run side by side: they read the same rows, from the cache.
    channels = channels_out // GRANULE * GRANULE  # says so to the compiler
    tiles_n = tl.cdiv(channels_out, BLOCK_N)
    tiles_m = tl.cdiv(entries, BLOCK_M)
    n = tl.program_id(0) % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(0) // tiles_n % tiles_m * BLOCK_M + tl.arange(0, BLOCK_M)
    image = (tl.program_id(0) // tiles_n // tiles_m).to(tl.int64)

    # An entry behind the last is taken for the first pixel of the first position.
    owner = tl.load(owners + m, mask=m < entries, other=0)
    pixel = tl.load(pixels + m, mask=m < entries, other=0)
    row, column = pixel >> 16, pixel & 0xFFFF
    y, x, across, down, start = window_of(boxes, starts, owner)
    y = row * STRIDE_Y - PADDING_Y - y  # where the first tap lies in the source's window
    x = column * STRIDE_X - PADDING_X - x
    first = start + y * across + x

    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if FLAT:
        differences += image * entries_in * FLAT
        length: tl.constexpr = KERNEL_Y * KERNEL_X * FLAT
        for step in range(0, tl.cdiv(length, BLOCK_K)):
            k = step * BLOCK_K + tl.arange(0, BLOCK_K)
            tap_y, tap_x = k // FLAT // KERNEL_X * DILATION_Y, k // FLAT % KERNEL_X * DILATION_X
            at_y, at_x = y[:, None] + tap_y[None, :], x[:, None] + tap_x[None, :]
            inside = (at_y >= 0) & (at_y < down[:, None]) & (at_x >= 0) & (at_x < across[:, None])
            place = first[:, None] + tap_y[None, :] * across[:, None] + tap_x[None, :]
            left = tl.load(
                differences + (place.to(tl.int64) * FLAT + (k % FLAT)[None, :]),
                mask=inside & (k < length)[None, :],
                other=0.0,
            )
            places = n.to(tl.int64)[:, None] * length + k[None, :]
            inside = (n < channels)[:, None] & (k < length)[None, :]
            right = tl.load(weight + places, mask=inside, other=0.0)
            total = _times(left, right, total, PRECISION)
    else:
        channels_in = channels_in // WIDE * WIDE
        differences += image * entries_in * channels_in
        chunks = tl.cdiv(channels_in, BLOCK_K)
        rows = n.to(tl.int64) * (KERNEL_Y * KERNEL_X) * channels_in
        for step in range(0, KERNEL_Y * KERNEL_X * chunks):
            tap = step // chunks
            c = step % chunks * BLOCK_K + tl.arange(0, BLOCK_K)
            tap_y, tap_x = tap // KERNEL_X * DILATION_Y, tap % KERNEL_X * DILATION_X
            inside = (y + tap_y >= 0) & (y + tap_y < down) & (x + tap_x >= 0) & (x + tap_x < across)
            place = (first + tap_y * across + tap_x).to(tl.int64) * channels_in
            left = tl.load(
                differences + (place[:, None] + c[None, :]),
                mask=inside[:, None] & (c < channels_in)[None, :],
                other=0.0,
            )
            places = rows[:, None] + tap * channels_in + c[None, :]
            inside = (n < channels)[:, None] & (c < channels_in)[None, :]
            right = tl.load(weight + places, mask=inside, other=0.0)
            total = _times(left, right, total, PRECISION)

    place = (image * height + row) * width + column
    if residual is not None:
        top, left_side, across, down, start = window_of(residual_boxes, residual_starts, owner)
        y, x = row - top, column - left_side
        found = (y >= 0) & (y < down) & (x >= 0) & (x < across)
        residual_place = image * residual_entries + start + y * across + x
    pieces = narrow(total)
    for piece in tl.static_range(len(pieces)):
        value = pieces[piece]
        columns = tl.program_id(0) % tiles_n * BLOCK_N + piece * value.shape[1]
        columns += tl.arange(0, value.shape[1])
        stored = (m < entries)[:, None] & (columns < channels)[None, :]
        if residual is not None:
            places = residual_place[:, None] * channels + columns[None, :]
            added = tl.load(residual + places, mask=stored & found[:, None], other=0.0)
            value += added.to(tl.float32)
        if low is not None:
            places = place[:, None] * channels + columns[None, :]
            value += tl.load(low + places, mask=stored, other=0.0).to(tl.float32)
            bound = tl.load(high + places, mask=stored, other=0.0).to(tl.float32)
            value = tl.maximum(value, bound, propagate_nan=tl.PropagateNan.ALL)
        places = (image * entries + m)[:, None] * channels + columns[None, :]
        tl.store(out + places, value.to(out.dtype.element_ty), mask=stored)


@triton.jit
def window_of(boxes, starts, owner):
    """Return top, left, width, height and the first entry of positions' windows."""
    boxes += owner * 4
    top, left = tl.load(boxes), tl.load(boxes + 1)
    bottom, right = tl.load(boxes + 2), tl.load(boxes + 3)
    return top, left, right - left, bottom - top, tl.load(starts + owner).to(tl.int32)


@triton.jit
def _times(left, right, total, PRECISION: tl.constexpr):
    """Add the product of (M, K) and the transpose of (N, K)."""
    if IN_INTERPRETER:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, tl.trans(right), total, input_precision=PRECISION)
