"""The importance job: images in, what each says of every channel out.

    importance.taylor       (C,) float32, the channels of all convolutions one after the other
    importance.activation   (C,) float32; see `gates` for both
    importance.loss         () float32, the cross-entropy of the row's target
    importance.correct      () int8, whether the prediction is the label; -1 where that is unknown

Names, paths, channels and offsets of the convolutions are attributes of the first two. The target
is the row's label where labels are the network's classes, else the class that it predicts.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.attribution.importance.convolutions import find_convolutions
from fc7.engine.attribution.importance.gates import gather_evidence
from fc7.engine.attribution.importance.stored import (
    ACTIVATION,
    CORRECT,
    DEFAULT_PART_ROWS,
    JOB,
    LOSS,
    TAYLOR,
    TECHNIQUE,
    UNKNOWN,
    attributes_of,
)
from fc7.engine.data.batches import as_floats, batches, read_ahead
from fc7.engine.data.reader import Row
from fc7.engine.data.source import Source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import class_count, labels_or_predictions
from fc7.engine.store import Arrays, Output, Report
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note

_BATCH_BYTES = 512 * 2**20
# Of each activation: itself, its copy behind the gate, what follows it, and a gradient.
_COPIES = 4
_MOST_TOGETHER = 32


@dataclass(frozen=True)
class ImportanceOptions:
    """How to measure importance.

    Attributes:
        batch_rows: images read and computed together; as many as suit the network if None.
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    batch_rows: int | None = None
    part_rows: int = DEFAULT_PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None


class MeasureImportance:
    """A map from images to what each says of every channel.

    Args:
        network: the network, on the device that computes.
        source: where the images come from.
        options: how.

    Raises:
        ModelError: the network has no convolutions.
        OptionError: an option is out of range.
    """

    name = JOB

    def __init__(self, network: Network, source: Source, options: ImportanceOptions) -> None:
        if options.threads < 1 or (options.batch_rows is not None and options.batch_rows < 1):
            raise OptionError(
                f"batch_rows is {options.batch_rows}, threads {options.threads}; each is 1 or more"
            )
        self._network, self._source, self._options = network, source, options
        # Folded, so that what a convolution returns is what the activation reads; and faster.
        self._folded = network.folded([])
        self._convolutions = find_convolutions(self._folded, network.layers)
        self._targets = labels_or_predictions(network, class_count(network), source)
        self._batch_rows = options.batch_rows or self._suitable_batch()

    @property
    def outputs(self) -> list[Output]:
        """What each row says of every channel, and how well it was classified."""
        channels = sum(one.channels for one in self._convolutions)
        about = {
            "technique": TECHNIQUE,
            "target": self._targets.asked,
            **attributes_of(self._convolutions),
        }
        return [
            Output(TAYLOR, (channels,), "float32", about),
            Output(ACTIVATION, (channels,), "float32", about),
            Output(LOSS, (), "float32", {"technique": TECHNIQUE}),
            Output(CORRECT, (), "int8", {"technique": TECHNIQUE}),
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, transform, options and software; see `fc7.engine.store.fingerprint`."""
        return fingerprint_of(
            self._network,
            target=self._targets.asked,
            # What suits may change with the software, which is recorded.
            batch_rows=self._options.batch_rows or "as suits",
            batch_norm="folded",
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were, for those who want the same network again."""
        return weights_note(self._network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode and transform ahead."""
        transform, threads = self._network.transform, self._options.threads
        return read_ahead(self._source, numbers, transform, self._batch_rows, threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield what each batch says, in turn."""
        for batch in batches(rows, self._batch_rows):
            numbers = np.array([row.number for row in batch], dtype=np.int64)
            images = [row.image for row in batch if row.image is not None]
            pixels = as_floats(images, self._network.device).div_(255)

            def targets(predicted: Tensor, numbers: NDArray[np.int64] = numbers) -> Tensor:
                return self._targets.of(numbers, predicted)

            found = gather_evidence(self._folded, self._convolutions, pixels, targets)
            right = (found.predicted == targets(found.predicted)).cpu().numpy()
            correct = np.where(self._targets.known(numbers), right, UNKNOWN)
            yield (
                numbers,
                {
                    TAYLOR: found.taylor.cpu().numpy(),
                    ACTIVATION: found.activation.cpu().numpy(),
                    LOSS: found.loss.cpu().numpy(),
                    CORRECT: correct.astype(np.int8),
                },
            )

    def _suitable_batch(self) -> int:
        """Return how many images' activations fit, for the pass back, into half a gigabyte."""
        layers = self._network.every_layer
        known = [layers[one.path].shape for one in self._convolutions if one.path in layers]
        image_bytes = _COPIES * 4 * sum(math.prod(shape) for shape in known)
        return max(1, min(_MOST_TOGETHER, _BATCH_BYTES // max(1, image_bytes)))
