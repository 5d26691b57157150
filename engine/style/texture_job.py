"""The job of textures: patches in, pictures of any size out, and how near they came.

    run["texture"]                  (N,), each a PNG file
    run["texture.2"]                likewise of the second sample, and so on
    run["texture.before"]           (N, samples) float32, the loss of the noise
    run["texture.after"]            (N, samples) float32, of the picture; see `Textures`
    run["texture.losses"]           (N, samples, layers) float32, without weights
    run["texture.curves"]           (N, samples, layers, evaluations) float32

Patches of one size go together, always as many of them: where too few are left, the last one is
repeated. So a row's texture does not depend on which others there are, to the bit. A second job in
the same run, asked differently, is `texture-2`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.data import Source
from fc7.engine.data.batches import batches_by_size, size_of
from fc7.engine.data.reader import Row
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.passes import images_a_pass
from fc7.engine.store import BYTES, Output, Run, Summary, Yielded
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.store.technique import carry_out, opened
from fc7.engine.style.picture import over_all
from fc7.engine.style.texture import Synthesiser, Textures
from fc7.engine.style.texture_options import TextureJobOptions
from fc7.engine.synthesis.keyed import keys_of_rows
from fc7.engine.synthesis.picture_files import encode_picture
from fc7.engine.synthesis.picture_rows import filled, read_pictures
from fc7.engine.synthesis.randomness import Keys

TECHNIQUE = "texture"


class Texture:
    """A map from patches to textures.

    Args:
        network: the network, on the device that computes.
        source: where the patches come from.
        options: how.
        name: the job's name in the run: `texture`, or `texture-2` and so on.

    Attributes:
        name: likewise; whoever finds a better one in the run may change it.
        asked: what distinguishes these textures from others of the same patches and network.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range.
    """

    def __init__(
        self, network: Network, source: Source, options: TextureJobOptions, name: str = TECHNIQUE
    ) -> None:
        self.name = name
        self._network, self._source, self._options = network, source, options
        self._synthesiser = Synthesiser(network, options)
        self.asked: dict[str, Any] = options.asked(self._synthesiser)

    @property
    def outputs(self) -> list[Output]:
        """The pictures, and what stands beside them."""
        of = {"technique": TECHNIQUE, "of": self.name}
        samples, layers = self._options.samples, len(self._synthesiser.layers)
        shapes = {
            "before": (samples,),
            "after": (samples,),
            "losses": (samples, layers),
            "curves": (samples, layers, self._options.evaluations),
        }
        pictures = picture_names(self.name, samples)
        return [
            Output(
                self.name,
                (),
                BYTES,
                {**of, **self.asked, "layers_asked": list(self._options.layers)},
            ),
            *(Output(name, (), BYTES, of) for name in pictures[1:]),
            *(
                Output(f"{self.name}.{what}", shape, "float32", of)
                for what, shape in shapes.items()
            ),
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
        """Decode ahead, at the patches' own sizes."""
        options = self._options
        return read_pictures(self._source, numbers, options.side, options.threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Yielded]]:
        """Yield textures as soon as enough patches of a size are there."""
        for ready in batches_by_size(self._checked(rows), self._together):
            yield self._made(ready)

    def _checked(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows; of a patch that will not do, say which it is."""
        for row in rows:
            try:
                self._synthesiser.size(size_of(row))
            except OptionError as error:
                raise OptionError(f"{self._source.key(row.number)}: {error}") from error
            yield row

    def _together(self, patch: tuple[int, int]) -> int:
        """Return how many patches of a size go at once."""
        size = self._synthesiser.size(patch)
        return images_a_pass(self._network, self._options.batch_rows, size)

    def _made(self, rows: list[Row]) -> tuple[NDArray[np.int64], Yielded]:
        numbers = [row.number for row in rows]
        count = self._together(size_of(rows[0]))
        patches, more = filled(rows, count), count - len(rows)
        made = [
            self._synthesiser(
                patches, sample_keys(self._options.seed, numbers + numbers[-1:] * more, sample)
            )
            for sample in range(self._options.samples)
        ]
        values: dict[str, NDArray[Any] | list[bytes]] = {
            name: [encode_picture(image) for image in one.images[: len(rows)]]
            for name, one in zip(picture_names(self.name, len(made)), made, strict=True)
        }
        for what, found in _columns(made, self._options.evaluations).items():
            values[f"{self.name}.{what}"] = found[: len(rows)].cpu().numpy()
        return np.array(numbers, dtype=np.int64), values


def picture_names(name: str, samples: int) -> list[str]:
    """Return the outputs that pictures are under: `texture`, `texture.2`, `texture.3`."""
    return [name, *(f"{name}.{sample}" for sample in range(2, samples + 1))]


def sample_keys(seed: int, rows: Sequence[int], sample: int) -> Keys:
    """Return the keys of some rows' noise, of one of their samples."""
    return keys_of_rows(seed, rows, [sample] * len(rows))


def _columns(made: Sequence[Textures], evaluations: int) -> dict[str, Tensor]:
    """Return what stands beside the pictures, (N, samples, ...); `made` has one a sample."""
    curves = [over_all(torch.stack([*one.curves.values()], 1), evaluations) for one in made]
    return {
        "before": torch.stack([one.before for one in made], 1),
        "after": torch.stack([one.after for one in made], 1),
        "losses": torch.stack([torch.stack([*one.losses.values()], 1) for one in made], 1),
        "curves": torch.stack(curves, 1),
    }


def texture(
    patches: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: TextureJobOptions | None = None,
) -> Run:
    """Make textures of a data set in a run; see `texture_with_summary`."""
    return texture_with_summary(patches, model, out, options or TextureJobOptions())[0]


def texture_with_summary(
    patches: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: TextureJobOptions,
) -> tuple[Run, Summary]:
    """Make textures of a data set in a run: each patch goes on in a picture of any size.

    A run that was begun is continued. Textures that are asked for differently join it under a name
    of their own: `texture-2` beside `texture`.

        run["texture"]                (N,), PNG files; see `Texture` for the rest

    Args:
        patches: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what its job did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or these textures were
            begun with another size of a batch or on another device.
        LayerError: there is no such layer.
        OptionError: an option is out of range, or a patch or the picture is too small.
        QuestionError: nothing flows back to the pixels.
    """
    source, network = opened(patches, model)
    return carry_out(Texture(network, source, options), source, network, out, options)
