"""Which of a row's pixels are small beside its others."""

import math

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.rows import each_row


def check_percentile(percentile: float) -> None:
    """Raise OptionError unless a number lies in [0, 100]."""
    if not 0 <= percentile <= 100:
        raise OptionError(f"the percentile is {percentile}; it lies between 0 and 100")


def percentiles(values: Tensor, percentile: float) -> Tensor:
    """Return a percentile of each row, exactly: `numpy.percentile` of float64, method "linear".

    Args:
        values: (N, M) floating, M at least 1.
        percentile: in [0, 100].

    Returns:
        (N,) float64.
    """
    last = values.shape[1] - 1
    place = last * (percentile / 100)
    below = min(math.floor(place), last)
    share = place - below
    low = values.kthvalue(below + 1, dim=1).values.double()
    if share == 0:
        return low
    high = values.kthvalue(below + 2, dim=1).values.double()
    # From the nearer of both, as numpy does.
    step = high - low
    return low + step * share if share < 0.5 else high - step * (1 - share)


def small(measures: Tensor, percentile: float) -> Tensor:
    """Return which pixels lie below a percentile of their own row.

    Args:
        measures: (N, H, W) floating, one number a pixel.
        percentile: in [0, 100]. Equal pixels, of which none is below, all stay.

    Returns:
        (N, 1, H, W) bool.
    """
    bounds = percentiles(measures.flatten(1), percentile)
    return (measures < bounds[:, None, None])[:, None]


def norms(channels: Tensor) -> Tensor:
    """Return the norm of each pixel's three numbers, (N, H, W) float64, of (N, 3, H, W)."""
    # In float64 no square of a float32 overflows, or vanishes.
    return channels.double().square().sum(1).sqrt()


def without_small(channels: Tensor, percentile: float) -> Tensor:
    """Return (N, 3, H, W) with 0 at pixels whose norm is below a percentile of their row's."""

    def of(row: Tensor) -> Tensor:
        return row.masked_fill(small(norms(row), percentile), 0)

    return each_row(of, channels)


def replaced(images: Tensor, measures: Tensor, percentile: float, colour: Tensor) -> Tensor:
    """Return images with a colour, (1, 3, 1, 1), at the pixels that are `small`."""
    return torch.where(small(measures, percentile), colour, images)
