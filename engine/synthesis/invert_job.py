"""The job of inversion: images in, and what is left of each behind a layer.

    run["invert-conv3"]                 (N, 3, H, W) uint8
    run["invert-conv3.error"]           (N,) float32, of the features; see `Inversions`
    run["invert-conv3.pixel_error"]     (N,) float32
    run["invert-conv3.evaluations"]     (N,) int64
    run["invert-conv3.curve"]           (N, evaluations) float32

Errors are those of the image as it is stored, rounded to 256 levels. There is a job for every
layer, so that another layer can join a run; asked differently, it is `invert-conv3-2`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.data import Source
from fc7.engine.data.batches import as_floats, batches, read_ahead
from fc7.engine.data.reader import Row
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.store import Arrays, Output, Report, Run, Summary
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.store.technique import carry_out, opened
from fc7.engine.synthesis.invert import Inversions, Inverter, InvertOptions

TECHNIQUE = "invert"
PART_ROWS = 16
"""Rows committed together, in a new run: a stop loses at most so many images."""


@dataclass(frozen=True)
class InvertJobOptions(InvertOptions):
    """How a data set is inverted.

    Attributes:
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    part_rows: int = PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        super().check()
        if self.threads < 1:
            raise OptionError(f"threads is {self.threads}; it must be 1 or more")


class Invert:
    """A map from images to what is found of them behind a layer.

    Args:
        network: the network, on the device that computes.
        source: where the images come from.
        layer: a canonical name or module path.
        options: how.

    Attributes:
        name: the job's name in the run. Whoever finds a better one in the run may change it.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range.
    """

    def __init__(
        self, network: Network, source: Source, layer: str, options: InvertJobOptions
    ) -> None:
        self._inverter = Inverter(
            network, layer, options, count=min(len(source), options.part_rows)
        )
        self._layer = network.layer(layer).name
        self.name = f"{TECHNIQUE}-{self._layer}"
        self._network, self._source, self._options = network, source, options

    @property
    def asked(self) -> dict[str, Any]:
        """What distinguishes this job from others of its technique."""
        return {"layer": self._layer, **self._inverter.describe()}

    @property
    def outputs(self) -> list[Output]:
        """The image, and what stands beside it."""
        of = {"technique": TECHNIQUE, "of": self.name}
        evaluations = self._options.evaluations
        return [
            Output(self.name, (3, *self._network.input_size), "uint8", {**of, **self.asked}),
            Output(f"{self.name}.error", (), "float32", of),
            Output(f"{self.name}.pixel_error", (), "float32", of),
            Output(f"{self.name}.evaluations", (), "int64", of),
            Output(f"{self.name}.curve", (evaluations,), "float32", of),
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, options, software, and how many images go together."""
        return fingerprint_of(
            self._network,
            **self.asked,
            together=self._inverter.together,
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were."""
        return weights_note(self._network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode and transform ahead."""
        options, transform = self._options, self._network.transform
        together = self._inverter.together
        return read_ahead(self._source, numbers, transform, together, options.threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield what is found of each batch in turn."""
        for batch in batches(rows, self._inverter.together):
            images = [row.image for row in batch if row.image is not None]
            found, levels = self.forward(images)
            arrays = {
                self.name: levels,
                f"{self.name}.error": found.errors,
                f"{self.name}.pixel_error": found.pixel_errors,
                f"{self.name}.evaluations": found.evaluations,
                f"{self.name}.curve": found.curves,
            }
            yield (
                np.array([row.number for row in batch], dtype=np.int64),
                {name: values.cpu().numpy() for name, values in arrays.items()},
            )

    def forward(self, batch: Sequence[Tensor]) -> tuple[Inversions, Tensor]:
        """Return what is found of uint8 images, each (3, H, W), and it as uint8 (B, 3, H, W)."""
        images = as_floats(batch, torch.device("cpu")).div_(255).contiguous()
        found = self._inverter(images)
        levels = found.images.mul(255).round().byte()
        return self._inverter.judged(found, levels.float() / 255, images), levels


def invert(
    data: str | Path | Source,
    model: str | Network,
    layers: Sequence[str],
    out: str | Path,
    options: InvertJobOptions | None = None,
) -> Run:
    """Invert a data set in a run; see `invert_with_summaries`."""
    return invert_with_summaries(data, model, layers, out, options)[0]


def invert_with_summaries(
    data: str | Path | Source,
    model: str | Network,
    layers: Sequence[str],
    out: str | Path,
    options: InvertJobOptions | None = None,
) -> tuple[Run, list[Summary]]:
    """Find the images of a data set again from what layers return of them.

    A run that was begun is continued, and other layers join it.

        run["invert-conv3"]              (N, 3, H, W) uint8; see `Invert` for the rest

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`.
        model: a network, or the name of one, with its default weights.
        layers: canonical names or module paths, at least one.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what the job of each layer did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or these inversions were
            begun with another size of a batch or on another device.
        LayerError: there is no such layer.
        OptionError: an option is out of range.
        QuestionError: nothing flows back to the pixels, or a layer's answer is not finite.
    """
    options = options or InvertJobOptions()
    source, network = opened(data, model)
    if not layers:
        raise OptionError("from which layer? name one, such as conv5")
    jobs = [Invert(network, source, layer, options) for layer in layers]
    done = [carry_out(job, source, network, out, options) for job in jobs]
    return done[-1][0], [summary for _, summary in done]
