# ruff: noqa: N803 (Triton's constants are in capitals)
"""The spatial maximum on a GPU: one pass over the maps where they lie.

A thread loads 16 bytes at once, whichever of positions and channels are neighbours in memory.
Every lane keeps the best value it has seen, and the step at which it saw it. The lanes of a program
are compared once, at the end, by one 64-bit key: the value's order in the upper half, and the
position's, reversed, in the lower. Making that key takes six instructions an element and comparing
two numbers with a NaN in mind takes two, so the loop compares numbers.

Where the maps are too few to fill the GPU each is cut among programs. They leave their keys behind,
and a second kernel takes the largest: unlike an atomic maximum this needs no memory cleared
beforehand, and the same kernel can fetch the value.
"""

from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.backend import tl, triton

_TILE_BYTES = 4096  # two 16-byte loads a thread in flight; chosen by the registers, not measured
_WARPS = 4
_PROGRAMS = 8  # wanted for each multiprocessor; not measured
_STEPS = 4  # at least, in each part of a map: fewer would not pay for the comparison at its end
_PARTS = 1024  # of one map at most: the second kernel holds them at once

LARGEST = 2**31 - _TILE_BYTES  # a tile's positions beyond the end of a map stay below 2^31


def spatial_max_triton(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return values (N, C) and positions (N, C) int32; 16 or 32 bits an element, N * C > 0."""
    n, c, h, w = activations.shape
    image, channel, line, place = _strides(activations)
    plan = plan_of(activations)
    values = activations.new_empty((n, c))
    positions = values.new_empty((n, c), dtype=torch.int32)
    keys = values.new_empty(n * c if plan.parts > 1 else 0, plan.parts, dtype=torch.int64)
    _spatial_max_kernel[(n * triton.cdiv(c, plan.block_c) * plan.parts,)](
        *(activations, values, positions, keys),
        *(c, h * w, w, image, channel, line, place),
        *(plan.parts, plan.steps),
        COLUMNS=plan.columns,
        DENSE=plan.dense,
        GRANULE=plan.granule,
        BLOCK_C=plan.block_c,
        BLOCK_P=plan.block_p,
        CUT=plan.parts > 1,
        num_warps=_WARPS,
    )
    if plan.parts > 1:
        block_parts = triton.next_power_of_2(plan.parts)
        block_r = min(8, 2 * _PARTS // block_parts)
        _join_kernel[(triton.cdiv(n * c, block_r),)](
            *(activations, values, positions, keys),
            *(n * c, c, w, image, channel, line, place, plan.parts),
            BLOCK_R=block_r,
            BLOCK_PARTS=block_parts,
            num_warps=_WARPS,
        )
    return values, positions


@dataclass(frozen=True)
class Plan:
    """How a launch cuts (N, C, H, W) into tiles, parts and programs.

    Attributes:
        columns: channels are nearer neighbours in memory than positions.
        dense: positions are evenly spaced, so that an address needs no division.
        granule: all that addresses and borders are made of are multiples of so many elements,
            which may thus be loaded as one.
        block_c: channels of a tile.
        block_p: positions of a tile.
        parts: programs that share a map.
        steps: tiles that each of them sees.
    """

    columns: bool
    dense: bool
    granule: int
    block_c: int
    block_p: int
    parts: int
    steps: int


def plan_of(activations: Tensor) -> Plan:
    """Decide the launch from shape, strides, dtype, address and the GPU's size."""
    n, c, h, w = activations.shape
    image, channel, line, place = _strides(activations)
    itemsize = activations.element_size()
    columns = c > 1 and channel < place
    dense = h == 1 or line == w * place
    granule = gcd(16 // itemsize, activations.data_ptr() // itemsize, image)
    granule = granule if dense else gcd(granule, line)
    if columns:
        granule = gcd(granule, c, place)
        block_c = min(64, triton.next_power_of_2(c))
        block_p = _TILE_BYTES // itemsize // block_c
    else:
        granule = gcd(granule, channel, h * w if dense else w)
        block_p = min(_TILE_BYTES // itemsize, max(32, triton.next_power_of_2(h * w)))
        block_c = _TILE_BYTES // itemsize // block_p
    tiles = triton.cdiv(h * w, block_p)
    programs = n * triton.cdiv(c, block_c)
    wanted = triton.cdiv(_PROGRAMS * backend.multiprocessors(activations.device), programs)
    steps = triton.cdiv(tiles, max(1, min(wanted, tiles // _STEPS, _PARTS)))
    return Plan(columns, dense, granule, block_c, block_p, triton.cdiv(tiles, steps), steps)


def _strides(activations: Tensor) -> tuple[int, ...]:
    """Return the strides; positions of a map one wide lie a line apart."""
    image, channel, line, place = activations.stride()
    return image, channel, line, line if activations.shape[3] == 1 else place


@triton.jit
def _spatial_max_kernel(
    activations,
    values,
    positions,
    keys,
    channels,
    size,
    width,
    image,
    channel,
    line,
    place,
    parts,
    steps,
    COLUMNS: tl.constexpr,
    DENSE: tl.constexpr,
    GRANULE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    CUT: tl.constexpr,
):
    """Find the best of one part of the maps of BLOCK_C channels: a tile's rows are channels."""
    part = tl.program_id(0) % parts
    block = tl.program_id(0) // parts
    blocks = tl.cdiv(channels, BLOCK_C)
    n = (block // blocks).to(tl.int64)
    c = block % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    lane = tl.arange(0, BLOCK_P)
    present = c < (_multiple(channels, GRANULE) if COLUMNS else channels)
    places = _multiple(place, GRANULE) if COLUMNS else place
    of_channel = c.to(tl.int64) * (channel if COLUMNS else _multiple(channel, GRANULE))
    of_maps = activations + n * _multiple(image, GRANULE) + of_channel
    until = size if COLUMNS else _multiple(size, GRANULE)

    first = part * steps
    best = tl.full((BLOCK_C, BLOCK_P), float("-inf"), tl.float32)
    at = tl.zeros((BLOCK_C, BLOCK_P), tl.int32)  # where there is nothing but -inf: the first place
    for step in range(first, min(first + steps, tl.cdiv(size, BLOCK_P))):
        start = step * BLOCK_P
        if DENSE:
            offset = start.to(tl.int64) * places + lane.to(tl.int64) * places
        else:
            p = start + lane
            across = width if COLUMNS else _multiple(width, GRANULE)
            y, x = p // across, p % across
            offset = y.to(tl.int64) * _multiple(line, GRANULE) + x.to(tl.int64) * places
        inside = present[:, None] & (lane < until - start)[None, :]
        loaded = tl.load(of_maps[:, None] + offset[None, :], mask=inside, other=float("-inf"))
        value = loaded.to(tl.float32)
        # Larger or NaN, unless the best is NaN already: the first stays.
        better = ~(value <= best) & (best == best)
        best = tl.where(better, value, best)
        at = tl.where(better, step, at)

    key = tl.max(_key(best, at * BLOCK_P + lane[None, :]), axis=1)
    row = n * channels + c
    if CUT:
        tl.store(keys + row * parts + part, key, mask=present)
    else:
        maps = activations + n * image + c.to(tl.int64) * channel
        _store(values, positions, row, key, maps, width, line, place, present)


@triton.jit
def _join_kernel(
    activations,
    values,
    positions,
    keys,
    rows,
    channels,
    width,
    image,
    channel,
    line,
    place,
    parts,
    BLOCK_R: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """Find the best part of BLOCK_R maps."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    part = tl.arange(0, BLOCK_PARTS)
    present = row < rows
    inside = present[:, None] & (part < parts)[None, :]
    lowest = -0x8000000000000000
    key = tl.max(tl.load(keys + row[:, None] * parts + part, mask=inside, other=lowest), axis=1)
    maps = activations + row // channels * image + row % channels * channel
    _store(values, positions, row, key, maps, width, line, place, present)


@triton.jit
def _multiple(number, granule: tl.constexpr):
    """Return the number, a multiple of the granule, so that the compiler knows it is one."""
    return number // granule * granule


@triton.jit
def _key(value, position):
    """Pack both so that the larger key is the larger value, or the same at a smaller position."""
    bits = value.to(tl.int32, bitcast=True)
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # a negative float's bits ascend as it falls
    order = tl.where(value == 0, 0, order)
    order = tl.where(value != value, 0x7FFFFFFF, order)
    return (order.to(tl.int64) << 32) | (0x7FFFFFFF - position).to(tl.int64)


@triton.jit
def _store(values, positions, row, key, maps, width, line, place, present):
    """Store the position in the key, and the value that lies there, bit for bit."""
    position = 0x7FFFFFFF - (key & 0xFFFFFFFF).to(tl.int32)
    y, x = (position // width).to(tl.int64), (position % width).to(tl.int64)
    tl.store(positions + row, position, mask=present)
    value = tl.load(maps + y * line + x * place, mask=present, other=0.0)
    tl.store(values + row, value, mask=present)
