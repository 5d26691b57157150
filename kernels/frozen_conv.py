"""A convolution by weights that never change: for the backward pass it keeps nothing of its input.

    y  = w * x + b
    gx = the transpose of w * applied to g, which depends on w and the shape of x alone

torch keeps x for the gradient of w, even where w needs none: of a network that is frozen, every
activation.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fc7.kernels.pairs import Pair, pair
from fc7.kernels.winograd_conv import winograd_conv, winograd_pays


def frozen_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution of `torch.nn.functional.conv2d`, whose arguments these are.

    Where weight or bias need a gradient, or x does not, it is torch's own; else its backward pass
    cannot itself be differentiated, and where `winograd_pays` says so, the sums are Winograd's.

    Args:
        x: (N, C, H, W), floating.
        weight: (D, C / groups, KH, KW).
        bias: (D,).
        stride: one number, or down and across; likewise the next two.
        padding: zeros on each side.
        dilation: from one pixel under the kernel to the next.
        groups: into how many channels are divided.

    Returns:
        (N, D, OH, OW).
    """
    trains = weight.requires_grad or (bias is not None and bias.requires_grad)
    goes_back = torch.is_grad_enabled() and x.requires_grad
    if trains or not goes_back or x.ndim != 4 or isinstance(padding, str):
        sides = padding if isinstance(padding, str) else pair(padding)
        return functional.conv2d(x, weight, bias, pair(stride), sides, pair(dilation), groups)
    sides = pair(padding)
    options: tuple[Any, ...] = (pair(stride), sides, pair(dilation), groups)
    if options[0] == options[2] == [1, 1] and groups == 1 and winograd_pays(x, weight, sides):
        return winograd_conv(x, weight, bias, sides)
    y: Tensor = _FrozenConv.apply(x, weight, bias, options)
    return y


class _FrozenConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]
    ) -> Tensor:
        ctx.options, ctx.shape = options, x.shape
        ctx.channels_last = x.is_contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(weight)
        ctx.set_materialize_grads(False)
        return functional.conv2d(x, weight, bias, *options)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        if g is None:
            return None, None, None, None
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.options
        form = torch.channels_last if ctx.channels_last else torch.contiguous_format
        # Stands for the input, of which only the gradient of the weights would read values: its
        # memory is never touched.
        like = torch.empty(ctx.shape, dtype=g.dtype, device=g.device, memory_format=form)
        gx: Tensor = torch.ops.aten.convolution_backward.default(
            g, like, weight, None, stride, padding, dilation, False, [0, 0], groups,
            [True, False, False],
        )[0]  # fmt: skip
        return gx, None, None, None
