"""Class visualization as a job: an image for each class, channel or neuron, hundreds at once.

run["classes"]               (N, 3, H, W) uint8
run["classes.score"]         (N,) float32, the objective of that image as it is stored
run["classes.steps"]         (N,) int64
run["classes.status"]        (N,) uint8, into `STATUSES`
run["classes.curve"]         (N, steps) float32, what each step's image scored; NaN after the last
run["classes.predicted"]     (N,) int64, of classes alone: what the network says of the image
run["classes.probability"]   (N,) float32, likewise: of its class
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fc7.engine.data.targets import TargetsSource
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.store import Arrays, Output, Report
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.synthesis.judging import STATUSES, Judge, as_stored, course
from fc7.engine.synthesis.objectives import Objective, channel, neuron
from fc7.engine.synthesis.presets import DEFAULT, class_objective, recipe
from fc7.engine.synthesis.queue import AscentQueue, Made, Task

TECHNIQUE = "classes"
PART_ROWS = 16
"""Rows committed together, in a new run: a stop loses at most so many images."""


@dataclass(frozen=True)
class ClassesOptions:
    """How images of classes, channels or neurons are made.

    Attributes:
        preset: of `fc7.engine.synthesis.presets.PRESETS`.
        steps: instead of the preset's.
        neurons: of channels, whether the neuron in the middle is asked for, not the mean.
        size: height and width in pixels; the network's own if None. Classes need that.
        seed: of all that is random.
        batch_rows: images that ascend together.
        part_rows: rows committed together, in a new run.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    preset: str = DEFAULT
    steps: int | None = None
    neurons: bool = False
    size: tuple[int, int] | None = None
    seed: int = 0
    batch_rows: int = 16
    part_rows: int = PART_ROWS
    parts: str | None = None
    report: Report | None = None


@dataclass(frozen=True)
class TargetRow:
    """A row that needs no reading."""

    number: int
    bad: Exception | None = None


class TargetRows:
    """Rows of targets, as the runner asks for them."""

    seconds: Mapping[str, float] = {}

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = numbers

    def __iter__(self) -> Iterator[TargetRow]:
        return (TargetRow(number) for number in self._numbers)


class ClassImages:
    """A map from targets to images.

    Args:
        network: the network, on the device that computes.
        source: the targets.
        options: how.
        name: the job's name in the run.

    Raises:
        LayerError: the network has no such layer.
        OptionError: or no such unit, or an option is out of range.
    """

    def __init__(
        self,
        network: Network,
        source: TargetsSource,
        options: ClassesOptions,
        name: str = TECHNIQUE,
    ) -> None:
        self.name, self._network, self._source, self._options = name, network, source, options
        self._recipe = recipe(options.preset, network, options.steps)
        self._size = options.size or network.input_size
        if min(self._size) < 1:
            raise OptionError(f"size is {self._size}; write at least one pixel")
        for unit in source.units:
            self._objective(unit).check(network)
        form = self._objective(source.units[0])
        batch = min(options.batch_rows, options.part_rows, len(source))
        self._queue = AscentQueue(network, form, self._recipe, batch, self._size)
        self._judge = Judge(network, form, self._size, self._queue.together)

    @property
    def asked(self) -> dict[str, Any]:
        """What distinguishes this job from others of its technique."""
        options = self._options
        return {
            "preset": options.preset,
            "recipe": self._recipe.describe(),
            "layer": self._source.layer,
            "neurons": options.neurons,
            "size": list(self._size),
            "seed": options.seed,
        }

    @property
    def outputs(self) -> list[Output]:
        """The image, and what stands beside it."""
        of = {"technique": TECHNIQUE, "of": self.name}
        about = {**of, **self.asked, "statuses": list(STATUSES)}
        columns = {"score": "float32", "steps": "int64", "status": "uint8"}
        if self._source.layer is None:
            columns |= {"predicted": "int64", "probability": "float32"}
        return [
            Output(self.name, (3, *self._size), "uint8", about),
            Output(f"{self.name}.curve", (self._recipe.steps,), "float32", of),
            *(Output(f"{self.name}.{column}", (), dtype, of) for column, dtype in columns.items()),
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, recipe, and how many images went together."""
        return fingerprint_of(
            self._network,
            **self.asked,
            together=self._queue.together,
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were."""
        return weights_note(self._network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Return the rows: there is nothing to read."""
        return TargetRows(numbers)

    def run(self, rows: Iterator[TargetRow]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield images as they are finished."""
        for group in self._queue(self._task(row.number) for row in rows):
            yield np.array([made.row for made in group], dtype=np.int64), self._arrays(group)

    def _task(self, row: int) -> Task:
        target = self._source.target(row)
        seed = seed_of(self._options.seed, target.layer, target.unit, target.start)
        return Task(row, self._objective(target.unit), seed)

    def _objective(self, unit: int) -> Objective:
        layer = self._source.layer
        if layer is None:
            return class_objective(self._options.preset, unit)
        return neuron(layer, unit) if self._options.neurons else channel(layer, unit)

    def _arrays(self, group: list[Made]) -> Arrays:
        images = as_stored(group)
        units = [self._source.target(made.row).unit for made in group]
        scores, logits = self._judge(images.float() / 255, [self._objective(u) for u in units])
        found = {**course(group, self._recipe.steps), "score": scores.numpy()}
        if logits is not None:
            probabilities = logits.double().softmax(1)
            found["predicted"] = logits.argmax(1).numpy()
            found["probability"] = probabilities[torch.arange(len(units)), units].float().numpy()
        named = {f"{self.name}.{column}": array for column, array in found.items()}
        return {self.name: images.numpy(), **named}


def seed_of(seed: int, layer: str | None, unit: int, start: int) -> int:
    """Return a seed for one target, 0 to 2^63 - 1: another for each, the same in any company."""
    said = f"{seed}/{layer}/{unit}/{start}".encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest()) >> 1
