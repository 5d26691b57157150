"""The places of a window that is slid over an image, and how their values become pixels again.

The grid is Captum's: ceil((size - window) / stride) + 1 places an axis, the last window cut off at
the border. Where the stride is larger than the window, the last place may lie behind the border;
the window then covers nothing.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.attribution.occlusion.incremental import Spans
from fc7.engine.errors import OptionError

Floats = NDArray[np.floating[Any]]


def window_spans(size: int, window: int, stride: int) -> Spans:
    """Return the pixels that the window covers at each place along an axis.

    Raises:
        OptionError: the window or the stride is less than 1, or the window larger than the image.
    """
    if window < 1 or stride < 1:
        raise OptionError(f"window is {window} and stride {stride} pixels; each must be at least 1")
    if window > size:
        raise OptionError(
            f"the window is {window} pixels, but the image only {size}; choose a smaller one"
        )
    starts = np.arange(-((window - size) // stride) + 1) * stride
    return Spans(np.minimum(starts, size), np.minimum(starts + window, size))


def covering(spans: Spans) -> Spans:
    """Return the spans that cover anything: all, or all but the last."""
    held = spans.lengths > 0
    return Spans(spans.starts[held], spans.stops[held])


def places(size: tuple[int, int], window: int, stride: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the pixels covered at each place, row by row: top, left, bottom, right, half open."""
    rows, columns = (window_spans(side, window, stride) for side in size)
    for top, bottom in zip(*(axis.tolist() for axis in rows), strict=True):
        for left, right in zip(*(axis.tolist() for axis in columns), strict=True):
            yield top, left, bottom, right


def to_pixels(maps: Tensor, size: tuple[int, int], window: int, stride: int) -> Tensor:
    """Spread maps over the image: each pixel is the mean over the windows that cover it.

    Args:
        maps: (N, rows, columns), as `occlusion_maps` returns them.
        size: height and width of the image in pixels.
        window: side of the square in pixels.
        stride: pixels from one place to the next; where it is larger than the window, some pixels
            are never covered and come out as 0.

    Returns:
        (N, H, W), in the dtype of the maps.

    Raises:
        OptionError: the window or the stride is less than 1, or the window larger than the image.
        ValueError: the maps do not have the grid of such windows.
    """
    spans = [window_spans(side, window, stride) for side in size]
    grid = tuple(len(axis.starts) for axis in spans)
    if maps.shape[1:] != grid:
        raise ValueError(f"expected maps (N, {grid[0]}, {grid[1]}), got {tuple(maps.shape)}")
    down, across = (_covers(axis, side).to(maps) for axis, side in zip(spans, size, strict=True))
    sums = torch.einsum("nij,iy,jx->nyx", maps, down, across)
    windows = torch.outer(down.sum(0), across.sum(0))
    return sums / windows.clamp_min(1)


def interpolation(given: Floats, wanted: Floats) -> Floats:
    """Return the matrix, (wanted, given), that interpolates numbers between places on a line.

    Args:
        given: where numbers are known, ascending.
        wanted: where they are asked for; before the first place and behind the last as there.
    """
    return np.stack([np.interp(wanted, given, row) for row in np.eye(len(given))], 1)


def _covers(spans: Spans, size: int) -> Tensor:
    """Return which pixels each place covers, (places, size), 1 or 0."""
    pixels = np.arange(size)
    inside = (pixels >= spans.starts[:, None]) & (pixels < spans.stops[:, None])
    return torch.from_numpy(inside)
