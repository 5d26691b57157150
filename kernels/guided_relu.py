# ruff: noqa: N803 (Triton's constants are in capitals)
"""A ReLU whose backward pass follows one of three rules.

    y  = x where x > 0, else 0
    gx = g where x > 0 and g > 0, else 0     guided: Springenberg et al. 2015, arXiv:1412.6806
    gx = g where x > 0,           else 0     plain: the derivative
    gx = g where           g > 0, else 0     deconv: Zeiler and Fergus 2014, arXiv:1311.2901

Precisely, what is blocked is `<= 0`, as torch's own ReLU does it: so a NaN passes, and every zero
that is put in place of something is +0, also for -0. The guided and the deconv rule are no
derivatives of anything: they tell which inputs spoke for an output.

The pass is bound by memory, and torch keeps a whole activation for it. Here x is not kept, but one
mask: one bit an element on a GPU, one byte on a CPU, and nothing for deconv. The mask lies in the
order in which x lies in memory, so that every tensor is read and written as one flat run; a
gradient that arrives in another order is brought to that order first.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.backend import IN_INTERPRETER, tl, triton

Rule = Literal["guided", "plain", "deconv"]

# The integers as wide as each dtype that is served: bits are moved as integers on a CPU.
_INTEGERS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}

# On a CPU, how many elements for each of torch's threads all passes go through before the next ones
# follow: as many as a cache holds; with fewer, the threads would mostly wait for each other.
_ELEMENTS_A_THREAD = 1 << 18

# On a GPU, the bytes of x that a program of 128 threads takes: four 128-bit loads a thread.
# Chosen for bytes in flight; untuned on a GPU.
_BYTES_A_PROGRAM = 8192


def guided_relu(x: Tensor, rule: Rule = "guided") -> Tensor:
    """Return max(x, 0); what goes back through it goes by `rule`.

    For plain, the backward pass can itself be differentiated. For guided and deconv it cannot: it
    is no derivative, and asking for a derivative of it raises.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.
        rule: "guided", "plain" or "deconv".

    Returns:
        The shape and dtype of `x`, also under autocast; its strides too, if `x` has no gaps and no
        overlaps in memory (contiguous, channels_last, permuted), else strides without gaps in the
        same order. The gradient of `x` has these strides as well.

    Raises:
        ValueError: the rule or the dtype is none of the above.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"expected rule 'guided', 'plain' or 'deconv', got {rule!r}")
    if x.dtype not in _INTEGERS:
        raise ValueError(f"expected float16, bfloat16, float32 or float64, got {x.dtype}")
    if not (torch.is_grad_enabled() and x.requires_grad):
        # Nothing goes back: no mask. `threshold` is torch's ReLU that makes +0 of -0.
        return torch.threshold(x, 0, 0)
    y: Tensor = _guided_relu(x, rule)[0]
    return y


@torch.library.custom_op("fc7::guided_relu", mutates_args=())
def _guided_relu(x: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    """Return y and the mask of x > 0, flat, in the order of y in memory; empty for deconv."""
    y = torch.empty_like(x)
    mask = x.new_empty(_mask_bytes(x, rule), dtype=torch.uint8)
    if x.numel():
        source, target = _flat(_in_order_of(y, x)), _flat(y)
        if rule == "deconv":
            torch.threshold(source, 0, 0, out=target)
        elif backend.uses_triton(x):
            _relu_triton(source, target, mask)
        else:
            _relu_torch(source, target, mask)
    return y, mask


@_guided_relu.register_fake
def _(x: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(_mask_bytes(x, rule), dtype=torch.uint8)


def _keep_mask(ctx: Any, inputs: tuple[Tensor, str], output: tuple[Tensor, Tensor]) -> None:
    y, mask = output
    ctx.rule, ctx.strides = inputs[1], y.stride()
    ctx.save_for_backward(*([] if ctx.rule == "deconv" else [mask]))
    ctx.mark_non_differentiable(mask)
    ctx.set_materialize_grads(False)


def _apply_rule(ctx: Any, g: Tensor | None, _: None) -> tuple[Tensor | None, None]:
    if g is None:
        return None, None
    (mask,) = ctx.saved_tensors or (None,)
    return _guided_relu_backward(g, mask, ctx.strides, ctx.rule), None


_guided_relu.register_autograd(_apply_rule, setup_context=_keep_mask)


@torch.library.custom_op("fc7::guided_relu_backward", mutates_args=())
def _guided_relu_backward(
    g: Tensor, mask: Tensor | None, strides: Sequence[int], rule: str
) -> Tensor:
    """Return gx with the given strides, which are those in whose order the mask lies."""
    gx = g.new_empty_strided(g.shape, strides)
    if g.numel():
        source, target = _flat(_in_order_of(gx, g)), _flat(gx)
        if mask is None:
            torch.threshold(source, 0, 0, out=target)
        elif backend.uses_triton(g):
            _backward_triton(source, mask, target, rule == "guided")
        else:
            _backward_torch(source, mask, target, rule == "guided")
    return gx


@_guided_relu_backward.register_fake
def _(g: Tensor, mask: Tensor | None, strides: Sequence[int], rule: str) -> Tensor:
    return g.new_empty_strided(g.shape, strides)


def _keep_mask_again(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, mask, ctx.strides, ctx.rule = inputs
    ctx.save_for_backward(*([] if mask is None else [mask]))


def _apply_plain_again(ctx: Any, gg: Tensor) -> tuple[Tensor, None, None, None]:
    if ctx.rule != "plain":
        raise NotImplementedError(
            f"guided_relu's rule {ctx.rule!r} is no derivative and has none; 'plain' has"
        )
    # gx is linear in g, and the map is its own transpose.
    return _guided_relu_backward(gg, *ctx.saved_tensors, ctx.strides, "plain"), None, None, None


_guided_relu_backward.register_autograd(_apply_plain_again, setup_context=_keep_mask_again)


def _mask_bytes(x: Tensor, rule: str) -> int:
    if rule == "deconv":
        return 0
    return (x.numel() + 7) // 8 if backend.uses_triton(x) else x.numel()


def _in_order_of(target: Tensor, tensor: Tensor) -> Tensor:
    """Return what `tensor` holds in the memory order of `target`, whose memory it may use."""
    strides = zip(target.shape, target.stride(), tensor.stride(), strict=True)
    same = all(ours == theirs for size, ours, theirs in strides if size > 1)
    return tensor if same else target.copy_(tensor)


def _flat(tensor: Tensor) -> Tensor:
    """Return (numel,), in memory order, of a tensor without gaps and overlaps."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _relu_torch(x: Tensor, y: Tensor, mask: Tensor) -> None:
    """Write y and a mask of one byte an element, 0 or 1; all flat."""
    bits = y.view(_INTEGERS[y.dtype])
    for x_, y_, bits_, kept_ in _chunks(x, y, bits, mask.view(torch.bool)):
        torch.threshold(x_, 0, 0, out=y_)
        kept_.copy_(bits_)  # +0 is all zeros in bits, and nothing that passed is


def _backward_torch(g: Tensor, mask: Tensor, gx: Tensor, guided: bool) -> None:
    """Write gx; all flat.

    `torch.where` and `masked_fill` branch at every element, which no predictor can foresee: they
    take ten times as long as all these passes over a chunk in the cache. The product is one of
    integers, for a blocked infinity times 0.0 would be NaN.
    """
    scratch = g.new_empty(0, dtype=_INTEGERS[g.dtype])
    for g_, mask_, gx_ in _chunks(g.view(scratch.dtype), mask, gx):
        if len(scratch) != len(g_):  # the first chunk, or a shorter last one
            scratch = torch.empty_like(g_)
        scratch.copy_(mask_)
        if guided:
            torch.mul(g_, scratch, out=scratch)
            torch.threshold(scratch.view(gx.dtype), 0, 0, out=gx_)
        else:
            torch.mul(g_, scratch, out=gx_.view(g_.dtype))


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same part of each flat tensor, part by part."""
    size = _ELEMENTS_A_THREAD * torch.get_num_threads()
    if len(tensors[0]) <= size or tensors[0].device.type != "cpu":
        yield tensors
    else:
        yield from zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)


def _relu_triton(x: Tensor, y: Tensor, mask: Tensor) -> None:
    """Write y and a mask of one bit an element, the first in the lowest bit; all flat."""
    rows = _BYTES_A_PROGRAM // (8 * x.itemsize)
    grid = (triton.cdiv(len(x), 8 * rows),)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches on the current
        _relu_kernel[grid](x, y, mask, len(x), ROWS=rows, num_warps=4)


def _backward_triton(g: Tensor, mask: Tensor, gx: Tensor, guided: bool) -> None:
    """Write gx; all flat."""
    rows = _BYTES_A_PROGRAM // (8 * g.itemsize)
    grid = (triton.cdiv(len(g), 8 * rows),)
    with torch.cuda.device_of(g):  # type: ignore[no-untyped-call]
        _backward_kernel[grid](g, mask, gx, len(g), GUIDED=guided, ROWS=rows, num_warps=4)


# A program takes ROWS rows of 8 elements: a row is a byte of the mask. Only the last program can
# overrun. The others take a branch without masks, so that loads and stores are 128 bits wide
# whatever the size is.


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


def guided_relu_reference(
    x: NDArray[np.float64], g: NDArray[np.float64], rule: Rule = "guided"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The definition, one element at a time: y and gx, in the shape of `x` and `g`."""
    y, gx = np.zeros(x.shape), np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        active, supported = not x[at] <= 0, not g[at] <= 0
        if active:
            y[at] = x[at]
        if {"guided": active and supported, "plain": active, "deconv": supported}[rule]:
            gx[at] = g[at]
    return y, gx
