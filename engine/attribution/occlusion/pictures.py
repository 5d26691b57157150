"""Occlusion maps as pictures, in the manner of Zeiler and Fergus (2014), figure 7.

A map is drawn as a function of where the middle of the window is: red where the score falls when
the window covers the image there, blue where it rises (`fc7.engine.attribution.colours`).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.colours import colours, lay_over
from fc7.engine.attribution.occlusion.grid import Floats, covering, interpolation, window_spans


def peak_of(drops: Floats) -> float:
    """Return the largest change on a map, whichever way it goes: what its scale ends with."""
    return float(np.nan_to_num(np.abs(drops)).max(initial=0.0))


def heat(
    drops: Floats,
    size: tuple[int, int],
    window: int,
    stride: int,
    peak: float,
    shape: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Draw a map in colours: every pixel has that of the place whose middle is nearest.

    Args:
        drops: (rows, columns), by how much the score falls at each place.
        size: height and width of the image in pixels.
        window: side of the square in pixels.
        stride: pixels from one place to the next.
        peak: what the scale ends with.
        shape: height and width of the picture, where it is not that of the image.

    Returns:
        uint8 (*shape, 3).
    """
    return colours(_spread(drops, size, window, stride, _nearest, shape or size), peak)


def overlaid(
    image: NDArray[np.uint8],
    drops: Floats,
    size: tuple[int, int],
    window: int,
    stride: int,
    peak: float,
) -> NDArray[np.uint8]:
    """Lay a map over an image that is made nearly grey and light; between places it is linear.

    Args:
        image: uint8 (h, w, 3), what the network sees, perhaps at another resolution.
        drops: see `heat`.
        size: likewise.
        window: likewise.
        stride: likewise.
        peak: likewise.

    Returns:
        uint8 (h, w, 3).
    """
    height, width = image.shape[:2]
    return lay_over(
        image, _spread(drops, size, window, stride, interpolation, (height, width)), peak
    )


def strongest_window(
    drops: Floats, size: tuple[int, int], window: int, stride: int
) -> tuple[int, int, int, int]:
    """Return the place where the score falls most, in pixels: top, left, bottom, right."""
    rows, columns = (window_spans(side, window, stride) for side in size)
    row, column = np.unravel_index(int(np.nan_to_num(drops).argmax()), drops.shape)
    top, bottom = int(rows.starts[row]), int(rows.stops[row])
    return top, int(columns.starts[column]), bottom, int(columns.stops[column])


def _spread(
    drops: Floats,
    size: tuple[int, int],
    window: int,
    stride: int,
    weigh: Callable[[Floats, Floats], Floats],
    shape: tuple[int, int],
) -> Floats:
    """Return a map over the image, at a resolution of `shape` pixels."""
    spans = [covering(window_spans(side, window, stride)) for side in size]
    down, across = (
        weigh((axis.starts + axis.stops) / 2, (np.arange(count) + 0.5) * side / count)
        for axis, side, count in zip(spans, size, shape, strict=True)
    )
    held = np.nan_to_num(drops[: down.shape[1], : across.shape[1]].astype(np.float64))
    return np.asarray(down @ held @ across.T)


def _nearest(middles: Floats, pixels: Floats) -> Floats:
    """Return which place's middle is nearest to each pixel, (pixels, places), 1 or 0."""
    nearest = np.abs(pixels[:, None] - middles).argmin(1)
    return np.asarray(np.eye(len(middles))[nearest])
