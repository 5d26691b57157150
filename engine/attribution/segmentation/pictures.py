"""Masks, seeds and saliency as pictures over the image they belong to."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc7.engine.attribution.colours import colours, table
from fc7.engine.attribution.segmentation.seeds import (
    BACKGROUND,
    FOREGROUND,
    PROBABLY_FOREGROUND,
    sampled,
)
from fc7.engine.data.transform import Box

# The background keeps so much of its light, and none of its colours: the object is what is left.
_LIGHT_LEFT = 0.3
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
# Yellow is seldom an object's colour, and the dark line outside it parts it from a bright one's.
_OUTLINE, _SHADOW = (255, 214, 10), (20, 19, 18)
_BEYOND = (232, 230, 225)
# Where between the two ends of the colours' table the four seeds stand.
_SEED_COLOURS = {FOREGROUND: 254, PROBABLY_FOREGROUND: 190, BACKGROUND: 0}
_UNDECIDED = 110


def overlaid(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw an image with its background dark and grey, and a line around the object.

    Args:
        image: uint8 (H, W, 3).
        mask: bool, of any size; it is fitted to the image's.

    Returns:
        uint8 (H, W, 3).
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    mask = fitted(mask, (image.shape[0], image.shape[1]))
    grey = (image @ _LUMINANCE * _LIGHT_LEFT)[:, :, None]
    out = np.where(mask[:, :, None], image, grey).round().astype(np.uint8)
    width = max(1, round(max(mask.shape) / 200))
    # Beyond the picture's edge there is object too, so that no line is drawn along it.
    inner = mask & ~binary_erosion(mask, iterations=width, border_value=1)
    outer = ~mask & binary_dilation(mask, iterations=1)
    out[outer] = _SHADOW
    out[inner] = _OUTLINE
    return out


def saliency_picture(
    saliency: NDArray[np.floating[Any]], box: Box, size: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Draw a map where it lies in an image: pale at 0, red at its largest; grey beyond it.

    Args:
        saliency: (h, w), at least 0.
        box: where the map lies, in pixels of the image.
        size: height and width of the image.
        shape: height and width of the picture.
    """
    placed = sampled(np.nan_to_num(saliency).astype(np.float64), box, size, shape)
    out = colours(placed, float(np.nan_to_num(placed).max(initial=0.0)))
    out[np.isnan(placed)] = _BEYOND
    return out


def seeds_picture(seeds: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw what GrabCut was told: red the object, blue the background, paler where probable.

    Args:
        seeds: uint8 (h, w); see `fc7.engine.attribution.segmentation.seeds`.
        shape: height and width of the picture.
    """
    places = np.full(4, _UNDECIDED)
    places[list(_SEED_COLOURS)] = list(_SEED_COLOURS.values())
    drawn = Image.fromarray(table()[places][seeds])
    return np.array(drawn.resize(shape[::-1], Image.Resampling.NEAREST))


def fitted(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask at another size: shrunk by the majority, enlarged by squares."""
    if mask.shape == shape:
        return mask
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    grows = shape[0] >= mask.shape[0] and shape[1] >= mask.shape[1]
    way = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    return np.asarray(np.asarray(grey.resize(shape[::-1], way)) >= 128)
