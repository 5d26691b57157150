"""Max pooling that keeps 4 bytes an output for the backward pass: where the winner is.

    y[n, c, i, j] = max over (a, b) of x[n, c, i s - p + a d, j s - p + b d]

    gx: each output's gradient goes to its winner, the first of equals in reading order

as torch has it. torch keeps 8 bytes an output, and the whole input, though its backward pass asks
the input for nothing but its shape: behind a ReLU, whose output nothing else keeps, that is 24
bytes an output where windows are 2 by 2. The winner's place in its window would fit one byte, but
finding it and reading it back takes longer than the pooling itself, and 4 bytes a third of it; on
VGG16 neither shows in the peak, which the activations of the first layers make.
"""

from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fc7.kernels.pairs import Pair, pair


def max_pool(
    x: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the largest value in each window, (N, C, OH, OW) or (C, OH, OW).

    Its backward pass cannot itself be differentiated.

    Args:
        x: (N, C, H, W) or (C, H, W), floating.
        kernel_size: height and width of a window: one number, or two.
        stride: from one window to the next; a window's size if None.
        padding: on each side, at most half a window; it never wins.
        dilation: from one place of a window to the next.
        ceil_mode: whether the last windows may lie partly beyond the padding.

    Raises:
        RuntimeError: the sizes make no sense, as torch says.
    """
    window = (pair(kernel_size), pair(kernel_size if stride is None or stride == [] else stride))
    if not (torch.is_grad_enabled() and x.requires_grad):
        return functional.max_pool2d(x, *window, pair(padding), pair(dilation), ceil_mode)
    y: Tensor = _MaxPool.apply(x, (*window, pair(padding), pair(dilation), ceil_mode))
    return y


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, options: tuple[Any, ...]) -> Tensor:
        y: Tensor
        y, winners = torch.ops.aten.max_pool2d_with_indices.default(x, *options)
        ctx.options, ctx.shape = options, x.shape
        ctx.channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(winners.int())
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, None]:
        if g is None:
            return None, None
        (winners,) = ctx.saved_tensors
        form = torch.channels_last if ctx.channels_last else torch.contiguous_format
        # Stands for the input: its memory is never touched.
        like = torch.empty(ctx.shape, dtype=g.dtype, device=g.device, memory_format=form)
        gx: Tensor = torch.ops.aten.max_pool2d_with_indices_backward.default(
            g, like, *ctx.options, winners.long()
        )
        return gx, None


def max_pool_reference(
    x: NDArray[np.float64],
    g: NDArray[np.float64],
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The definition, one window at a time: y and gx of x (N, C, H, W), g in the shape of y."""
    y, gx = np.zeros(g.shape), np.zeros(x.shape)
    for n, c, i, j in np.ndindex(g.shape):
        best: tuple[int, int] | None = None
        for a, b in product(range(kernel_size[0]), range(kernel_size[1])):
            row = i * stride[0] - padding[0] + a * dilation[0]
            column = j * stride[1] - padding[1] + b * dilation[1]
            inside = 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
            if inside and (best is None or x[n, c, row, column] > x[n, c, *best]):
                best = row, column
        assert best is not None
        y[n, c, i, j] = x[n, c, *best]
        gx[n, c, *best] += g[n, c, i, j]
    return y, gx
