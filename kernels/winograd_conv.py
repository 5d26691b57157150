"""A 3 x 3 convolution with half of the products: Winograd's algorithm F(4, 3), down the rows.

Four outputs of a filter of three taps take 12 products, or 6 of sums of inputs with sums of taps
(Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016, arXiv:1509.09308):

    y  = A^T ((G w) * (B^T d)),     d: 6 rows of the image,  w: 3 of the kernel,  y: 4 of the output
    gd = B ((G w) * (A g)),         which is the same map's transpose: of the gradient g of y

Here a product is a convolution by one row of three taps, across the image and over all channels,
which is oneDNN's work; so six of those, of a quarter of the rows each, take the place of three by
all rows. The same down and across would take 4 in place of 9, but write 2.25 times the image
instead of 1.5, which costs a CPU more than the products it saves; and its rounding is worse. This
one's is 2 to 3 times the plain sum's in float32, still a few units of the last place of the largest
output.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_ROWS, _POINTS = 4, 6  # outputs of one tile, and products
_MOST_BYTES = 20 << 20  # of sums of inputs at once: malloc keeps them for the next


def winograd_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: Sequence[int] = (1, 1)
) -> Tensor:
    """Return `torch.nn.functional.conv2d` of the same arguments, stride 1.

    Its backward pass is for x alone, cannot itself be differentiated, and keeps nothing of x.

    Args:
        x: (N, C, H, W), floating.
        weight: (D, C, 3, 3), the same dtype.
        bias: (D,).
        padding: zeros above and below, left and right, at most 2; the outputs must be at least one.

    Returns:
        (N, D, H + 2 down - 2, W + 2 across - 2), its memory channels last.
    """
    y: Tensor = _WinogradConv.apply(x, weight, bias, padding)
    return y


class _WinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.set_materialize_grads(False)
        ctx.padding, ctx.size = padding, x.shape[2:]
        return _forward(x, _taps(weight), bias, padding)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        if g is None:
            return None, None, None, None
        # Their sums anew: to keep them takes twice the weights' memory, to make them a hundredth of
        # the time.
        taps = _taps(ctx.saved_tensors[0])
        return _backward(g, taps, ctx.padding, ctx.size), None, None, None


def winograd_pays(x: Tensor, weight: Tensor, padding: Sequence[int]) -> bool:
    """Return whether this is faster than torch's own for such tensors, whatever their number.

    The number of images has no say, so that a row's result does not hang on its company.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if x.ndim != 4 or weight.shape[2:] != (3, 3) or max(padding) > 2:
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    outputs, channels = weight.shape[:2]
    height, width = (side + 2 * more - 2 for side, more in zip(x.shape[2:], padding, strict=True))
    # Sums take time by pixels and by channels, which products take by both and by outputs; taps by
    # channels and outputs, which products of one image must outweigh.
    return channels * outputs >= 40 * (channels + outputs) and height >= 1 and height * width >= 700


def _taps(weight: Tensor) -> Tensor:
    """Return G w, of (D, C, 3, 3): (6, D, C, 1, 3) with channels last."""
    outputs, channels = weight.shape[:2]
    rows = weight.permute(2, 0, 3, 1)
    taps = rows.new_empty(_POINTS, outputs, 3, channels)
    torch.mul(rows[0], 1 / 4, out=taps[0])
    ends = torch.add(rows[0], rows[2]).mul_(-1 / 6)
    torch.sub(ends, rows[1], alpha=1 / 6, out=taps[1])
    torch.add(ends, rows[1], alpha=1 / 6, out=taps[2])
    torch.add(rows[0], rows[2], alpha=4, out=ends).mul_(1 / 24)
    torch.add(ends, rows[1], alpha=1 / 12, out=taps[3])
    torch.sub(ends, rows[1], alpha=1 / 12, out=taps[4])
    taps[5].copy_(rows[2])
    return taps[:, :, None].permute(0, 1, 4, 2, 3)


def _forward(x: Tensor, taps: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    (down, across), (count, _, height, width) = padding, x.shape
    y = _channels_last(x, count, taps.shape[1], height + 2 * down - 2, width + 2 * across - 2)
    tiles = -(-y.shape[2] // _ROWS)
    beyond = _ROWS * tiles + 2 - height - down
    few = _images(tiles * width * x.shape[1] * x.element_size())
    for part, out in _parts(x, y, few):
        sums = _sums_of_inputs(functional.pad(part, (0, 0, 0, 0, down, beyond)))
        products = [
            # The second enters each output once, and so does its bias.
            functional.conv2d(each, tap, bias if point == 1 else None, 1, (0, across))
            for point, (each, tap) in enumerate(zip(sums, taps, strict=True))
        ]
        _outputs([each.permute(0, 2, 3, 1) for each in products], out)
    return y


def _backward(g: Tensor, taps: Tensor, padding: Sequence[int], size: torch.Size) -> Tensor:
    (down, across), (height, width) = padding, size
    tiles = -(-g.shape[2] // _ROWS)
    gx = _channels_last(g, len(g), taps.shape[2], height, width)
    few = _images(tiles * g.shape[3] * g.shape[1] * g.element_size())
    for part, out in _parts(g, gx, few):
        padded = functional.pad(part, (0, 0, 0, 0, 0, _ROWS * tiles - part.shape[1]))
        like = _channels_last(g, len(part), taps.shape[2], tiles, width)
        products = [
            torch.ops.aten.convolution_backward.default(
                each, like, tap, None, [1, 1], [0, across], [1, 1], False, [0, 0], 1,
                [True, False, False],
            )[0].permute(0, 2, 3, 1)
            for each, tap in zip(_sums_of_gradients(padded), taps, strict=True)
        ]  # fmt: skip
        out.copy_(_inputs(products)[:, down : down + height])
    return gx


def _channels_last(like: Tensor, *shape: int) -> Tensor:
    form = torch.channels_last
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=form)


def _parts(x: Tensor, y: Tensor, few: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield a few images of both at a time, as (N, H, W, C)."""
    views = (each.permute(0, 2, 3, 1) for each in (x, y))
    yield from zip(*(torch.split(each, few) for each in views), strict=True)


def _images(bytes_a_point: int) -> int:
    """Return how many images are taken together."""
    return max(1, _MOST_BYTES // max(1, _POINTS * bytes_a_point))


def _sums_of_inputs(lines: Tensor) -> Tensor:
    """Return B^T d, of (N, 4 T + 2, W, C): (6, N, C, T, W), channels last."""
    d = [lines[:, row : row + lines.shape[1] - 5 : _ROWS] for row in range(6)]
    sums = lines.new_empty(_POINTS, *d[0].shape)
    odd, even = torch.sub(d[3], d[1], alpha=4), torch.sub(d[4], d[2], alpha=4)
    torch.add(even, odd, out=sums[1])
    torch.sub(even, odd, out=sums[2])
    torch.sub(d[3], d[1], out=odd)
    torch.sub(d[4], d[2], out=even)
    torch.add(even, odd, alpha=2, out=sums[3])
    torch.sub(even, odd, alpha=2, out=sums[4])
    torch.sub(d[0], d[2], out=sums[0])
    torch.add(even, sums[0], alpha=4, out=sums[0])
    torch.sub(d[5], d[3], out=sums[5])
    torch.sub(sums[5], odd, alpha=4, out=sums[5])
    return sums.permute(0, 1, 4, 2, 3)


def _outputs(m: list[Tensor], out: Tensor) -> None:
    """Write A^T m, of six (N, T, W, D), which are used up, to (N, <= 4 T, W, D)."""
    near, far = torch.add(m[1], m[2]), torch.add(m[3], m[4])
    near_apart, far_apart = m[1].sub_(m[2]), m[3].sub_(m[4])
    sides = (
        (m[0].add_(near), far, 1),
        (near_apart, far_apart, 2),
        (near, far, 4),
        (m[5].add_(near_apart), far_apart, 8),
    )
    for row, (one, other, factor) in enumerate(sides):
        into = out[:, row::_ROWS]
        tiles = into.shape[1]
        torch.add(one[:, :tiles], other[:, :tiles], alpha=factor, out=into)


def _sums_of_gradients(lines: Tensor) -> Tensor:
    """Return A g, of (N, 4 T, W, D): (6, N, D, T, W), channels last."""
    g = [lines[:, row::_ROWS] for row in range(_ROWS)]
    sums = lines.new_empty(_POINTS, *g[0].shape)
    even, odd = g[0] + g[2], g[1] + g[3]
    torch.add(even, odd, out=sums[1])
    torch.sub(even, odd, out=sums[2])
    torch.add(g[0], g[2], alpha=4, out=even)
    torch.add(g[1], g[3], alpha=4, out=odd)
    torch.add(even, odd, alpha=2, out=sums[3])
    torch.sub(even, odd, alpha=2, out=sums[4])
    sums[0].copy_(g[0])
    sums[5].copy_(g[3])
    return sums.permute(0, 1, 4, 2, 3)


def _inputs(m: list[Tensor]) -> Tensor:
    """Return B m, of six (N, T, W, C), which are used up, their overlaps added: 4 T + 4 rows."""
    count, tiles, width, channels = m[0].shape
    rows = m[0].new_empty(count, tiles + 1, _ROWS, width, channels)
    rows[:, tiles] = 0
    here, below = rows[:, :tiles], rows[:, 1:]
    near, far = torch.add(m[1], m[2]), torch.add(m[3], m[4])
    near_apart, far_apart = m[1].sub_(m[2]), m[3].sub_(m[4])
    torch.add(near_apart, far_apart, alpha=2, out=here[:, :, 3])
    here[:, :, 3].sub_(m[5], alpha=5)
    near_apart.sub_(m[5])
    torch.add(far_apart, near_apart, alpha=2, out=here[:, :, 1])
    here[:, :, 1].mul_(-2)
    below[:, :, 1].add_(m[5])
    torch.mul(m[0], -5, out=here[:, :, 2])
    here[:, :, 2].sub_(near, alpha=4).sub_(far)
    torch.mul(m[0], 4, out=here[:, :, 0])
    below[:, :, 0].add_(near.add_(far).add_(m[0]))
    return rows.view(count, -1, width, channels)


def winograd_conv_reference(
    x: NDArray[np.float64],
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    padding: tuple[int, int],
) -> NDArray[np.float64]:
    """The convolution's definition, one output at a time: (N, D, OH, OW)."""
    (down, across), (count, _, height, width) = padding, x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (down, down), (across, across)))
    y = np.zeros((count, len(weight), height + 2 * down - 2, width + 2 * across - 2))
    for n, d, i, j in np.ndindex(y.shape):
        y[n, d, i, j] = np.sum(padded[n, :, i : i + 3, j : j + 3] * weight[d]) + bias[d]
    return y
