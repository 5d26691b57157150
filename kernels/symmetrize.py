# ruff: noqa: N803 (Triton's constants are in capitals)
"""Matrices plus their transposes, scaled: S_n = scales_n (A_n + A_n^T).

It is the gradient's way through a Gram matrix. One pass reads each pair of mirrored tiles, writes
both along memory, and casts to what the product after it takes; torch would take three passes, one
of them across memory.
"""

from typing import Any

import torch
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.backend import tl, triton

TILE = 32


def symmetrize(matrices: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Return scales_n (A_n + A_n^T), differentiable in the matrices.

    Args:
        matrices: (N, C, C), any floating dtype and strides.
        scales: (N,), on the same device; float64 where the matrices are, else float32.
        dtype: of the result.

    Returns:
        (N, C, C), equal to its transpose bit for bit.
    """
    result: Tensor = _symmetrize(matrices, scales, dtype)
    return result


@torch.library.custom_op("fc7::symmetrize", mutates_args=())
def _symmetrize(matrices: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    if backend.uses_triton(matrices, scales):
        with torch.cuda.device_of(matrices):  # type: ignore[no-untyped-call]  # Triton launches there
            return _symmetrize_triton(matrices, scales, dtype)
    wide = matrices.to(scales.dtype)
    return (wide + wide.mT).mul_(scales[:, None, None]).to(dtype).contiguous()


@_symmetrize.register_fake
def _(matrices: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return matrices.new_empty(matrices.shape, dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, torch.dtype], output: Tensor) -> None:
    matrices, scales, _ = inputs
    ctx.save_for_backward(scales)
    ctx.dtype = matrices.dtype


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return symmetrize(gradient, ctx.saved_tensors[0], ctx.dtype), None, None


_symmetrize.register_autograd(_backward, setup_context=_setup_context)


def _symmetrize_triton(matrices: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    n, c, _ = matrices.shape
    out = torch.empty((n, c, c), dtype=dtype, device=matrices.device)
    tiles = -(-c // TILE)
    pairs = tiles * (tiles + 1) // 2
    if out.numel():
        _symmetrize_kernel[(n * pairs,)](
            matrices, matrices.stride(), scales, out, c, pairs, TILE, maxnreg=backend.ALL_REGISTERS
        )
    return out


@triton.jit
def _symmetrize_kernel(matrices, strides, scales, out, channels, pairs, TILE: tl.constexpr):
    image = (tl.program_id(0) // pairs).to(tl.int64)
    i, j = tiles_of_pair(tl.program_id(0) % pairs)
    rows = i * TILE + tl.arange(0, TILE)
    columns = j * TILE + tl.arange(0, TILE)
    inside = (rows < channels)[:, None] & (columns < channels)[None, :]
    inside_mirror = (columns < channels)[:, None] & (rows < channels)[None, :]
    rows, columns = rows.to(tl.int64), columns.to(tl.int64)
    matrices += image * strides[0]
    out += image * channels * channels
    here = matrices + rows[:, None] * strides[1] + columns[None, :] * strides[2]
    there = matrices + columns[:, None] * strides[1] + rows[None, :] * strides[2]
    scale = tl.load(scales + image)
    # Widened to the scale's dtype first: what is added in 16 bits could overflow.
    tile = tl.load(here, mask=inside, other=0.0).to(scale.dtype)
    mirror = tl.load(there, mask=inside_mirror, other=0.0).to(scale.dtype)
    total = ((tile + tl.trans(mirror)) * scale).to(out.dtype.element_ty)
    tl.store(out + rows[:, None] * channels + columns[None, :], total, mask=inside)
    if i != j:
        mirror_out = out + columns[:, None] * channels + rows[None, :]
        tl.store(mirror_out, tl.trans(total), mask=inside_mirror)


@triton.jit
def tiles_of_pair(pair):
    """Tile (i, j) of a lower triangle, by rows: pair = i (i + 1) / 2 + j, with j <= i."""
    i = ((tl.sqrt(8.0 * pair + 1.0) - 1.0) * 0.5).to(tl.int32)
    # The root is rounded: step on or back where it fell on the wrong side of a whole number.
    i += ((i + 1) * (i + 2) // 2 <= pair).to(tl.int32)
    i -= (i * (i + 1) // 2 > pair).to(tl.int32)
    return i, pair - i * (i + 1) // 2
