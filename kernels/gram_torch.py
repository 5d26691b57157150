"""The products of a Gram matrix and of its gradient, by torch: cuBLAS on a GPU, oneDNN on a CPU.

On a CPU the lower triangle is made block by block: the rows from `top` to `bottom` meet only the
channels up to `bottom`, which is little more than half of the products. What oneDNN cannot take as
it lies (channels_last, crops, fp16) or what must change first (centring) goes through a buffer of
one strip of rows of the image, small enough to stay in the cache.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fc7.kernels.linear import linear
from fc7.kernels.symmetrize import symmetrize

STRIP = 2**19  # numbers; 2 MiB in float32
MIRROR = 32  # channels; a block's lines stay in the first cache while it is transposed


def lower_gram(features: Tensor, out: Tensor, center: bool = False) -> None:
    """Fill the lower triangle of `out`, at least, with F F^T / (H W).

    Args:
        features: (N, C, H, W).
        out: (N, C, C), float64 for features of float64, else float32.
        center: subtract each channel's mean first.
    """
    n, c, h, w = features.shape
    if features.device.type == "cpu":
        for image, matrix in zip(features, out.zero_(), strict=True):
            _lower_gram(image, matrix, center)
        return
    flat = features.reshape(n, c, h * w).to(out.dtype)
    if center:
        flat = flat - flat.mean(2, keepdim=True)
    torch.baddbmm(out, flat, flat.mT, beta=0, alpha=1 / (h * w), out=out)


def mirror(matrices: Tensor) -> None:
    """Copy the lower triangle of each matrix, (N, C, C), onto its upper one."""
    for top in range(0, matrices.shape[1], MIRROR):
        rows = slice(top, top + MIRROR)
        matrices[:, :top, rows] = matrices[:, rows, :top].mT
        corner = matrices[:, rows, rows]
        corner.copy_(corner.tril() + corner.tril(-1).mT)


def times(symmetric: Tensor, features: Tensor) -> Tensor:
    """Return S_n F_n, (N, C, H, W), in the layout of the features; differentiable.

    Args:
        symmetric: (N, C, C), equal to its transpose, in the dtype of the features.
        features: (N, C, H, W).
    """
    n, c, h, w = features.shape
    if features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous():
        rows = features.permute(0, 2, 3, 1).view(n, h * w, c)
        return _bmm(rows, symmetric).view(n, h, w, c).permute(0, 3, 1, 2)
    return _bmm(symmetric, features.reshape(n, c, h * w)).view(n, c, h, w)


def weighted_times(matrices: Tensor, weights: Tensor, features: Tensor) -> Tensor:
    """Return weights_n (A_n + A_n^T) F_n, (N, C, H, W), in the dtype and layout of the features.

    Differentiable in matrices and features.

    Args:
        matrices: (N, C, C).
        weights: (N,), float64 where the matrices are, else float32.
        features: (N, C, H, W).
    """
    if features.dtype != torch.float16 or features.numel() == 0:
        return times(symmetrize(matrices, weights, features.dtype), features)
    # fp16 has a narrow range: a gradient divided by H W sinks below it, and a large sum rises above
    # it. With entries of at most 1 / C no product exceeds the largest feature.
    largest = torch.linalg.vector_norm(matrices.detach(), torch.inf, dim=(1, 2))
    fit = 0.5 / (matrices.shape[1] * largest).clamp_min(1e-30)
    product = times(symmetrize(matrices, fit, torch.float16), features)
    return product.mul_((weights / fit)[:, None, None, None])


def _bmm(left: Tensor, right: Tensor) -> Tensor:
    if left.device.type == "cpu" and len(left):
        return torch.stack([linear(a, b.mT) for a, b in zip(left, right, strict=True)])
    return torch.bmm(left, right)


def _lower_gram(image: Tensor, matrix: Tensor, center: bool) -> None:
    """Add F F^T / (H W) to the lower blocks of a matrix, (C, C), for an image, (C, H, W)."""
    c, h, w = image.shape
    block = max(64, c // 4)
    for strip in _strips(image, matrix.dtype, center):
        for top in range(0, c, block):
            bottom = min(top + block, c)
            part = linear(strip[top:bottom], strip[:bottom])
            matrix[top:bottom, :bottom].add_(part, alpha=1 / (h * w))


def _strips(image: Tensor, dtype: torch.dtype, center: bool) -> Iterator[Tensor]:
    """Yield an image's pixels, (C, P) at a time, as the product takes them."""
    c, h, w = image.shape
    if image.is_contiguous() and not center and (image.dtype == dtype or _takes(image.dtype)):
        yield image.view(c, h * w)
        return
    mean = image.mean((1, 2), dtype=dtype)[:, None] if center else None
    height = max(1, STRIP // max(1, c * w))
    buffer = torch.empty(c * min(height, h) * w, dtype=dtype)
    for top in range(0, h, height):
        pixels = image[:, top : top + height].flatten(1)
        # Without gaps, also the last and lower one: oneDNN is a hundred times slower with them.
        strip = buffer[: pixels.numel()].view(pixels.shape).copy_(pixels)
        yield strip if mean is None else strip.sub_(mean)


def _takes(dtype: torch.dtype) -> bool:
    """Say whether this processor multiplies a 16-bit dtype faster than float32."""
    available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if dtype != torch.bfloat16 or not available:
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
