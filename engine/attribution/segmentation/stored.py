"""Masks as a run holds them, read without the network and without OpenCV."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.segmentation.masks import decode_mask
from fc7.engine.attribution.segmentation.seeds import Recipe
from fc7.engine.store import Run
from fc7.engine.store.stored import StoredJob, stored_maps

TECHNIQUE = "segmentation"

DEFAULT_BATCH_ROWS = 16
"""Few enough that what a backward pass keeps stays below a gigabyte."""

DEFAULT_PART_ROWS = 128
"""A photograph takes a second or two of a CPU, and what a stop costs is up to one part."""


@dataclass(frozen=True)
class StoredSegmentation(StoredJob):
    """The masks of one segmentation job.

    Attributes:
        recipe: how a saliency map became a mask.
        rule: of the network's ReLUs on the way back, "plain" or "guided".
        target: "predicted", "label", or a class number.
        how: the ways in which a mask may have been found, by number.
        classes: how many the network has.
    """

    recipe: Recipe
    rule: str
    target: str | int
    how: tuple[str, ...]
    classes: int

    def mask(self, row: int) -> NDArray[np.bool_]:
        """Return one row's mask, bool (H, W), of its image's own size; (0, 0) of a bad row."""
        return decode_mask(self.file(row))

    def file(self, row: int) -> bytes:
        """Return one row's mask as a PNG file; no bytes of a bad row."""
        file: Any = self.job.run[self.name][row]
        return bytes(file)


def segmentations(run: Run) -> list[StoredSegmentation]:
    """Return the segmentation jobs of a run, finished or not, in the order they were begun."""
    return [
        StoredSegmentation(
            one.job,
            one.name,
            recipe=Recipe(**one.about["recipe"]),
            rule=str(one.about["rule"]),
            target=one.about["target"],
            how=tuple(one.about["how"]),
            classes=int(one.about["classes"]),
        )
        for one in stored_maps(run, TECHNIQUE)
    ]
