# ruff: noqa: N803 (Triton's constants are in capitals)
"""The passes of `guided_relu` on a GPU: flat runs, and a mask of one bit an element.

A program takes rows of 8 elements: a row is a byte of the mask. Only the last program can overrun.
The others take a branch without masks, so that loads and stores are 128 bits wide whatever the size
is.
"""

import torch
from torch import Tensor

from fc7.kernels.backend import IN_INTERPRETER, tl, triton

# On a GPU, the bytes of x that a program of 128 threads takes: four 128-bit loads a thread.
# Chosen for bytes in flight; untuned on a GPU.
_BYTES_A_PROGRAM = 8192


def relu_triton(x: Tensor, y: Tensor, mask: Tensor) -> None:
    """Write y and a mask of one bit an element, the first in the lowest bit; all flat."""
    rows = _BYTES_A_PROGRAM // (8 * x.itemsize)
    grid = (triton.cdiv(len(x), 8 * rows),)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches on the current
        _relu_kernel[grid](x, y, mask, len(x), ROWS=rows, num_warps=4)


def backward_triton(g: Tensor, mask: Tensor, gx: Tensor, guided: bool) -> None:
    """Write gx; all flat."""
    rows = _BYTES_A_PROGRAM // (8 * g.itemsize)
    grid = (triton.cdiv(len(g), 8 * rows),)
    with torch.cuda.device_of(g):  # type: ignore[no-untyped-call]
        _backward_kernel[grid](g, mask, gx, len(g), GUIDED=guided, ROWS=rows, num_warps=4)


@triton.jit
def _relu_kernel(x, y, mask, size, ROWS: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * ROWS  # in 64 bits: past 2^31 elements
    x, y, mask = x + first * 8, y + first * 8, mask + first
    left = size - first * 8
    if left >= ROWS * 8:
        _relu_rows(x, y, mask, left, ROWS, WHOLE=True)
    else:
        _relu_rows(x, y, mask, left, ROWS, WHOLE=False)


@triton.jit
def _relu_rows(x, y, mask, left, ROWS: tl.constexpr, WHOLE: tl.constexpr):
    row, bit = tl.arange(0, ROWS), tl.arange(0, 8)[None, :]
    at = row[:, None] * 8 + bit
    values = _load(x, at, left, WHOLE)
    kept = (values <= 0) == 0  # a NaN is not <= 0
    _store(y, at, tl.where(kept, values, 0.0), left, WHOLE)
    # The bits are disjoint: their sum packs them.
    packed = tl.sum(kept.to(tl.int32) << bit, 1).to(tl.uint8)
    _store(mask, row, packed, tl.cdiv(left, 8), WHOLE)


@triton.jit
def _backward_kernel(g, mask, gx, size, GUIDED: tl.constexpr, ROWS: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * ROWS
    g, gx, mask = g + first * 8, gx + first * 8, mask + first
    left = size - first * 8
    if left >= ROWS * 8:
        _backward_rows(g, mask, gx, left, GUIDED, ROWS, WHOLE=True)
    else:
        _backward_rows(g, mask, gx, left, GUIDED, ROWS, WHOLE=False)


@triton.jit
def _backward_rows(
    g, mask, gx, left, GUIDED: tl.constexpr, ROWS: tl.constexpr, WHOLE: tl.constexpr
):
    row, bit = tl.arange(0, ROWS), tl.arange(0, 8)[None, :]
    at = row[:, None] * 8 + bit
    values = _load(g, at, left, WHOLE)
    # As a vector: loaded as a column, Triton 3.9 sends bf16 gradients through shared memory too.
    packed = _load(mask, row, tl.cdiv(left, 8), WHOLE).to(tl.int32)
    kept = ((packed[:, None] >> bit) & 1) != 0
    if GUIDED:
        kept = kept & ((values <= 0) == 0)
    _store(gx, at, tl.where(kept, values, 0.0), left, WHOLE)


@triton.jit
def _load(start, at, left, WHOLE: tl.constexpr):
    values = tl.load(start + at) if WHOLE else tl.load(start + at, mask=at < left, other=0)
    return values.to(tl.float32) if IN_INTERPRETER and values.dtype == tl.bfloat16 else values


@triton.jit
def _store(start, at, values, left, WHOLE: tl.constexpr):
    if WHOLE:
        tl.store(start + at, values)
    else:
        tl.store(start + at, values, mask=at < left)
