"""What a dream is asked for: a layer, one of its channels, or what it sees of a guide."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fc7.engine.errors import OptionError, SourceError
from fc7.engine.models import Network
from fc7.engine.store import Report
from fc7.engine.synthesis.dream import Dreamer, DreamOptions
from fc7.engine.synthesis.guide import guided_by
from fc7.engine.synthesis.objectives import Objective, activation_norm, channel
from fc7.engine.synthesis.picture_files import check_format, digest_of_picture, read_picture
from fc7.engine.synthesis.picture_rows import check_rows
from fc7.engine.words import number

DEFAULT_BATCH_ROWS = 8
DEFAULT_PART_ROWS = 16
"""A photograph takes seconds of a CPU, and what a stop costs is up to one part."""

# A guide's places are compared with the image's, each with each.
_GUIDE_SIDE = 256


@dataclass(frozen=True)
class DreamJobOptions(DreamOptions):
    """How a data set dreams.

    Attributes:
        layer: whose activation grows, a canonical name or module path.
        channel: the one of its channels that shall; all of them, by their norm, if None.
        guide: an image file; of what the layer sees, more of what it sees of this.
        side: pixels of the longer side that images are resized to; their own size if None.
        form: of the pictures, "png", or "webp" with some loss.
        batch_rows: the most images of one size that dream together.
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    layer: str = ""
    channel: int | None = None
    guide: str | Path | None = None
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
        if not self.layer:
            raise OptionError("which layer? name one, such as conv4; fc7 layers lists them")
        check_rows(self.side, self.batch_rows, self.threads)
        if self.channel is not None and self.guide is not None:
            raise OptionError("a channel and a guide are two questions; name one of them")


class Dreaming:
    """What options ask of a network: an objective, and what to know of it.

    Args:
        network: the network.
        options: how.

    Attributes:
        objective: of every row.
        asked: what distinguishes these dreams from others of the same images and network, as JSON.
        guide: the guide's name without its folder, or None.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range, or the guide cannot be used.
    """

    def __init__(self, network: Network, options: DreamJobOptions) -> None:
        options.check()
        network.layer(options.layer)  # found wrong before a guide is read
        self.guide = None if options.guide is None else Path(options.guide).name
        digest = None
        if options.guide is not None:
            self.objective, digest = _guided(network, options.layer, options.guide)
        elif options.channel is not None:
            self.objective = channel(options.layer, options.channel)
        else:
            self.objective = activation_norm(options.layer)
        self._network, self._options = network, options
        dreamer = self.dreamer(1)
        own = {field.name for field in dataclasses.fields(DreamOptions)}
        self.asked: dict[str, Any] = {
            "layer": options.layer,
            "channel": options.channel,
            "guide": digest,
            **{name: getattr(options, name) for name in sorted(own)},
            "tile": dreamer.tile,
            "side": options.side,
        }

    def dreamer(self, rows: int) -> Dreamer:
        """Return what dreams of so many rows at once."""
        return Dreamer(self._network, [self.objective] * rows, self._options)


def _guided(network: Network, layer: str, file: str | Path) -> tuple[Objective, str]:
    """Return the objective, and a digest of the guide."""
    try:
        guide = read_picture(file)
    except SourceError as error:
        raise OptionError(f"the guide {error}; name an image file") from error
    if max(guide.shape) > _GUIDE_SIDE:
        guide = read_picture(file, _GUIDE_SIDE)
    return guided_by(network, layer, guide), digest_of_picture(guide)


def gain_words(before: float, after: float) -> str:
    """Say how what was asked for rose: `x 7.1`, or both numbers where one has another sign."""
    if before > 0 and after > 0:
        return f"\u00d7 {number(after / before)}"
    return f"{number(before)} \u2192 {number(after)}"
