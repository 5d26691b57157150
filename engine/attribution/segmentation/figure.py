"""One mask as a picture to keep: image, saliency, seeds and overlay."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc7.engine.attribution.segmentation.grabcut import How
from fc7.engine.attribution.segmentation.pictures import (
    overlaid,
    saliency_picture,
    seeds_picture,
)
from fc7.engine.attribution.segmentation.seeds import Recipe, recipe_words
from fc7.engine.data.transform import Box
from fc7.engine.drawing import sheet as sheets
from fc7.engine.drawing.sheet import Sheet
from fc7.engine.words import share

_WORDS: dict[How, str] = {
    "grabcut": "found by GrabCut",
    "threshold": "GrabCut could not be asked: where the map is highest",
    "flat": "nothing found, for the map tells no pixel from another",
    "not-finite": "nothing found, for the map is not finite",
}


@dataclass(frozen=True)
class SegmentedImage:
    """A mask and what to know of it.

    Attributes:
        key: the image's name.
        image: uint8 (h, w, 3), the whole image, perhaps shrunk.
        mask: bool (H, W), at the image's own size.
        how: how it was found.
        seeds: uint8, what GrabCut was told.
        saliency: float32, the map of what the network sees.
        box: where that lies, in pixels of the image at its own size.
        recipe: how the map became a mask.
        rule: of the ReLUs on the way back, "plain" or "guided".
        target: name of the class that is asked about.
        probability: of that class.
        predicted: name of the class that the network predicts.
    """

    key: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    how: How
    seeds: NDArray[np.uint8]
    saliency: NDArray[np.float32]
    box: Box
    recipe: Recipe
    rule: str
    target: str
    probability: float
    predicted: str

    @property
    def area(self) -> float:
        """The mask's share of the image's pixels."""
        return float(self.mask.mean())

    @property
    def how_words(self) -> str:
        """How the mask was found, for people."""
        return _WORDS[self.how]


def figure(found: SegmentedImage) -> Sheet:
    """Lay out image, saliency, seeds and overlay."""
    size = found.mask.shape[0], found.mask.shape[1]
    photograph = sheets.enlarged(found.image, size)
    shape = photograph.size[1], photograph.size[0]
    says = "the predicted class"
    if found.predicted != found.target:
        says = f"was asked for; the predicted class is {found.predicted}"
    gradient = "guided gradient" if found.rule == "guided" else "gradient"
    pictures = (
        (saliency_picture(found.saliency, found.box, size, shape), f"saliency: the {gradient}"),
        (seeds_picture(found.seeds, shape), "seeds: red object, blue background"),
        (overlaid(np.asarray(photograph), found.mask), f"mask, {share(found.area)} of the image"),
    )
    panels = [(Image.fromarray(picture), caption) for picture, caption in pictures]
    return Sheet(
        title=found.target,
        value=share(found.probability),
        says=says,
        panels=[(photograph, found.key), *panels],
        foot=f"{found.how_words}; {recipe_words(found.recipe)}",
    )
