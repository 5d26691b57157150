"""The job of dreams: images in, pictures of their own sizes out, and what they gained.

    run["dream"]            (N,), each a PNG file (or WebP) of its image's size
    run["dream.gain"]       (N,) float32, by how much what is asked for rose, as a share
    run["dream.before"]     (N,) float32, of the image; see `fc7.engine.synthesis.terms`
    run["dream.after"]      (N,) float32, of the dream

Images of one size dream together, always as many of them: where too few are left, the last one is
repeated. So a row's dream does not depend on which others there are, to the bit. A second job in
the same run, asked differently, is `dream-2`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data import Source
from fc7.engine.data.batches import batches_by_size, size_of
from fc7.engine.data.reader import Row
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.passes import images_a_pass
from fc7.engine.store import BYTES, Output, Yielded
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.synthesis.dream_options import Dreaming, DreamJobOptions
from fc7.engine.synthesis.picture_files import encode_picture
from fc7.engine.synthesis.picture_rows import filled, read_pictures

TECHNIQUE = "dream"


class Dream:
    """A map from images to dreams.

    Args:
        network: the network, on the device that computes.
        source: where the images come from.
        options: how.
        name: the job's name in the run: `dream`, or `dream-2` and so on.

    Attributes:
        name: likewise; whoever finds a better one in the run may change it.
        asked: what distinguishes these dreams from others of the same images and network, as JSON.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range, or the guide cannot be used.
    """

    def __init__(
        self, network: Network, source: Source, options: DreamJobOptions, name: str = TECHNIQUE
    ) -> None:
        self.name = name
        self._network, self._source, self._options = network, source, options
        self._dreaming = Dreaming(network, options)
        self._dreamer = self._dreaming.dreamer(options.batch_rows)
        self.asked: dict[str, Any] = {**self._dreaming.asked, "form": options.form}

    @property
    def outputs(self) -> list[Output]:
        """The pictures, and what stands beside them."""
        of = {"technique": TECHNIQUE, "of": self.name}
        about = {
            **of,
            **self.asked,
            "guide_name": self._dreaming.guide,
            "tile_asked": self._options.tile,
        }
        return [
            Output(self.name, (), BYTES, about),
            *(Output(f"{self.name}.{what}", (), "float32", of) for what in _COLUMNS),
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, options and software; see `fc7.engine.store.fingerprint`."""
        return fingerprint_of(
            self._network,
            **self.asked,
            batch_rows=self._options.batch_rows,
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were."""
        return weights_note(self._network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode ahead, at the images' own sizes."""
        options = self._options
        return read_pictures(self._source, numbers, options.side, options.threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Yielded]]:
        """Yield dreams as soon as enough images of a size are there."""
        for ready in batches_by_size(rows, self._together):
            yield self._dream(ready)

    def _together(self, size: tuple[int, int]) -> int:
        """Return how many images of a size dream at once."""
        return images_a_pass(self._network, self._options.batch_rows, size)

    def _dream(self, rows: list[Row]) -> tuple[NDArray[np.int64], Yielded]:
        count = self._together(size_of(rows[0]))
        try:
            dreams = self._dreamer(filled(rows, count), [self._options.seed] * count)
        except OptionError as error:
            raise OptionError(f"{self._source.key(rows[0].number)}: {error}") from error
        values: dict[str, NDArray[Any] | list[bytes]] = {
            self.name: [
                encode_picture(image, self._options.form) for image in dreams.images[: len(rows)]
            ]
        }
        for what in _COLUMNS:
            found = getattr(dreams, what)[: len(rows)]
            values[f"{self.name}.{what}"] = found.cpu().numpy()
        return np.array([row.number for row in rows], dtype=np.int64), values


_COLUMNS = ("gain", "before", "after")
