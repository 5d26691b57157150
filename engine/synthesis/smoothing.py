"""Gaussian blur, in the same order of sums for every row."""

import numpy as np
import torch
from torch import Tensor

from fc7.engine.synthesis.rows import each_row


def gaussian_blur(channels: Tensor, width: float) -> Tensor:
    """Return each plane smoothed by a Gaussian: scipy's `gaussian_filter` with its defaults.

    Args:
        channels: (N, C, H, W) floating.
        width: standard deviation in pixels, at least 0. The kernel ends at 4 of them; beyond an
            edge, pixels repeat as in a mirror that stands on it.
    """
    radius = int(4 * width + 0.5)
    if radius == 0:
        return channels
    kernel = np.exp(-0.5 * (np.arange(radius + 1) / width) ** 2)
    weights: list[float] = (kernel / (2 * kernel.sum() - kernel[0])).tolist()

    def of(row: Tensor) -> Tensor:
        return _along(_along(row, 2, weights), 3, weights)

    return each_row(of, channels)


def _along(channels: Tensor, axis: int, weights: list[float]) -> Tensor:
    length, radius = channels.shape[axis], len(weights) - 1
    places = torch.arange(-radius, length + radius, device=channels.device) % (2 * length)
    mirrored = torch.minimum(places, 2 * length - 1 - places)
    wide = channels.index_select(axis, mirrored)
    total = wide.narrow(axis, radius, length) * weights[0]
    for offset in range(1, radius + 1):
        before = wide.narrow(axis, radius - offset, length)
        after = wide.narrow(axis, radius + offset, length)
        total = total + (before + after) * weights[offset]
    return total
