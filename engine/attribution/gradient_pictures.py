"""Maps over pixels as pictures: gradients in their own colours, numbers in red and blue."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc7.engine.attribution.colours import colours, lay_over
from fc7.engine.data.tiles import BLANK

Floats = NDArray[np.floating[Any]]

# A few pixels are much larger than all others: scaled to the largest, a map would be nearly blank.
_SEEN = 0.99


def peak_of(values: Floats) -> float:
    """Return what the scale of a map ends with: 99 % of its values are smaller, whichever way.

    It is 0 only where all of them are, or are not numbers.
    """
    sizes = np.abs(np.nan_to_num(values, posinf=0, neginf=0).astype(np.float64))
    return float(np.quantile(sizes, _SEEN)) or float(sizes.max(initial=0.0))


def in_own_colours(gradient: Floats) -> NDArray[np.uint8]:
    """Draw a gradient as colours are drawn: grey at 0, lighter above it, darker below.

    Args:
        gradient: (3, h, w).

    Returns:
        uint8 (h, w, 3).
    """
    peak = peak_of(gradient)
    share = np.nan_to_num(gradient / peak) if peak > 0 else np.zeros_like(gradient)
    grey = np.asarray(np.round(BLANK + 127 * np.clip(share, -1, 1)), np.uint8)
    return np.ascontiguousarray(grey.transpose(1, 2, 0))


def in_colours(values: Floats) -> NDArray[np.uint8]:
    """Draw one number a pixel, (h, w): red above zero, blue below, pale grey at it."""
    return colours(values, peak_of(values))


def strength(maps: Floats) -> Floats:
    """Return one number a pixel, (h, w), of a map that may have three, (3, h, w): the largest."""
    return np.abs(maps).max(0) if maps.ndim == 3 else maps


def over_image(image: NDArray[np.uint8], maps: Floats) -> NDArray[np.uint8]:
    """Lay a map over an image.

    Args:
        image: uint8 (h, w, 3).
        maps: (h', w') or (3, h', w'), of the same proportions.

    Returns:
        uint8 (h, w, 3).
    """
    values = strength(np.nan_to_num(maps.astype(np.float32), posinf=0, neginf=0))
    height, width = image.shape[:2]
    spread = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    return lay_over(image, np.asarray(spread, np.float64), peak_of(values))


def drawn(maps: Floats) -> NDArray[np.uint8]:
    """Draw a map: in its own colours if it has three numbers a pixel, else in red and blue."""
    return in_own_colours(maps) if maps.ndim == 3 else in_colours(maps)
