"""Colours for signed numbers: grey at zero, red above it, blue below, and even to the eye.

Zero is a light neutral, the two ends are equally dark and equally far from it, and the way to
either is straight in OKLab (Ottosson, "A perceptual color space for image processing", 2020), so
that equal steps look equal. Diverging maps are Moreland's ("Diverging color maps for scientific
visualization", 2009); these ends can be told apart by readers who do not see red or green.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 127
"""Steps from zero to either end."""

# Lightness, green to red, blue to yellow; the ends are as colourful as a screen allows.
_NEUTRAL = (0.970, 0.000, 0.000)
_BLUE = (0.420, -0.0300, -0.1380)
_RED = (0.420, 0.1480, 0.0660)

# What is left of the image under the strongest colour, and under none: of its colours, and of
# its darkness, so that all the colour is the map's, and dark pictures do not swallow it.
_IMAGE_LEFT, _COLOUR_LEFT, _DARKNESS_LEFT = 0.28, 0.2, 0.7
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

_OKLAB_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def table() -> NDArray[np.uint8]:
    """Return the colours from the lowest number to the highest, uint8 (255, 3); 127 is zero."""
    steps = np.linspace(0, 1, LEVELS + 1)[:, None]
    neutral = np.array(_NEUTRAL)
    below, above = (neutral + steps * (np.array(end) - neutral) for end in (_BLUE, _RED))
    lab = np.concatenate([below[:0:-1], above])
    linear = np.clip(((lab @ _OKLAB_TO_CONES.T) ** 3) @ _CONES_TO_RGB.T, 0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(255 * rgb), np.uint8)


def levels(values: NDArray[np.floating[Any]], peak: float) -> NDArray[np.uint8]:
    """Return where in `table` numbers stand: -peak at 0, zero at 127, peak at 254.

    Args:
        values: of any shape; what is not a number stands with zero.
        peak: what the ends of the scale mean, at least 0; where it is 0, everything is zero.
    """
    if not peak > 0:
        return np.full(values.shape, LEVELS, np.uint8)
    scaled = np.nan_to_num(values / peak, nan=0.0).clip(-1, 1)
    return np.asarray(np.round(LEVELS + LEVELS * scaled), np.uint8)


def colours(values: NDArray[np.floating[Any]], peak: float) -> NDArray[np.uint8]:
    """Return the colours of numbers, uint8 (..., 3); see `levels`."""
    return table()[levels(values, peak)]


def lay_over(
    image: NDArray[np.uint8], values: NDArray[np.floating[Any]], peak: float
) -> NDArray[np.uint8]:
    """Lay numbers, in colours, over an image that is made nearly grey and light.

    Args:
        image: uint8 (h, w, 3).
        values: (h, w).
        peak: what the ends of the scale mean; see `levels`.

    Returns:
        uint8 (h, w, 3).
    """
    strength = np.abs(values / peak if peak > 0 else np.zeros_like(values)).clip(0, 1)[..., None]
    light = (image @ _LUMINANCE)[..., None]
    base = 255 - _DARKNESS_LEFT * (255 - light - _COLOUR_LEFT * (image - light))
    ends = table()[np.where(values < 0, 0, 2 * LEVELS)].astype(np.float64)
    opaque = (1 - _IMAGE_LEFT) * strength**0.75
    return np.asarray(np.round(base + opaque * (ends - base)), np.uint8)


def hexadecimal(colour: Sequence[float]) -> str:
    """Return (r, g, b) in [0, 1] as it is written on the web: #7f7f7f."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)
