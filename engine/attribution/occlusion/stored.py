"""Occlusion maps as a run holds them, read without the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fc7.engine.store import PartedArray, Run
from fc7.engine.store.stored import StoredJob, StoredMaps, stored_maps
from fc7.engine.words import share

TECHNIQUE = "occlusion"

DEFAULT_PART_ROWS = 32
"""An image takes seconds to minutes of a CPU, and what a stop costs is up to one part."""


@dataclass(frozen=True)
class StoredOcclusion(StoredJob):
    """The maps of one occlusion job.

    Attributes:
        window: side of the square in pixels.
        stride: pixels from one place to the next.
        fill: what covers, (r, g, b) in [0, 1].
        score: "probability" or "logit".
        target: "predicted", "label", or a class number.
        approximation: None for exact maps.
        size: height and width of the images in pixels.
        classes: how many the network has.
    """

    window: int
    stride: int
    fill: tuple[float, float, float]
    score: str
    target: str | int
    approximation: Mapping[str, Any] | None
    size: tuple[int, int]
    classes: int

    @property
    def approximation_words(self) -> str:
        """What is approximate, for people; nothing where the maps are exact."""
        return approximation_words(self.approximation)

    @property
    def drops(self) -> PartedArray:
        """The maps, (N, rows, columns) float32."""
        return self.job.run[self.name]


def approximation_words(approximation: Mapping[str, Any] | None) -> str:
    """Return what is approximate, for people: `coarse to fine` or `growth up to 50 %`."""
    if approximation is None:
        return ""
    if approximation["name"] == "refine":
        every, region = approximation["every"], share(approximation["region"])
        return f"coarse to fine, 1 place in {every} but for the strongest {region} of each side"
    return f"growth up to {share(approximation['growth'])} of each side"


def output_name(job: str) -> str:
    """Return the name of a job's maps: `occlusion-2` of `occlude-2`."""
    return "occlusion" + job.removeprefix("occlude")


def occlusions(run: Run) -> list[StoredOcclusion]:
    """Return the occlusion jobs of a run, finished or not, in the order they were begun."""
    return [_read(one) for one in stored_maps(run, TECHNIQUE)]


def _read(one: StoredMaps) -> StoredOcclusion:
    about = one.about
    height, width = about["size"]
    red, green, blue = about["fill"]
    return StoredOcclusion(
        one.job,
        one.name,
        window=int(about["window"]),
        stride=int(about["stride"]),
        fill=(red, green, blue),
        score=str(about["score"]),
        target=about["target"],
        approximation=about["approximation"],
        size=(height, width),
        classes=int(about["classes"]),
    )
