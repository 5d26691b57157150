"""What GrabCut is told: which pixels are the object's, by a saliency map, and which are not.

The map is smoothed, carried to the image's pixels, and cut at quantiles. What it does not cover,
such as what the network's crop leaves out, says nothing about the quantiles and is probably
background.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data.transform import Box
from fc7.engine.errors import OptionError

BACKGROUND, FOREGROUND, PROBABLY_BACKGROUND, PROBABLY_FOREGROUND = range(4)
"""The seeds, numbered as OpenCV numbers them."""


@dataclass(frozen=True)
class Recipe:
    """How a saliency map becomes a mask.

    Attributes:
        foreground: the quantile of the map from which on pixels are the object's.
        probable: the quantile from which on they probably are.
        background: the quantile up to which they are the background's; the rest probably are.
        iterations: of GrabCut.
        blur: standard deviation of the Gaussian that smooths the map, as a share of its longer
            side; 0 leaves it as it is.
        side: pixels of the longer side at which GrabCut works; a larger image is shrunk for it,
            and its mask enlarged.

    Raises:
        OptionError: an option is out of range.
    """

    foreground: float = 0.95
    probable: float = 0.95
    background: float = 0.3
    iterations: int = 5
    blur: float = 0.1
    side: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.background < self.probable <= self.foreground <= 1:
            raise OptionError(
                f"background is {self.background}, probable {self.probable} and foreground "
                f"{self.foreground}; they are quantiles, 0 to 1, and rise in this order"
            )
        if self.iterations < 1 or self.side < 1:
            raise OptionError(
                f"iterations is {self.iterations} and side {self.side}; each is 1 or more"
            )
        if not 0 <= self.blur <= 1:
            raise OptionError(f"blur is {self.blur}; it is a share of the map's side, 0 to 1")


def recipe_words(recipe: Recipe) -> str:
    """Return how a map becomes a mask, for people."""
    probable = "" if recipe.probable == recipe.foreground else f", probable {recipe.probable:g}"
    blur = f"smoothed by {recipe.blur:g} of its side" if recipe.blur else "not smoothed"
    return (
        f"object from the quantile {recipe.foreground:g} of the map, {blur}{probable}, background "
        f"up to {recipe.background:g}"
    )


def seeds_of(
    saliency: NDArray[np.floating[Any]],
    recipe: Recipe,
    box: Box,
    size: tuple[int, int],
    shape: tuple[int, int],
) -> NDArray[np.uint8] | None:
    """Return what GrabCut is told of each pixel, or None where the map is the same everywhere.

    Args:
        saliency: the map, (h, w), finite, the higher the more important.
        recipe: how it is smoothed, and its quantiles.
        box: where the map lies, in pixels of the image; it may reach beyond.
        size: height and width of the image.
        shape: height and width at which the seeds are wanted.

    Returns:
        uint8 of that shape. There is at least one pixel of the object, and one of the background.
    """
    if saliency.min() == saliency.max():
        return None  # before smoothing, which makes rounding errors of it
    found = sampled(smoothed(saliency, recipe.blur), box, size, shape)
    known = found[~np.isnan(found)]
    if not len(known) or known.min() == known.max():
        return None
    low, middle, high = np.quantile(known, (recipe.background, recipe.probable, recipe.foreground))
    # Comparisons with NaN, what the map does not cover, are false.
    background, foreground = found <= low, found >= high
    if low == high:
        # Most of the map is one value; it is on the side that would be empty without it, if any.
        if (found > high).any():
            foreground = found > high
        if (found < low).any():
            background = found < low
    seeds = np.full(shape, PROBABLY_BACKGROUND, np.uint8)
    seeds[(found >= middle) & (found > low)] = PROBABLY_FOREGROUND
    seeds[background] = BACKGROUND
    seeds[foreground] = FOREGROUND
    return seeds


def sampled(
    saliency: NDArray[np.float64], box: Box, size: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the map at the pixels of an image, bilinearly, and NaN beyond the box.

    Args:
        saliency: the map, (h, w), its values at the middles of its cells.
        box: where it lies, in pixels of an image of that size.
        size: height and width of that image.
        shape: height and width at which it is wanted.
    """
    top, left, bottom, right = box
    found = saliency
    for axis, (low, high) in enumerate(((top, bottom), (left, right))):
        count, cells = shape[axis], saliency.shape[axis]
        centres = (np.arange(count) + 0.5) * size[axis] / count
        places = ((centres - low) / (high - low) * cells - 0.5).clip(0, cells - 1)
        lower = np.floor(places).astype(np.int64)
        share = np.expand_dims(places - lower, 1 - axis)
        upper = np.minimum(lower + 1, cells - 1)
        found = found.take(lower, axis) * (1 - share) + found.take(upper, axis) * share
        outside = (centres < low) | (centres >= high)
        found[outside if axis == 0 else (slice(None), outside)] = np.nan
    return found


def smoothed(saliency: NDArray[np.floating[Any]], blur: float) -> NDArray[np.float64]:
    """Return a map (h, w) smoothed by a Gaussian, `blur` times its longer side wide."""
    from scipy.ndimage import gaussian_filter

    values = saliency.astype(np.float64)
    deviation = blur * max(values.shape)
    if not deviation:
        return values
    return np.asarray(gaussian_filter(values, deviation, mode="nearest", truncate=3))
