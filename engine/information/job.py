"""The job of silenced channels: images in, what is lost of each without every channel out.

    importance-inversion        (C,) float32, the channels of all convolutions one after the other

Names, paths, channels and offsets of the convolutions are its attributes, as those of
`importance.taylor`. Their means over the rows are one more criterion for `prune`, "inversion".
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fc7.engine.attribution.importance.convolutions import find_convolutions
from fc7.engine.attribution.importance.stored import (
    INVERSION,
    INVERSION_MEANS_JOB,
    attributes_of,
)
from fc7.engine.data import Source
from fc7.engine.data.batches import as_floats, batches, read_ahead
from fc7.engine.data.reader import Row
from fc7.engine.errors import OptionError
from fc7.engine.information.silenced import SilenceOptions, Silencer
from fc7.engine.models import Network
from fc7.engine.store import Arrays, Output, Report, Run, Summary, run_map
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.store.technique import begun, opened

PART_ROWS = 4
"""Rows committed together, in a new run: a row costs ten passes for every channel there is."""


@dataclass(frozen=True)
class InversionImportanceOptions(SilenceOptions):
    """How a data set's images are found again without channels.

    Attributes:
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each image.
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


class SilenceChannels:
    """A map from images to what is lost of each without every channel.

    Args:
        network: the network, on the device that computes.
        source: where the images come from.
        options: how.

    Raises:
        ModelError: the network has no convolutions.
        OptionError: an option is out of range.
    """

    name = INVERSION

    def __init__(
        self, network: Network, source: Source, options: InversionImportanceOptions
    ) -> None:
        options.check()
        self._network, self._source, self._options = network, source, options
        self._convolutions = find_convolutions(network.folded([]), network.layers)
        self._behind = _outermost(network, self._convolutions[-1].path)
        self._silencer = Silencer(network, self._behind, options)

    @property
    def outputs(self) -> list[Output]:
        """What is lost with every channel."""
        channels = sum(one.channels for one in self._convolutions)
        about = {"technique": INVERSION, **attributes_of(self._convolutions)}
        return [Output(INVERSION, (channels,), "float32", about)]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, transform, options and software; see `fc7.engine.store.fingerprint`."""
        options = self._options
        return fingerprint_of(
            self._network,
            behind=self._behind,
            evaluations=options.evaluations,
            variation=options.variation,
            colours=options.colours,
            together=self._silencer.together,
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were, for those who want the same network again."""
        return weights_note(self._network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode and transform ahead."""
        return read_ahead(self._source, numbers, self._network.transform, 1, self._options.threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield what each image loses, in turn."""
        for batch in batches(rows, 1):
            images = as_floats([row.image for row in batch if row.image is not None], _CPU)
            image = images.div_(255)[0]
            found = [self._silencer(image, one.path, one.channels) for one in self._convolutions]
            numbers = np.array([row.number for row in batch], dtype=np.int64)
            yield numbers, {INVERSION: torch.cat(found).numpy()[None]}


class InversionMeans:
    """The fold from what each image loses to the mean: `rise`, (C,) float64; `rows`, () int64."""

    name = INVERSION_MEANS_JOB
    inputs = (INVERSION,)

    def fingerprint(self) -> Mapping[str, Any]:
        """Nothing but its inputs."""
        return {"mean": "of rows, in float64"}

    def part(self, rows: NDArray[np.int64], arrays: Arrays) -> Arrays:
        """Return the sums of one part."""
        total = arrays[INVERSION].sum(0, dtype=np.float64)
        return {"rise": total, "rows": np.array([len(rows)], np.int64)}

    def merge(self, state: Arrays, later: Arrays) -> Arrays:
        """Add sums to sums."""
        return {name: state[name] + later[name] for name in state}

    def finish(self, state: Arrays) -> Arrays:
        """Divide by the number of rows; without any, the means are 0."""
        rows = state["rows"][0]
        return {"rise": state["rise"] / max(1, int(rows)), "rows": np.array(rows)}


def inversion_importance(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: InversionImportanceOptions | None = None,
) -> Run:
    """Measure the rise of inversion error; see `inversion_importance_with_summary`."""
    return inversion_importance_with_summary(data, model, out, options)[0]


def inversion_importance_with_summary(
    data: str | Path | Source,
    model: str | Network,
    out: str | Path,
    options: InversionImportanceOptions | None = None,
) -> tuple[Run, Summary]:
    """Measure what is lost of a data set's images without each channel, into a run.

    A run that was begun is continued.

        run["importance-inversion"]       (N, C), the channels of all convolutions
        read_importance(run)              their means among the others, where `importance` was asked

    Args:
        data: a source, or what names one: a folder, tars, Parquet files, `shapes:N:SEED`. Some
            dozen rows do; each costs `evaluations` passes for every channel.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how.

    Returns:
        The run, and what the job did.

    Raises:
        FingerprintError: the run in `out` has another source or network, or the job was begun
            with another size of a batch or on another device.
        ModelError: the network has no convolutions.
        OptionError: an option is out of range.
    """
    options = options or InversionImportanceOptions()
    source, network = opened(data, model)
    job = SilenceChannels(network, source, options)
    run = begun(source, network, out, options.part_rows)
    return run, run_map(run, job, [InversionMeans()], options.parts, options.report)


def _outermost(network: Network, path: str) -> str:
    """Return the largest block that a module lies in: what runs beside it flows into that too."""
    parts = path.split(".")
    blocks = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next(block for block in blocks if block in network.every_layer)


_CPU = torch.device("cpu")
