"""How often a network is right about the rows of a data set, by a run that is not kept."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from fc7.engine.data.batches import as_floats, batches, read_ahead
from fc7.engine.data.reader import Row
from fc7.engine.data.source import Source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import LABEL, Targets, class_count
from fc7.engine.store import Arrays, Output, Report, Run, run_map
from fc7.engine.store.job import RowStream

_BATCH_ROWS = 32
_UNKNOWN = -1


@dataclass(frozen=True)
class Accuracy:
    """What a network makes of labelled rows.

    Attributes:
        rows: how many have a label and an image that can be used.
        share: of those, whose largest logit is the label's.
        loss: the mean cross-entropy of the label.
    """

    rows: int
    share: float
    loss: float


class Classify:
    """A map from images to whether the network is right about them.

    `correct` () int8 is 1 or 0, and -1 where the label is unknown; `loss` () float32 is the label's
    cross-entropy.

    Args:
        network: the network, on the device that computes.
        source: the rows.
        classes: how many the network has.
        threads: decoding threads.

    Raises:
        OptionError: the labels are not the network's classes.
    """

    outputs = (Output("correct", (), "int8"), Output("loss", (), "float32"))

    def __init__(
        self, network: Network, source: Source, classes: int, name: str, threads: int
    ) -> None:
        self.name = name
        self._network, self._folded = network, network.folded([])
        self._source, self._threads = source, threads
        self._targets = Targets(LABEL, network, classes, source)

    def fingerprint(self) -> Mapping[str, Any]:
        """The network."""
        return {"network": self._network.describe()}

    def notes(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode and transform ahead."""
        transform = self._network.transform
        return read_ahead(self._source, numbers, transform, _BATCH_ROWS, self._threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield what comes of each batch in turn."""
        for batch in batches(rows, _BATCH_ROWS):
            numbers = np.array([row.number for row in batch], dtype=np.int64)
            images = [row.image for row in batch if row.image is not None]
            with torch.inference_mode():
                logits = self._folded(as_floats(images, self._network.device).div_(255))
                predicted = logits.argmax(1)
                targets = self._targets.of(numbers, predicted)
                loss = cross_entropy(logits, targets, reduction="none").cpu().numpy()
                right = (predicted == targets).cpu().numpy()
            correct = np.where(self._targets.known(numbers), right, _UNKNOWN)
            yield numbers, {"correct": correct.astype(np.int8), "loss": loss}


def measure_accuracy(
    network: Network,
    source: Source,
    what: str,
    threads: int = 2,
    report: Report | None = None,
) -> Accuracy:
    """Classify a data set.

    Args:
        network: the network, on the device that computes.
        source: the rows.
        what: the work's name, for who watches its progress.
        threads: decoding threads.
        report: called after each batch.

    Raises:
        OptionError: the labels are not the network's classes, or no row can be used.
    """
    classes = class_count(network)
    with tempfile.TemporaryDirectory(prefix="fc7-") as folder:
        run = Run.create(Path(folder) / "run", source)
        run_map(run, Classify(network, source, classes, what, threads), report=report)
        correct, loss = np.asarray(run["correct"]), np.asarray(run["loss"])
        labelled = run.good & (correct != _UNKNOWN)
    if not labelled.any():
        raise OptionError(f"no row of {source.spec} with a label could be used")
    right = float((correct[labelled] == 1).mean())
    return Accuracy(int(labelled.sum()), right, float(loss[labelled].mean(dtype=np.float64)))
