"""The job of style transfer: contents by styles in, pictures of the contents' sizes out.

    run["style"]                (N,), each a PNG file (or WebP)
    run["style.first"]          (N, T) float32, the loss of each term where the picture starts
    run["style.last"]           (N, T) float32, and where it ends
    run["style.curve"]          (N, T, E) float32, after each evaluation, scale after scale
    run["style.evaluations"]    (N,) int64, until the picture stopped

Terms are "style LAYER", "content LAYER" and "variation", as the attributes of `style` list them,
without their weights. A content that is too small for the first scales begins with the next, and
its curve with a straight line.

Images of one size go together, always as many of them: where too few are left, the last one is
repeated. So a row's picture does not depend on which others there are, to the bit. A second job in
the same run, asked differently, is `style-2`.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fc7.engine.data.batches import batches_by_size, size_of
from fc7.engine.data.pairs import PairsSource
from fc7.engine.data.reader import Row
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.store import BYTES, Output, Yielded
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.style.grams import mixture
from fc7.engine.style.picture import VARIATION
from fc7.engine.style.transfer import Look, Transfer, images_together
from fc7.engine.style.transfer_options import StyleJobOptions, StyleOptions
from fc7.engine.synthesis.picture_files import encode_picture
from fc7.engine.synthesis.picture_rows import filled, read_pictures

TECHNIQUE = "style"

_LISTS = ("mix", "style_layers", "content_layers")


class Style:
    """A map from pairs of a content and a style to pictures.

    Args:
        network: the network, on the device that computes.
        source: contents by styles.
        options: how; a mix only where the styles stand together.
        name: the job's name in the run: `style`, or `style-2` and so on.

    Attributes:
        name: likewise; whoever finds a better one in the run may change it.
        asked: what distinguishes these pictures from others of the same pairs and network, as JSON.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range, or weights are not as many as styles.
    """

    def __init__(
        self,
        network: Network,
        source: PairsSource,
        options: StyleJobOptions,
        name: str = TECHNIQUE,
    ) -> None:
        options.check()
        self.name = name
        self._network, self._source, self._options = network, source, options
        self._shares = mixture(source.style_count if source.together else 1, options.mix)
        layers = options.layers(network)
        self._transfers: dict[int, Transfer] = {}
        self.terms = (*self._transfer(options.batch_rows).judge.terms, VARIATION)
        own = {field.name for field in dataclasses.fields(StyleOptions)}
        self.asked: dict[str, Any] = {
            **{name: getattr(options, name) for name in sorted(own)},
            "mix": self._shares,
            # In order, as the losses are; JSON's objects have none.
            "style_layers": [[name, share] for name, share in layers.style.items()],
            "content_layers": [[name, share] for name, share in layers.content.items()],
            "seed": options.seed if options.start == "noise" else None,
            "side": options.side,
            "form": options.form,
        }

    @property
    def outputs(self) -> list[Output]:
        """The pictures, and what stands beside them."""
        of = {"technique": TECHNIQUE, "of": self.name}
        count = len(self.terms)
        evaluations = self._options.evaluations * self._options.scales
        about = {
            **of,
            **self.asked,
            "terms": list(self.terms),
            # As they were written, for the command that makes the same again.
            "words": {name: list(getattr(self._options, name)) for name in _LISTS},
        }
        return [
            Output(self.name, (), BYTES, about),
            Output(f"{self.name}.first", (count,), "float32", of),
            Output(f"{self.name}.last", (count,), "float32", of),
            Output(f"{self.name}.curve", (count, evaluations), "float32", of),
            Output(f"{self.name}.evaluations", (), "int64", of),
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
        """Decode contents ahead."""
        options = self._options
        return read_pictures(self._source, numbers, options.side, options.threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Yielded]]:
        """Yield pictures as soon as enough images of a size are there."""
        for ready in batches_by_size(rows, self._together):
            yield self._paint(ready)

    def _together(self, size: tuple[int, int]) -> int:
        """Return how many images of a size go together."""
        return images_together(self._network, self._options, self._options.batch_rows, size)

    def _paint(self, rows: list[Row]) -> tuple[NDArray[np.int64], Yielded]:
        numbers = [row.number for row in rows]
        count = self._together(size_of(rows[0]))
        looks = self._looks(numbers)
        looks += looks[-1:] * (count - len(rows))
        transfer, size = self._transfer(count), size_of(rows[0])
        try:
            transfer.scales(size)
        except OptionError as error:
            raise OptionError(f"{self._source.key(numbers[0])}: {error}") from error
        found = transfer(filled(rows, count), looks)
        made = len(rows)
        ran = torch.stack([found.curves[term][:made] for term in self.terms], 1).cpu().numpy()
        whole = self._options.evaluations * self._options.scales
        curves = np.pad(ran, ((0, 0), (0, 0), (whole - ran.shape[2], 0)), mode="edge")
        values: dict[str, NDArray[Any] | list[bytes]] = {
            self.name: [encode_picture(image, self._options.form) for image in found.images[:made]],
            f"{self.name}.first": ran[:, :, 0],
            f"{self.name}.last": ran[:, :, -1],
            f"{self.name}.curve": curves,
            f"{self.name}.evaluations": found.evaluations[:made].cpu().numpy(),
        }
        return np.array(numbers, dtype=np.int64), values

    def _transfer(self, count: int) -> Transfer:
        """Return what paints so many images at once."""
        if count not in self._transfers:
            self._transfers[count] = Transfer(self._network, self._options, together=count)
        return self._transfers[count]

    def _looks(self, numbers: list[int]) -> list[Look]:
        """Return what each row shall look like; rows of one style share theirs."""
        known: dict[tuple[int, ...], Look] = {}
        for number in numbers:
            styles = tuple(self._source.styles_of(number))
            if styles not in known:
                images = [self._source.style(style) for style in styles]
                names = [f"style {self._source.style_key(style)}" for style in styles]
                known[styles] = Look(images, self._shares, names)
        return [known[tuple(self._source.styles_of(number))] for number in numbers]
