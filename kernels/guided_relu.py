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
gradient that arrives in another order is brought to that order first. `guided_relu_` writes over x,
as `torch.relu_` does, so that nothing of the activation is held twice.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.guided_relu_triton import backward_triton, relu_triton

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
    _check(x, rule)
    if not (torch.is_grad_enabled() and x.requires_grad):
        # Nothing goes back: no mask. `threshold` is torch's ReLU that makes +0 of -0.
        return torch.threshold(x, 0, 0)
    y: Tensor = _guided_relu(x, rule)[0]
    return y


def guided_relu_(x: Tensor, rule: Rule = "guided") -> Tensor:
    """Write max(x, 0) over x and return it; what goes back through it goes by `rule`.

    Args:
        x: any shape without repeats in memory; float16, bfloat16, float32 or float64; no leaf
            that requires a gradient.
        rule: "guided", "plain" or "deconv"; none of them can itself be differentiated here.

    Raises:
        ValueError: the rule or the dtype is none of the above.
        RuntimeError: x cannot be written to, as torch says.
    """
    _check(x, rule)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return torch.threshold_(x, 0, 0)
    if _in_order_of(torch.empty_like(x, device="meta"), x) is not x:
        # It has gaps: what lies in them is not ours to write to.
        return x.copy_(guided_relu(x, rule))
    y: Tensor = _InPlace.apply(x, rule)
    return y


class _InPlace(torch.autograd.Function):
    """The same passes, whose source is their target."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Rule) -> Tensor:
        mask = x.new_empty(_mask_bytes(x, rule), dtype=torch.uint8)
        _pass_on(x, x, mask, rule)
        ctx.rule, ctx.strides = rule, x.stride()
        ctx.save_for_backward(*([] if rule == "deconv" else [mask]))
        ctx.mark_dirty(x)
        ctx.set_materialize_grads(False)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, None]:
        return _apply_rule(ctx, g, None)


def _check(x: Tensor, rule: Rule) -> None:
    if rule not in get_args(Rule):
        raise ValueError(f"expected rule 'guided', 'plain' or 'deconv', got {rule!r}")
    if x.dtype not in _INTEGERS:
        raise ValueError(f"expected float16, bfloat16, float32 or float64, got {x.dtype}")


@torch.library.custom_op("fc7::guided_relu", mutates_args=())
def _guided_relu(x: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    """Return y and the mask of x > 0, flat, in the order of y in memory; empty for deconv."""
    y = torch.empty_like(x)
    mask = x.new_empty(_mask_bytes(x, rule), dtype=torch.uint8)
    _pass_on(_in_order_of(y, x), y, mask, rule)
    return y, mask


def _pass_on(x: Tensor, y: Tensor, mask: Tensor, rule: str) -> None:
    """Write y and the mask; x has the order of y in memory, and may be y."""
    if not x.numel():
        return
    source, target = _flat(x), _flat(y)
    if rule == "deconv":
        torch.threshold(source, 0, 0, out=target)
    elif backend.uses_triton(x):
        relu_triton(source, target, mask)
    else:
        _relu_torch(source, target, mask)


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
            backward_triton(source, mask, target, rule == "guided")
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
