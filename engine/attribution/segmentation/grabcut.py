"""GrabCut, told by a saliency map where to look; see `fc7.engine.attribution.segment`.

OpenCV asserts that both sides have pixels, and draws from a random generator that goes on from one
image to the next. Neither may show: every image is answered, the same whatever came before it.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc7.engine.attribution.segmentation.seeds import (
    FOREGROUND,
    PROBABLY_BACKGROUND,
    PROBABLY_FOREGROUND,
    Recipe,
    seeds_of,
)
from fc7.engine.data.transform import Box
from fc7.engine.errors import OptionError

How = Literal["grabcut", "threshold", "flat", "not-finite"]
"""How a mask was found.

- grabcut: as it should be.
- threshold: GrabCut would not have it, such as an image of a few pixels; the mask is what of the
  map is above the quantile `probable`.
- flat: the map has one value wherever it covers the image, if anywhere, and the mask is empty.
- not-finite: the map has NaN or infinite values, and the mask is empty.
"""
HOW: tuple[How, ...] = get_args(How)

# OpenCV describes the colours of either side by so many Gaussians of 13 numbers each.
_COMPONENTS = 5
_RANDOM = 0


@dataclass(frozen=True)
class Cutout:
    """What was found in one image.

    Attributes:
        mask: bool (H, W), True on the object.
        how: how it was found.
        seeds: uint8 (h, w), what GrabCut was told, at the size at which it works.
    """

    mask: NDArray[np.bool_]
    how: How
    seeds: NDArray[np.uint8]


def cut_out(
    image: NDArray[np.uint8],
    saliency: NDArray[np.floating[Any]],
    recipe: Recipe,
    size: tuple[int, int] | None = None,
    box: Box | None = None,
) -> Cutout:
    """Return the object's mask, and how it was found.

    Args:
        image: uint8 (h, w, 3), RGB, perhaps shrunk already; see `shrunk`.
        saliency: two axes, the higher the more important.
        recipe: how.
        size: height and width of the mask; the image's own if None.
        box: what of those pixels the saliency map covers; all of them if None. It may reach
            beyond the image. What it does not cover is probably background.

    Raises:
        OptionError: OpenCV is not installed.
        ValueError: an argument has another shape or dtype.
    """
    cv2 = opencv()
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"expected an image uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if saliency.ndim != 2 or not saliency.size or saliency.dtype.kind != "f":
        raise ValueError(f"expected a map of floats (h, w), got {saliency.dtype} {saliency.shape}")
    height, width = size = size or image.shape[:2]
    image = shrunk(image, recipe.side)
    shape = image.shape[0], image.shape[1]
    nothing = np.full(shape, PROBABLY_BACKGROUND, np.uint8)
    empty = np.zeros(size, np.bool_)
    if not np.isfinite(saliency).all():
        return Cutout(empty, "not-finite", nothing)
    seeds = seeds_of(saliency, recipe, box or (0, 0, height, width), size, shape)
    if seeds is None:
        return Cutout(empty, "flat", nothing)
    mask = _is_object(seeds)
    how: How = "threshold"
    if _COMPONENTS <= mask.sum() <= mask.size - _COMPONENTS:
        labels = seeds.copy()
        models = np.zeros((2, 1, 13 * _COMPONENTS))
        cv2.setRNGSeed(_RANDOM)  # of this thread's generator
        try:
            mode = cv2.GC_INIT_WITH_MASK
            cv2.grabCut(np.array(image), labels, None, *models, recipe.iterations, mode)
            mask, how = _is_object(labels), "grabcut"
        except cv2.error:  # an assertion that nobody has met yet costs one mask, not a run
            pass
    return Cutout(_enlarged(_largest_component(mask), size), how, seeds)


def shrunk(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) averaged down to `side` pixels of its longer side, or as it is."""
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return image
    scale = side / max(height, width)
    small = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(image).resize(small, Image.Resampling.BOX))


def opencv() -> Any:
    """Return the module cv2.

    Raises:
        OptionError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise OptionError(
            f"segmentation needs OpenCV ({error}); pip install 'fc7[segment]'"
        ) from error
    return cv2


def _is_object(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.isin(labels, (FOREGROUND, PROBABLY_FOREGROUND))


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest group of pixels that touch, if only at a corner."""
    from scipy.ndimage import label

    labels, count = label(mask, np.ones((3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    return np.asarray(labels == 1 + sizes[1:].argmax())


def _enlarged(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask at the size asked for, its outline as smooth as half of a pixel."""
    if mask.shape == size:
        return mask
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    enlarged = np.asarray(grey.resize(size[::-1], Image.Resampling.BILINEAR))
    return np.asarray(enlarged >= 128)
