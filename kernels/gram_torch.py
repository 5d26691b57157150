"""A Gram matrix's products, and its gradient's, by torch: cuBLAS on a GPU, else MKL or oneDNN.

On a CPU the lower triangle is made block by block: the rows from `top` to `bottom` meet only the
channels up to `bottom`, which is little more than half of the products.

Who multiplies depends on the processor. MKL takes either layout as it lies, and is the faster one
up to AVX2; beyond, it leaves the wider registers of other makers' processors idle, and oneDNN does
not. What neither can take as it lies (crops, fp16; for oneDNN channels_last too) or what must
change first (centring) goes through a buffer of one strip of rows of the image, small enough to
stay in the cache.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from fc7.kernels.linear import linear
from fc7.kernels.symmetrize import symmetrize

BLOCK = 128  # channels that MKL takes at least: fewer cost as much as the products they save
STRIP = 2**19  # numbers; 2 MiB in float32
MIRROR = 32  # channels; a block's lines stay in the first cache while it is transposed
PADDING = 16  # numbers; lines that lie a power of two apart share few places of the cache


def whole_gram(features: Tensor, out: Tensor, center: bool = False) -> None:
    """Fill `out` with F F^T / (H W), equal to its transpose bit for bit.

    Args:
        features: (N, C, H, W).
        out: (N, C, C), float64 for features of float64, else float32.
        center: subtract each channel's mean first.
    """
    _, c, h, w = features.shape
    if features.device.type != "cpu":
        lower_gram(features, out, center)
        mirror_in_place(out)
        return
    flat = _for_mkl(features, out, center)
    if flat is not None and c <= BLOCK:
        # Less than one block: let MKL share the images out among its threads.
        mirror(torch.baddbmm(out, flat, flat.mT, beta=0, alpha=1 / (h * w)), out)
        return
    lower = out.new_empty(1, c, c + PADDING)[:, :, :c]
    for image, matrix in zip(features, out, strict=True):
        lower_gram(image[None], lower, center)
        mirror(lower, matrix[None])


def lower_gram(features: Tensor, out: Tensor, center: bool = False) -> None:
    """Do as `whole_gram`, but what is above the diagonal does not count."""
    n, c, h, w = features.shape
    if features.device.type == "cpu":
        flat = _for_mkl(features, out, center)
        for image in range(n):
            if flat is not None:
                _lower_gram_by_mkl(flat[image], out[image])
            else:
                _lower_gram_by_onednn(features[image], out[image].zero_(), center)
        return
    flat = features.reshape(n, c, h * w).to(out.dtype)
    if center:
        flat = flat - flat.mean(2, keepdim=True)
    torch.baddbmm(out, flat, flat.mT, beta=0, alpha=1 / (h * w), out=out)


def mirror(lower: Tensor, out: Tensor) -> None:
    """Fill matrices, (N, C, C), from the lower triangles of others that lie elsewhere."""
    c = lower.shape[-1]
    above = torch.ones(c, c, dtype=torch.bool, device=lower.device).triu_(1)
    torch.where(above, lower.mT, lower, out=out)


def mirror_in_place(matrices: Tensor) -> None:
    """Copy the lower triangle of each matrix, (N, C, C), onto its upper one; slow on a CPU."""
    for top in range(0, matrices.shape[1], MIRROR):
        rows = slice(top, top + MIRROR)
        matrices[:, :top, rows] = matrices[:, rows, :top].mT
        corner = matrices[:, rows, rows]
        mirror(corner.clone(), corner)


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


def _for_mkl(features: Tensor, out: Tensor, center: bool) -> Tensor | None:
    """View features as (N, C, P), where MKL is to multiply them as they lie; else None."""
    one_axis = features.is_contiguous() or features.is_contiguous(memory_format=torch.channels_last)
    if not _mkl_leads() or not one_axis or center or features.dtype != out.dtype:
        return None
    return features.flatten(2)


@cache
def _mkl_leads() -> bool:
    available = bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]
    return available and torch.backends.cpu.get_cpu_capability() != "AVX512"


def _lower_gram_by_mkl(image: Tensor, matrix: Tensor) -> None:
    """Fill the lower blocks of a matrix, (C, C), with F F^T / P, for an image, (C, P)."""
    c, pixels = image.shape
    block = max(BLOCK, c // 4)
    for top in range(0, c, block):
        bottom = min(top + block, c)
        part = matrix[top:bottom, :bottom]
        part.addmm_(image[top:bottom], image[:bottom].T, beta=0, alpha=1 / pixels)


def _lower_gram_by_onednn(image: Tensor, matrix: Tensor, center: bool) -> None:
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
