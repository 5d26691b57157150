"""How a transformer network is trained, and how a data set gets its styles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fc7.engine.errors import OptionError
from fc7.engine.store import Report
from fc7.engine.style.fast.transformer import Architecture
from fc7.engine.synthesis.picture_files import check_format
from fc7.engine.synthesis.picture_rows import check_rows

DEFAULT_BATCH_ROWS, DEFAULT_PART_ROWS = 8, 64


@dataclass(frozen=True)
class TrainStylizerOptions:
    """How a transformer network is trained.

    Attributes:
        steps: of Adam.
        batch_rows: images a step; they take turns with the styles.
        learning_rate: at the start; it falls to 0 along half a cosine.
        crop: the side in pixels of what is cut out of each image, at random. Images whose shorter
            side is less are enlarged to it, those of more than 9/8 of it shrunk to that.
        style_side: pixels that the longer side of a style's image has at most; twice the crop if
            None.
        content_weight: of the content's loss, the layers' losses weighted to one mean.
        style_weight: of the style's, likewise.
        variation: the weight of the squared differences between neighbours.
        style_layers: "NAME" or "NAME=WEIGHT"; the usual ones if empty.
        content_layers: likewise.
        width: see `Architecture`.
        blocks: likewise.
        norm: likewise.
        seed: of the first weights, the order of the images, and what is cut out of them.
        threads: decoding threads.
        part_rows: rows of a part, in a new run.
        checkpoint_seconds: from one checkpoint to the next; what a kill costs at most.
        report: called after each step.
    """

    steps: int = 2000
    batch_rows: int = 4
    learning_rate: float = 1e-3
    crop: int = 256
    style_side: int | None = None
    content_weight: float = 1.0
    style_weight: float = 5.0
    variation: float = 1e-3
    style_layers: Sequence[str] = ()
    content_layers: Sequence[str] = ()
    width: int = Architecture.width
    blocks: int = Architecture.blocks
    norm: str = Architecture.norm
    seed: int = 0
    threads: int = 2
    part_rows: int = 1024
    checkpoint_seconds: float = 60.0
    report: Report | None = None

    def architecture(self, styles: int) -> Architecture:
        """Return what the network for so many styles is made of."""
        return Architecture(self.width, self.blocks, self.norm, styles)

    @property
    def longest_style(self) -> int:
        """Pixels that the longer side of a style's image has at most."""
        return self.style_side or 2 * self.crop

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        for name, value, least in (
            ("steps", self.steps, 1),
            ("batch_rows", self.batch_rows, 1),
            ("crop", self.crop, 8),
            ("style_side", self.longest_style, 8),
            ("seed", self.seed, 0),
            ("threads", self.threads, 1),
        ):
            if value < least:
                raise OptionError(f"{name} is {value}; it is {least} or more")
        for name, weight in (
            ("learning_rate", self.learning_rate),
            ("style_weight", self.style_weight),
        ):
            if not 0 < weight < math.inf:
                raise OptionError(f"{name} is {weight}; it is above 0")
        for name, weight in (
            ("content_weight", self.content_weight),
            ("variation", self.variation),
        ):
            if not 0 <= weight < math.inf:
                raise OptionError(f"{name} is {weight}; it is 0 or more")

    @property
    def asked(self) -> dict[str, Any]:
        """What the weights depend on, as JSON."""
        names = ("steps", "batch_rows", "learning_rate", "crop", "style_side", "content_weight",
                 "style_weight", "variation", "width", "blocks", "norm", "seed")  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"style_side": self.longest_style}


@dataclass(frozen=True)
class StylizeOptions:
    """How a data set gets the styles of a network.

    Attributes:
        style: a name, several with weights, such as "scream=2,waves=1", or "all", each by itself.
        side: pixels of the longer side that images are resized to; their own size if None.
        form: of the pictures, "png", or "webp" with some loss.
        batch_rows: the most images of one size that go together.
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    style: str = "all"
    side: int | None = None
    form: str = "png"
    batch_rows: int = DEFAULT_BATCH_ROWS
    part_rows: int = DEFAULT_PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        check_format(self.form)
        check_rows(self.side, self.batch_rows, self.threads)
