"""The job of adversarial examples: images in, what must be added to them out.

A row's result is `fool`, (3, H, W), the change of the pixels in [0, 1] of what the network sees;
`StoredFool.adversarial` adds it. Beside it stand, one number a row:

    fool.success          uint8, 1 where the changed image fools the network
    fool.success_8bit     uint8, 1 where it does after its pixels are rounded to 8 bits
    fool.l2               float32, Euclidean norm of the change
    fool.linf             float32, the largest change of a pixel
    fool.evaluations      int64, gradient evaluations used
    fool.predicted        int64, the class predicted before
    fool.probability      float32, its probability
    fool.target           int64, the class gone for; untargeted, the class to be left
    fool.target_before    float32, its probability before
    fool.target_after     float32, and afterwards
    fool.became           int64, the class predicted afterwards
    fool.certainty        float32, its probability

Changes are kept, not images: the smallest that fool a large network are below half a step of 8
bits, so that a picture file would hold none of them. What is kept has few bits too, so everything
said of a row is of the image as it is read back: the change is rounded to its dtype, added, and
passed through the network as it was loaded. A second job in the same run, asked differently, is
`fool-2`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.data.batches import as_floats, read_ahead
from fc7.engine.data.reader import Row
from fc7.engine.data.source import Source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import class_count, classes_of_rows
from fc7.engine.store import Arrays, Output, Report
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.synthesis.attack_options import AttackOptions
from fc7.engine.synthesis.fool import BATCH_ROWS, Fooling, sizes
from fc7.engine.synthesis.goals import RANDOM, Goals
from fc7.engine.synthesis.places import Attacked
from fc7.engine.synthesis.stored_fool import TECHNIQUE

PART_ROWS = 128
"""An attack takes some hundred passes, and what a stop costs is up to one part."""

_DTYPES: Mapping[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}
_COLUMNS = {
    "success": "uint8",
    "success_8bit": "uint8",
    "l2": "float32",
    "linf": "float32",
    "evaluations": "int64",
    "predicted": "int64",
    "probability": "float32",
    "target": "int64",
    "target_before": "float32",
    "target_after": "float32",
    "became": "int64",
    "certainty": "float32",
}


@dataclass(frozen=True)
class FoolOptions(AttackOptions):
    """How to attack a data set.

    Attributes:
        target: "random", any class but the predicted one and the row's label; "least-likely";
            "next", the number after the predicted one; "untargeted"; or a class by number or name.
        dtype: of stored changes, float16 or float32.
        batch_rows: images attacked together.
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called as rows are done.
    """

    target: str | int = RANDOM
    dtype: str = "float16"
    batch_rows: int = BATCH_ROWS
    part_rows: int = PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None


@dataclass(frozen=True)
class Result:
    """What is kept of B rows.

    Attributes:
        rows: (B,), their numbers.
        clean: (B, 3, H, W) float32, what the network sees.
        changes: (B, 3, H, W), in the dtype that is stored.
        columns: by name, (B,).
    """

    rows: NDArray[np.int64]
    clean: Tensor
    changes: Tensor
    columns: Mapping[str, Tensor]


class Fool:
    """A map from images to changes that fool the network.

    Args:
        network: the network, on the device that computes.
        source: where the images come from.
        options: how.
        name: the job's name in the run: `fool`, or `fool-2` and so on.

    Attributes:
        name: likewise; whoever finds a better one in the run may change it.
        asked: what distinguishes this job from others of its technique, as JSON.

    Raises:
        OptionError: an option is out of range, or there is no such class.
        QuestionError: nothing flows back to the pixels.
    """

    def __init__(
        self, network: Network, source: Source, options: FoolOptions, name: str = TECHNIQUE
    ) -> None:
        if options.threads < 1 or options.batch_rows < 1:
            raise OptionError(
                f"batch_rows is {options.batch_rows}, threads {options.threads}; each is 1 or more"
            )
        if options.dtype not in _DTYPES:
            raise OptionError(f"no dtype {options.dtype!r}; there are {' and '.join(_DTYPES)}")
        self.name = name
        self._network, self._source, self._options = network, source, options
        self._classes = class_count(network)
        labels = _labels(source, network, self._classes)
        self._goals = Goals(options.target, network, self._classes, options.seed, labels)
        self.asked: dict[str, Any] = {
            **options.asked(),
            "target": self._goals.asked,
            "dtype": options.dtype,
        }
        size = network.input_size
        self._fooling = Fooling(network, self._goals, options, options.batch_rows, size)
        self._fooling.check()

    @property
    def outputs(self) -> list[Output]:
        """The change, and what stands beside it."""
        of = {"technique": TECHNIQUE, "of": self.name}
        about = {**of, **self.asked, "classes": self._classes}
        shape = (3, *self._network.input_size)
        return [
            Output(self.name, shape, self._options.dtype, about),
            *(Output(f"{self.name}.{name}", (), dtype, of) for name, dtype in _COLUMNS.items()),
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, transform, options and software; see `fc7.engine.store.fingerprint`."""
        return fingerprint_of(
            self._network,
            **self.asked,
            batch_rows=self._options.batch_rows,
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were."""
        return weights_note(self._network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode and transform ahead."""
        options, transform = self._options, self._network.transform
        return read_ahead(self._source, numbers, transform, options.batch_rows, options.threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield rows as their attacks end."""
        for found in self.attack((row.number, row.image) for row in rows if row.image is not None):
            arrays = {f"{self.name}.{name}": of.cpu().numpy() for name, of in found.columns.items()}
            yield found.rows, {self.name: found.changes.cpu().numpy(), **arrays}

    def attack(self, images: Iterable[tuple[int, Tensor]]) -> Iterator[Result]:
        """Yield what is kept of rows with their images, uint8 (3, H, W), as their attacks end."""
        device = self._network.device
        starts = ((row, as_floats([image], device).div_(255)[0]) for row, image in images)
        ended: list[Attacked] = []
        for one in self._fooling.attack(starts):
            ended.append(one)
            if len(ended) == self._options.batch_rows:
                yield self._result(ended)
                ended = []
        if ended:
            yield self._result(ended)

    def _result(self, ended: list[Attacked]) -> Result:
        """Round what is kept, and judge what will be read back."""
        clean = torch.stack([one.clean for one in ended])
        changes = self._rounded(torch.stack([one.image for one in ended]) - clean)
        adversarial = changed(clean, changes)
        goals = torch.tensor([one.goal for one in ended], device=clean.device)
        before, after = (self._fooling.judge(images, goals) for images in (clean, adversarial))
        coarse = self._fooling.judge(adversarial.mul(255).round_().div_(255), goals)
        l2, linf = sizes(adversarial - clean)
        values = (
            after.success.byte(), coarse.success.byte(), l2, linf,
            torch.tensor([one.evaluations for one in ended]),
            before.predicted, before.probability, goals, before.of_goal, after.of_goal,
            after.predicted, after.probability,
        )  # fmt: skip
        rows = np.array([one.row for one in ended], dtype=np.int64)
        return Result(rows, clean, changes, dict(zip(_COLUMNS, values, strict=True)))

    def _rounded(self, changes: Tensor) -> Tensor:
        """Return changes in the dtype that is kept; none is rounded beyond the bound."""
        kept = changes.to(_DTYPES[self._options.dtype])
        bound = self._options.bound
        if bound is None:
            return kept
        kind = np.dtype(self._options.dtype).type
        most = kind(bound)
        if float(most) > bound:
            most = np.nextafter(most, kind(0))
        return kept.clamp_(-float(most), float(most))


def changed(clean: Tensor, changes: Tensor) -> Tensor:
    """Return the adversarial images, (N, 3, H, W) float32, that changes of images make."""
    return (clean + changes.to(clean.device, torch.float32)).clamp_(0, 1)


def _labels(source: Source, network: Network, classes: int) -> NDArray[np.int64] | None:
    try:
        return classes_of_rows(source, network, classes)
    except OptionError:  # without labels, or with those of other classes
        return None
