"""The job of fast style: images in, pictures of their own sizes out, one pass each.

    run["stylize"]                  (N,), each a PNG file (or WebP) of its image's size
    run["stylize.scream"], ...      where each style of a network is asked for

Images of one size go together, always as many of them: where too few are left, the last one is
repeated. So a row's picture does not depend on which others there are, to the bit. A second job in
the same run, asked differently, is `stylize-2`. An image goes through whole, for its normalisation
looks at all of it: at a width of 32 that takes about a kilobyte a pixel.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data import Source
from fc7.engine.data.batches import batches_by_size, size_of
from fc7.engine.data.reader import Row
from fc7.engine.models.passes import LARGEST_BYTES
from fc7.engine.store import BYTES, Output, Yielded
from fc7.engine.store.fingerprint import software
from fc7.engine.store.job import RowStream
from fc7.engine.style.fast.options import StylizeOptions
from fc7.engine.style.fast.stylizer import ALL, Stylizer
from fc7.engine.synthesis.picture_files import encode_picture
from fc7.engine.synthesis.picture_rows import filled, read_pictures

TECHNIQUE = "stylize"

# Of one layer's results; all of them take about four times as much. No measure of what is free:
# a row's last bits depend on how many go together.
_LARGEST_BYTES_ON_A_GPU = 2 << 30


class Stylize:
    """A map from images to pictures in one or several styles.

    Args:
        stylizer: the network, on the device that computes.
        source: where the images come from.
        options: how.
        name: the job's name in the run: `stylize`, or `stylize-2` and so on.

    Attributes:
        name: likewise; whoever finds a better one in the run may change it.
        looks: shares of the styles by what is appended to an output's name, "" where there is one.
        asked: what distinguishes these pictures from others of the same images, as JSON.

    Raises:
        OptionError: an option is out of range, or there is no such style.
    """

    def __init__(
        self, stylizer: Stylizer, source: Source, options: StylizeOptions, name: str = TECHNIQUE
    ) -> None:
        options.check()
        self.name = name
        self._stylizer, self._source, self._options = stylizer, source, options
        self.looks = looks_of(stylizer, options.style)
        self.asked: dict[str, Any] = {
            "stylizer": stylizer.digest,
            "looks": {look: list(shares) for look, shares in self.looks.items()},
            "side": options.side,
            "form": options.form,
        }

    @property
    def outputs(self) -> list[Output]:
        """The pictures, by style."""
        pictures = self._stylizer.styles
        outputs = []
        for look, shares in self.looks.items():
            styles = [
                {"name": name, "share": share, "picture": base64.b64encode(picture).decode()}
                for (name, picture), share in zip(pictures.items(), shares, strict=True)
                if share > 0
            ]
            name = f"{self.name}{look}"
            about = {"technique": TECHNIQUE, "of": name, "styles": styles, **self.asked}
            outputs.append(Output(name, (), BYTES, about))
        return outputs

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, options and software; see `fc7.engine.store.fingerprint`."""
        return {
            "options": {
                **self.asked,
                "batch_rows": self._options.batch_rows,
                "device": self._stylizer.device.type,
            },
            "software": software(),
        }

    def notes(self) -> Mapping[str, Any]:
        """Where the network was, and what was said of the styles."""
        file = self._stylizer.file
        return {"network_file": None if file is None else str(file), "style": self._options.style}

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode ahead, at the images' own sizes."""
        options = self._options
        return read_pictures(self._source, numbers, options.side, options.threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Yielded]]:
        """Yield pictures as soon as enough images of a size are there."""
        for ready in batches_by_size(rows, self._together):
            yield self._stylized(ready)

    def _together(self, size: tuple[int, int]) -> int:
        """Return how many images of a size go through at once."""
        on_cpu = self._stylizer.device.type == "cpu"
        largest = 4 * 2 * self._stylizer.model.architecture.width * size[0] * size[1]
        most = LARGEST_BYTES if on_cpu else _LARGEST_BYTES_ON_A_GPU
        return max(1, min(self._options.batch_rows, most // largest))

    def _stylized(self, rows: list[Row]) -> tuple[NDArray[np.int64], Yielded]:
        padded = filled(rows, self._together(size_of(rows[0])))
        values = {
            f"{self.name}{look}": [
                encode_picture(picture, self._options.form)
                for picture in self._stylizer(padded, shares)[: len(rows)]
            ]
            for look, shares in self.looks.items()
        }
        return np.array([row.number for row in rows], dtype=np.int64), values


def looks_of(stylizer: Stylizer, style: str) -> dict[str, tuple[float, ...]]:
    """Return shares of the styles, (S,), by what is appended to an output's name.

    Args:
        stylizer: the network.
        style: as `StylizeOptions.style`.

    Raises:
        OptionError: there is no such style.
    """
    if style != ALL:
        return {"": stylizer.shares(style)}
    if len(stylizer.styles) == 1:
        return {"": (1.0,)}
    return {f".{name}": stylizer.shares(name) for name in stylizer.styles}
