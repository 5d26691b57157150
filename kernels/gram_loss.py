"""How far the Gram matrices of feature maps are from a target: the style loss.

    L[n] = mean over i, j of (G[n, i, j] - T[n, i, j])^2,  G = F F^T / (H W)

after Gatys, Ecker and Bethge (2016), whose constant 1 / (4 C^2) is 1 / C^2 here. The subtraction
and the squares are done where G is made, so that one (N, C, C) array is all there ever is: it keeps
the difference that the gradient needs,

    D = G - (T + T^T) / 2,  dF = 4 dL / (C^2 H W) D F

symmetric for any target, for F only sees the symmetric part of dG.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.kernels import backend, gram_triton
from fc7.kernels.gram import check, gram_reference, sum_dtype, takes_tensor_cores
from fc7.kernels.gram_torch import lower_gram, mirror_in_place, times, weighted_times
from fc7.kernels.symmetrize import symmetrize

ROWS = 64  # of a matrix that are compared at a time on a CPU


def gram_loss(features: Tensor, target_gram: Tensor) -> Tensor:
    """Return the mean squared difference of each image's Gram matrix from its target.

    Differentiable twice, in both arguments.

    Args:
        features: (N, C, H, W), any floating dtype and strides, C * H * W of 1 at least.
        target_gram: (C, C) for all images or (N, C, C), float32 or float64. It need not be
            symmetric.

    Returns:
        (N,), float64 for features of float64, else float32.

    Raises:
        ValueError: a shape or dtype is not as above, or the two lie on different devices.
    """
    check(features)
    n, c, _, _ = features.shape
    if c == 0:
        raise ValueError(f"expected one channel at least, got {tuple(features.shape)}")
    if target_gram.shape not in ((c, c), (n, c, c)):
        shape = tuple(target_gram.shape)
        raise ValueError(f"expected a target ({c}, {c}) or ({n}, {c}, {c}), got {shape}")
    if target_gram.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected a target of float32 or float64, got {target_gram.dtype}")
    if target_gram.device != features.device:
        raise ValueError(f"features on {features.device}, but target on {target_gram.device}")
    losses: Tensor = _gram_loss(features, target_gram.expand(n, c, c))[0]
    return losses


@torch.library.custom_op("fc7::gram_loss", mutates_args=())
def _gram_loss(features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses, (N,), and D, (N, C, C)."""
    c = features.shape[1]
    features, target = features.detach(), target.detach()
    difference = _empty_difference(features)
    if not backend.uses_triton(features, target):
        return _compare_torch(features, target, difference), difference
    with torch.cuda.device_of(features):  # type: ignore[no-untyped-call]  # Triton launches there
        if takes_tensor_cores(features):
            sums = gram_triton.multiply(features, difference, target=target)
        else:
            lower_gram(features, difference)
            one_part = difference.unsqueeze(1)
            sums = gram_triton.finish(one_part, difference, pixels=1, target=target)
    return sums.sum(1) / c**2, difference


@_gram_loss.register_fake
def _(features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    losses = features.new_empty(features.shape[:1], dtype=sum_dtype(features))
    return losses, _empty_difference(features)


def _empty_difference(features: Tensor) -> Tensor:
    """Return room for D in the dtype that D F will be multiplied in; fp16 could not hold it."""
    n, c, _, _ = features.shape
    half = features.dtype == torch.float16
    return features.new_empty((n, c, c), dtype=torch.float32 if half else features.dtype)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.set_materialize_grads(False)  # zeros for D's gradient would be a second (N, C, C)


def _backward(
    ctx: Any, gradient: Tensor | None, by_difference: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """By the losses, and by D as well: it is an output too, for second derivatives."""
    features, target, difference = ctx.saved_tensors
    _, c, h, w = features.shape
    by_features, by_target = None, None
    if gradient is not None:
        if ctx.needs_input_grad[0]:
            weights = gradient * (4 / (c**2 * h * w))
            if difference.dtype == features.dtype:
                by_features = times(difference, features).mul_(weights[:, None, None, None])
            else:
                by_features = weighted_times(difference, weights / 2, features)
        if ctx.needs_input_grad[1]:
            # G - T itself, from D.
            plain = difference + (target.mT - target) / 2
            by_target = (plain * (gradient * (-2 / c**2))[:, None, None]).to(target.dtype)
    if by_difference is not None:
        wide = by_difference.to(sum_dtype(features))
        weights = wide.new_full((len(features),), 1 / (h * w))
        by_features = _add(by_features, weighted_times(wide, weights, features))
        by_target = _add(by_target, symmetrize(wide, weights * (-h * w / 2), target.dtype))
    return by_features, by_target


def _add(left: Tensor | None, right: Tensor) -> Tensor:
    return right if left is None else left + right


_gram_loss.register_autograd(_backward, setup_context=_setup_context)


def _compare_torch(features: Tensor, target: Tensor, difference: Tensor) -> Tensor:
    """Fill the difference, (N, C, C), and return the losses, (N,)."""
    n, c, _, _ = features.shape
    losses = features.new_empty(n, dtype=sum_dtype(features))
    for image in range(n):
        matrix = difference[image].to(losses.dtype)  # itself, if that is its dtype
        # Widened first, so that a CPU does not round G to bf16 before the subtraction.
        lower_gram(features[image : image + 1].to(matrix.dtype), matrix[None])
        mirror_in_place(matrix[None])
        total = losses.new_zeros(())
        for top in range(0, c, ROWS):
            rows = slice(top, top + ROWS)
            goal = target[image, rows]
            total += (matrix[rows] - goal).square_().sum()
            matrix[rows] -= (goal + target[image, :, rows].mT) / 2
        losses[image] = total / c**2
        difference[image] = matrix
    return losses


def gram_loss_reference(
    features: NDArray[np.float64], target_gram: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The definition: (N, C, H, W), (C, C) or (N, C, C) -> (N,)."""
    difference: NDArray[np.float64] = gram_reference(features) - target_gram
    return np.asarray(np.mean(difference**2, axis=(1, 2)))
