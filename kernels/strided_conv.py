"""A convolution of an image whose backward pass, to the pixels, is a dense convolution.

    y[n, o, i, j]  = b[o] + sum over c, k, l of w[o, c, k, l] x[n, c, i s + k - p, j s + l - p]
    gx[n, c, u, v] = sum over o, k, l of w[o, c, k, l] g[n, o, i, j]

with i s + k = u + p and j s + l = v + p. With u + p = s q + r, only k = r + s m reach a pixel, from
i = q - m. So the s * s pixels of a block (q, q') are s * s * C channels of one convolution of g,
with stride 1 and kernels of ceil(K / s), which `pixel_shuffle` then puts in their places (Shi et
al., "Is the deconvolution layer the same as a convolutional layer?", 2016, arXiv:1609.07009). The
sums are the same, and so are their products, but for zeros where s does not divide K.

oneDNN computes C = 3 channels at a fraction of its speed: AlexNet's first layer takes 2.5 times as
long in its backward pass as this does, ResNet's twice as long. Where stride or kernel are such that
too many products with zeros would be made, and on a GPU, it is `frozen_conv`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fc7.kernels.frozen_conv import frozen_conv
from fc7.kernels.pairs import pair

_FEW_CHANNELS = 4
_CHANNELS_AT_ONCE = 16  # what oneDNN computes together, by itself or by our zeros
_MOST_PRODUCTS = 2.0  # for one that is no product with zero


def strided_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Return `torch.nn.functional.conv2d` of the same arguments.

    Its backward pass is the one above where x has at most 4 channels and is the only one that
    takes a gradient, in float32 on a CPU, without dilation and groups, with one stride above 1;
    otherwise it is that of `frozen_conv`. In the former an infinite gradient makes NaN of up to
    stride - 1 pixels more than its kernel covers.
    """
    if _serves(x, weight, bias, stride, padding, dilation, groups):
        assert not isinstance(padding, str)
        y: Tensor = _StridedConv.apply(x, weight, bias, pair(stride)[0], pair(padding))
        return y
    return frozen_conv(x, weight, bias, stride, padding, dilation, groups)


def _serves(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> bool:
    tensors = [x, weight] if bias is None else [x, weight, bias]
    if not (torch.is_grad_enabled() and x.requires_grad) or x.ndim != 4 or weight.ndim != 4:
        return False
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors):
        return False
    if any(t.requires_grad for t in tensors[1:]) or isinstance(padding, str) or groups != 1:
        return False
    (down, across), channels = pair(stride), x.shape[1]
    if down != across or down == 1 or channels > _FEW_CHANNELS or pair(dilation) != [1, 1]:
        return False
    outputs = channels * down * down
    products = -(-outputs // _CHANNELS_AT_ONCE) * _CHANNELS_AT_ONCE / outputs
    for kernel in weight.shape[2:]:
        products *= -(-kernel // down) * down / kernel
    return bool(products <= _MOST_PRODUCTS) and not torch.is_autocast_enabled("cpu")


class _StridedConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: list[int],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding = x.shape[2:], stride, padding
        ctx.set_materialize_grads(False)
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, None, None, None, None]:
        if g is None:
            return None, None, None, None, None
        (weight,) = ctx.saved_tensors
        blocks = functional.conv2d(g, *_dense(weight, ctx.stride))
        channels = weight.shape[1] * ctx.stride**2
        shuffled = functional.pixel_shuffle(blocks[:, :channels], ctx.stride)
        (top, left), (height, width) = ctx.padding, ctx.size
        # Pixels behind the last window get no gradient.
        below = max(0, top + height - shuffled.shape[2])
        right = max(0, left + width - shuffled.shape[3])
        whole = functional.pad(shuffled, (0, right, 0, below)) if below or right else shuffled
        return whole[:, :, top : top + height, left : left + width], None, None, None, None


def _dense(weight: Tensor, stride: int) -> tuple[Tensor, None, int, list[int]]:
    """Return weight, bias, stride and padding of the convolution of g; channels filled up."""
    outputs, channels, *kernel = weight.shape
    down, across = (-(-side // stride) for side in kernel)
    filled = functional.pad(weight, (0, across * stride - kernel[1], 0, down * stride - kernel[0]))
    parts = filled.reshape(outputs, channels, down, stride, across, stride).flip(2, 4)
    dense = parts.permute(1, 3, 5, 0, 2, 4).reshape(-1, outputs, down, across)
    more = -len(dense) % _CHANNELS_AT_ONCE
    dense = functional.pad(dense, (0, 0, 0, 0, 0, 0, 0, more))
    return dense.contiguous(memory_format=torch.channels_last), None, 1, [down - 1, across - 1]


def strided_conv_reference(
    x: NDArray[np.float64],
    weight: NDArray[np.float64],
    g: NDArray[np.float64],
    stride: int,
    padding: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The definition without bias, one product at a time: y and gx, of g in the shape of y."""
    y, gx = np.zeros(g.shape), np.zeros(x.shape)
    for n, o, i, j in np.ndindex(g.shape):
        for c, k, m in np.ndindex(weight.shape[1:]):
            row, column = i * stride + k - padding[0], j * stride + m - padding[1]
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                y[n, o, i, j] += weight[o, c, k, m] * x[n, c, row, column]
                gx[n, c, row, column] += weight[o, c, k, m] * g[n, o, i, j]
    return y, gx
