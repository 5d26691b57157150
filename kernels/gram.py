"""Gram matrices of feature maps: which channels are strong together, wherever in the image.

    G[n, i, j] = sum over pixels p of F[n, i, p] F[n, j, p] / (H W)

This is what carries the style of an image (Gatys, Ecker and Bethge 2016, "Image style transfer
using convolutional neural networks"), here divided by the number of pixels, so that images of
different sizes compare. Only half of the products is computed, and G equals its transpose bit for
bit.

The gradient is dF = (dG + dG^T) F / (H W).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.kernels import backend, gram_triton
from fc7.kernels.gram_torch import lower_gram, weighted_times, whole_gram


def gram(features: Tensor, center: bool = False) -> Tensor:
    """Return the Gram matrix of each image's features, differentiable twice.

    Features are read where they lie, NCHW and channels_last without a copy. On a GPU, 16-bit
    features and, where `torch.backends.cuda.matmul.fp32_precision` is "tf32", float32 ones are
    multiplied on tensor cores and added up in float32; other float32 and float64 by cuBLAS. A CPU
    that multiplies bf16 rounds its sums to bf16, as torch.bmm does.

    Args:
        features: (N, C, H, W), any floating dtype and strides, H * W of 1 at least.
        center: subtract each channel's mean over its image first; then G is the covariance. The
            features are centred before they are multiplied, so that nothing cancels where the mean
            is far larger than the spread.

    Returns:
        (N, C, C), float64 for features of float64, else float32.

    Raises:
        ValueError: the shape is not (N, C, H, W), a map is empty, or the dtype is not floating.
    """
    check(features)
    result: Tensor = _gram(features, center)
    return result


def check(features: Tensor) -> None:
    """Raise ValueError where features are not maps of floating numbers, (N, C, H, W)."""
    if features.ndim != 4 or features.shape[2] * features.shape[3] == 0:
        raise ValueError(f"expected (N, C, H, W) with H, W >= 1, got {tuple(features.shape)}")
    if features.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(f"expected features of a floating dtype, got {features.dtype}")


def sum_dtype(features: Tensor) -> torch.dtype:
    """Return what products of the features are added up in."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def takes_tensor_cores(features: Tensor) -> bool:
    """Say whether Triton multiplies the features; if not, cuBLAS does."""
    if features.dtype == torch.float32:
        tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
        return tf32 or backend.INTERPRETED
    return features.dtype != torch.float64


@torch.library.custom_op("fc7::gram", mutates_args=())
def _gram(features: Tensor, center: bool) -> Tensor:
    n, c, _, _ = features.shape
    features = features.detach()
    out = torch.empty((n, c, c), dtype=sum_dtype(features), device=features.device)
    with torch.cuda.device_of(features):  # type: ignore[no-untyped-call]  # Triton launches there
        if not backend.uses_triton(features):
            whole_gram(features, out, center)
        elif takes_tensor_cores(features):
            gram_triton.multiply(features, out, center)
        else:
            lower_gram(features, out, center)
            gram_triton.finish(out.unsqueeze(1), out, pixels=1)
    return out


@_gram.register_fake
def _(features: Tensor, center: bool) -> Tensor:
    n, c, _, _ = features.shape
    return features.new_empty((n, c, c), dtype=sum_dtype(features))


def _setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:
    features, ctx.center = inputs
    ctx.save_for_backward(features)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    (features,) = ctx.saved_tensors
    n, _, h, w = features.shape
    weights = gradient.new_full((n,), 1 / (h * w))
    if not ctx.center:
        return weighted_times(gradient, weights, features), None
    # G = (F P)(F P)^T with the projection P that subtracts the mean, so dF = S F P. P once more
    # takes out what the mean's rounding left in F P.
    return _centered(weighted_times(gradient, weights, _centered(features))), None


_gram.register_autograd(_backward, setup_context=_setup_context)


def _centered(features: Tensor) -> Tensor:
    mean = features.mean((2, 3), keepdim=True, dtype=sum_dtype(features))
    return (features - mean).to(features.dtype)


def gram_reference(features: NDArray[np.float64], center: bool = False) -> NDArray[np.float64]:
    """The definition, a channel with all at a time: (N, C, H, W) -> (N, C, C)."""
    n, c, _, _ = features.shape
    out = np.empty((n, c, c))
    for image in range(n):
        maps = features[image]
        if center:
            maps = maps - maps.mean((1, 2), keepdims=True)
        for channel in range(c):
            out[image, channel] = np.mean(maps[channel] * maps, axis=(1, 2))
    return out
