# ruff: noqa: N803 (Triton's constants are in capitals)
"""The Gram matrix on a GPU: lower tiles only, mirrored on store, split over pixels where few.

G is symmetric, so one program makes a pair of tiles: (i, j) with i >= j from the features of its
two groups of channels, and (j, i) as its transpose. That halves the products, and makes G equal its
transpose bit for bit; a diagonal tile takes its upper half from its lower one.

Where the pairs of all images are fewer than the GPU wants, the pixels are split: every program
leaves its share of the sum in a workspace, and a second kernel adds the shares in a fixed order, so
that the result does not change from run to run. It also finishes what cuBLAS multiplied.

Features are read where they lie. A pixel's address is `pixel * stride` in both NCHW and
channels_last; in crops and the like, where rows do not follow each other, it is found from the
pixel's row and column (COLLAPSED false).
"""

import torch
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.backend import IN_INTERPRETER, tl, triton
from fc7.kernels.gram_plan import is_aligned, is_collapsed, pairs_of_tiles, plan
from fc7.kernels.symmetrize import tiles_of_pair

FINISH_TILE = 32  # small tiles, so that the last pass has many programs too


def multiply(
    features: Tensor, out: Tensor, center: bool = False, target: Tensor | None = None
) -> Tensor:
    """Fill `out` with the Gram matrices, or with what `finish` makes of them and the target.

    Args:
        features: (N, C, H, W), 16-bit, or float32 to be multiplied as tf32.
        out: (N, C, C), contiguous.
        center: subtract each channel's mean, in float32, before the product.
        target: (N, C, C), any strides and dtype, or None.

    Returns:
        (N, P), one partial sum of (G - T)^2 for each of P pairs of tiles; P is 0 without a target.
    """
    n, c, h, w = features.shape
    means = features.mean((2, 3), dtype=torch.float32) if center else None
    cut = plan(
        n,
        c,
        h * w,
        features.itemsize,
        is_aligned(features),
        backend.multiprocessors(features.device),
    )
    split = cut.splits > 1
    parts = out.new_empty((n, cut.splits, c, c), dtype=torch.float32) if split else out
    pairs = pairs_of_tiles(c, cut.tile)
    losses = out.new_empty((n, 0 if target is None or split else pairs), dtype=torch.float32)
    if out.numel():
        _product_kernel[(n * cut.splits * pairs,)](
            features,
            features.stride(),
            means,
            parts,
            *_with_strides(None if split else target),
            losses,
            c,
            h * w,
            w,
            pairs,
            cut.splits,
            cut.pixels_per_split,
            TILE=cut.tile,
            STEP=cut.step,
            ONE_TILE=pairs == 1,
            COLLAPSED=is_collapsed(features),
            SPLIT=split,
            num_warps=cut.warps,
            num_stages=cut.stages,
            maxnreg=backend.ALL_REGISTERS,
        )
    return finish(parts, out, h * w, target) if split else losses


def finish(parts: Tensor, out: Tensor, pixels: int, target: Tensor | None = None) -> Tensor:
    """Fill `out` with G = sum_s parts[:, s] / pixels, mirrored from the lower triangle.

    With a target T, fill it with the difference D = G - (T + T^T) / 2 instead. `out` may be the
    memory of `parts` where S is 1.

    Args:
        parts: (N, S, C, C), contiguous, float32 or float64; only lower tiles are read.
        out: (N, C, C), contiguous.
        pixels: H * W.
        target: (N, C, C), any strides and dtype, or None.

    Returns:
        As `multiply` does.
    """
    n, splits, c, _ = parts.shape
    pairs = pairs_of_tiles(c, FINISH_TILE)
    losses = parts.new_empty((n, 0 if target is None else pairs))
    if out.numel():
        _finish_kernel[(n * pairs,)](
            parts,
            out,
            *_with_strides(target),
            losses,
            c,
            pixels,
            splits,
            pairs,
            TILE=FINISH_TILE,
            maxnreg=backend.ALL_REGISTERS,
        )
    return losses


def _with_strides(target: Tensor | None) -> tuple[Tensor | None, tuple[int, ...]]:
    return (None, (0, 0, 0)) if target is None else (target, target.stride())


@triton.jit
def _product_kernel(
    features,
    strides,
    means,
    parts,
    target,
    target_strides,
    losses,
    channels,
    pixels,
    width,
    pairs,
    splits,
    pixels_per_split,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    ONE_TILE: tl.constexpr,
    COLLAPSED: tl.constexpr,
    SPLIT: tl.constexpr,
):
    # The pairs of one image run side by side: they read the same features, from the cache.
    pair = tl.program_id(0) % pairs
    share = tl.program_id(0) // pairs  # which matrix of `parts`
    image = (share // splits).to(tl.int64)
    start = share % splits * pixels_per_split
    stop = tl.minimum(start + pixels_per_split, pixels)
    i, j = tiles_of_pair(pair)
    rows = i * TILE + tl.arange(0, TILE)
    columns = j * TILE + tl.arange(0, TILE)
    features += image * strides[0]
    if means is not None:
        means += image * channels
    span = (start, stop, width)

    # A diagonal tile multiplies one group of channels by itself, and reads it once.
    if ONE_TILE:
        total = _product(
            features, strides, means, rows, rows, channels, span, STEP, True, COLLAPSED
        )
    else:
        if i == j:
            total = _product(
                features, strides, means, rows, rows, channels, span, STEP, True, COLLAPSED
            )
        else:
            total = _product(
                features, strides, means, rows, columns, channels, span, STEP, False, COLLAPSED
            )

    parts += share.to(tl.int64) * channels * channels
    if SPLIT:
        inside = (rows < channels)[:, None] & (columns < channels)[None, :]
        places = rows.to(tl.int64)[:, None] * channels + columns[None, :]
        tl.store(parts + places, total, mask=inside)
    else:
        if target is not None:
            target += image * target_strides[0]
            losses += image * pairs + pair
        _store(total / pixels, parts, target, target_strides, losses, i, j, channels)


@triton.jit
def _product(
    features,
    strides,
    means,
    rows,
    columns,
    channels,
    span,
    STEP: tl.constexpr,
    DIAGONAL: tl.constexpr,
    COLLAPSED: tl.constexpr,
):
    """The sum over a span of pixels of features[rows] features[columns]^T."""
    start, stop, width = span
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for first in range(start, stop, STEP):
        pixel = first + tl.arange(0, STEP)
        if COLLAPSED:
            places = pixel.to(tl.int64) * strides[3]
        else:
            places = (pixel // width).to(tl.int64) * strides[2]
            places += (pixel % width).to(tl.int64) * strides[3]
        left = _load(features, strides, means, rows, channels, places, pixel < stop)
        if DIAGONAL:
            right = left
        else:
            right = _load(features, strides, means, columns, channels, places, pixel < stop)
        total = tl.dot(left, tl.trans(right), total, input_precision="tf32")
    return total


@triton.jit
def _load(features, strides, means, group, channels, places, in_span):
    """The tile (channels of a group, pixels): zero outside, centred if there are means."""
    inside = (group < channels)[:, None] & in_span[None, :]
    rows = group.to(tl.int64) * strides[1]
    tile = tl.load(features + rows[:, None] + places[None, :], mask=inside, other=0.0)
    if IN_INTERPRETER:
        tile = tile.to(tl.float32)
    if means is not None:
        mean = tl.load(means + group, mask=group < channels, other=0.0)
        # Outside, this makes 0 - mean: it must not enter the sum.
        centered = tl.where(inside, tile.to(tl.float32) - mean[:, None], 0.0)
        tile = centered.to(tile.dtype)
    return tile


@triton.jit
def _finish_kernel(
    parts,
    out,
    target,
    target_strides,
    losses,
    channels,
    pixels,
    splits,
    pairs,
    TILE: tl.constexpr,
):
    pair = tl.program_id(0) % pairs
    image = (tl.program_id(0) // pairs).to(tl.int64)
    i, j = tiles_of_pair(pair)
    rows = i * TILE + tl.arange(0, TILE)
    columns = j * TILE + tl.arange(0, TILE)
    inside = (rows < channels)[:, None] & (columns < channels)[None, :]
    places = rows.to(tl.int64)[:, None] * channels + columns[None, :]
    total = tl.zeros((TILE, TILE), parts.dtype.element_ty)
    for split in range(0, splits):
        part = (image * splits + split) * channels * channels
        total += tl.load(parts + part + places, mask=inside, other=0.0)
    out += image * channels * channels
    if target is not None:
        target += image * target_strides[0]
        losses += image * pairs + pair
    _store(total / pixels, out, target, target_strides, losses, i, j, channels)


@triton.jit
def _store(total, out, target, target_strides, losses, i, j, channels):
    """Write tile (i, j), on or below the diagonal, and its mirror image, both along memory.

    With a target, write the difference D, and the sum of the squares of G - T over both tiles.
    """
    rows = i * total.shape[0] + tl.arange(0, total.shape[0])
    if i == j:
        # Both halves sum the same products, but tensor cores promise no order.
        columns = j * total.shape[1] + tl.arange(0, total.shape[1])
        total = tl.where(rows[:, None] >= columns[None, :], total, tl.trans(total))
    loss = 0.0
    pieces = narrow(total)
    for k in tl.static_range(len(pieces)):
        piece = pieces[k]
        columns = j * total.shape[1] + k * piece.shape[1] + tl.arange(0, piece.shape[1])
        inside = (rows < channels)[:, None] & (columns < channels)[None, :]
        inside_mirror = (columns < channels)[:, None] & (rows < channels)[None, :]
        down, right = rows.to(tl.int64), columns.to(tl.int64)
        if target is not None:
            places = down[:, None] * target_strides[1] + right[None, :] * target_strides[2]
            goal = tl.load(target + places, mask=inside, other=0.0).to(piece.dtype)
            mirror_places = right[:, None] * target_strides[1] + down[None, :] * target_strides[2]
            mirror = tl.load(target + mirror_places, mask=inside_mirror, other=0.0).to(piece.dtype)
            mirror = tl.trans(mirror)
            loss += tl.sum((piece - goal) * (piece - goal))
            if i != j:
                loss += tl.sum((piece - mirror) * (piece - mirror))
            piece -= 0.5 * (goal + mirror)
        piece = piece.to(out.dtype.element_ty)
        tl.store(out + down[:, None] * channels + right[None, :], piece, mask=inside)
        if i != j:
            mirror_out = out + right[:, None] * channels + down[None, :]
            tl.store(mirror_out, tl.trans(piece), mask=inside_mirror)
    if target is not None:
        tl.store(losses, loss)


@triton.jit
def narrow(tile):
    """Cut a tile into pieces of 32 columns: what is done with one takes few registers."""
    # Triton leaves the other branches out only of an if with an else.
    if tile.shape[1] == 128:
        left, right = _halves(tile)
        a, b = _halves(left)
        c, d = _halves(right)
        return a, b, c, d
    elif tile.shape[1] == 64:  # noqa: RET505
        left, right = _halves(tile)
        return left, right
    else:
        return (tile,)


@triton.jit
def _halves(tile):
    """Cut a tile into its left and its right half."""
    half: tl.constexpr = tile.shape[1] // 2
    return tl.split(tl.permute(tl.reshape(tile, (tile.shape[0], 2, half)), (0, 2, 1)))
