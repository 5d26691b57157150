"""What style transfer is asked for, of images at hand and of a data set."""

import math
from dataclasses import dataclass

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.store import Report
from fc7.engine.style.layers import StyleLayers, style_layers
from fc7.engine.style.picture import DescentOptions
from fc7.engine.synthesis.picture_files import check_format
from fc7.engine.synthesis.picture_rows import check_rows

STARTS = ("content", "noise")
POOLINGS = ("max", "average")
DEFAULT_BATCH_ROWS = 8
DEFAULT_PART_ROWS = 16
"""A picture takes minutes of a CPU, and what a stop costs is up to one part."""


@dataclass(frozen=True)
class StyleOptions(DescentOptions):
    """How images take on a style.

    Attributes:
        evaluations: at each scale; see `DescentOptions` for those not listed here.
        mix: how much each of several styles counts; all alike if empty.
        style_layers: see `style_layers`; the network's usual ones if empty.
        content_layers: likewise.
        style_weight: of the style losses, which add up to 1 or so at a picture without style.
        content_weight: of the content losses, likewise; 0 asks for the style alone.
        style_scale: the style image's longer side by the content's.
        scales: sizes of an image, its own among them; fewer where the smallest would be too small
            for the network.
        ratio: of one scale's side to the next smaller one's.
        start: "content", or "noise", each pixel drawn from [0, 1).
        keep_colours: whether luminance alone is painted, over the content's colours.
        pooling: "max" as the network has it, or "average", by which Gatys et al. found pictures
            slightly more pleasing.
        tile: the longest side in pixels of what goes through the network at once; larger images
            go in tiles, with the same result. So that a pass keeps no more than 2 GiB if None.
        seed: of the noise.
    """

    mix: tuple[float, ...] = ()
    style_layers: tuple[str, ...] = ()
    content_layers: tuple[str, ...] = ()
    style_weight: float = 1.0
    content_weight: float = 0.02
    variation: float = 0.01
    style_scale: float = 1.0
    scales: int = 1
    ratio: float = 2.0
    start: str = "content"
    keep_colours: bool = False
    pooling: str = "max"
    tile: int | None = None
    seed: int = 0

    def layers(self, network: Network) -> StyleLayers:
        """Return the layers of style and content, the latter none where it weighs nothing.

        Raises:
            LayerError: there is no such layer.
            OptionError: see `fc7.engine.style.layers.style_layers`.
        """
        has_content = self.content_weight > 0
        return style_layers(network, self.style_layers, self.content_layers, has_content)

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        super().check()
        for name in ("style_weight", "style_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.content_weight < math.inf:
            raise OptionError(f"content_weight is {self.content_weight}; it must be 0 or more")
        if self.scales < 1 or not 0 <= self.seed < 2**63:
            raise OptionError(
                f"scales is {self.scales} and seed {self.seed}; scales is 1 or more, seed from 0 "
                "to 2**63 - 1"
            )
        if not 1 < self.ratio < math.inf:
            raise OptionError(f"ratio is {self.ratio}; one scale is larger than the next, by 2")
        if self.tile is not None and self.tile < 1:
            raise OptionError(f"tile is {self.tile}; it is 1 or more")
        if self.pooling not in POOLINGS:
            raise OptionError(f"no pooling {self.pooling!r}; there are {' and '.join(POOLINGS)}")
        if self.start not in STARTS:
            raise OptionError(f"no start {self.start!r}; there are {' and '.join(STARTS)}")


@dataclass(frozen=True)
class StyleJobOptions(StyleOptions):
    """How a data set takes on styles.

    Attributes:
        side: pixels of the longer side that contents are resized to; their own size if None.
        form: of the pictures, "png", or "webp" with some loss.
        batch_rows: the most images of one size that go together.
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    side: int | None = None
    form: str = "png"
    batch_rows: int = DEFAULT_BATCH_ROWS
    part_rows: int = DEFAULT_PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        super().check()
        check_format(self.form)
        check_rows(self.side, self.batch_rows, self.threads)
