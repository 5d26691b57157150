"""The segmentation job: images in, masks of the object that the answer rests on out.

A row's mask is `segment`, a PNG file of one bit a pixel at the image's own size. Beside it stand,
one number a row:

    segment.target        int64, the class whose object it is
    segment.predicted     int64, the class that the network predicts
    segment.probability   float32, the target's probability
    segment.area          float32, the mask's share of the image's pixels
    segment.how           uint8, how the mask was found, a number into `HOW`

The network sees a part of the image, at its own resolution; the saliency map of what it sees is
carried back to the image, and GrabCut works on the image itself. A second job in the same run,
asked differently, is `segment-2`.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.attribution.backprop import Backprop
from fc7.engine.attribution.segmentation.grabcut import HOW, Cutout, cut_out, opencv, shrunk
from fc7.engine.attribution.segmentation.masks import encode_mask
from fc7.engine.attribution.segmentation.seeds import Recipe
from fc7.engine.attribution.segmentation.stored import (
    DEFAULT_BATCH_ROWS,
    DEFAULT_PART_ROWS,
    TECHNIQUE,
)
from fc7.engine.data.batches import as_floats, batches, read_ahead
from fc7.engine.data.reader import Row
from fc7.engine.data.source import Source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import PREDICTED, Targets
from fc7.engine.store import BYTES, Output, Report, Yielded
from fc7.engine.store.fingerprint import software
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import weights_note

SaliencyRule = Literal["plain", "guided"]


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment.

    Attributes:
        foreground: see `Recipe`, likewise the next five.
        probable: likewise.
        background: likewise.
        iterations: likewise.
        blur: likewise.
        side: likewise.
        rule: of the network's ReLUs on the way back: "plain" for the gradient, as in the paper,
            or "guided" for guided backpropagation.
        target: the class whose object is asked for: "predicted"; "label", the row's own, where it
            is known, else the predicted one; or a class by number or name.
        batch_rows: images read and computed together.
        part_rows: rows committed together, in a new run.
        threads: that decode, and as many that cut.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    foreground: float = Recipe.foreground
    probable: float = Recipe.probable
    background: float = Recipe.background
    iterations: int = Recipe.iterations
    blur: float = Recipe.blur
    side: int = Recipe.side
    rule: SaliencyRule = "plain"
    target: str | int = PREDICTED
    batch_rows: int = DEFAULT_BATCH_ROWS
    part_rows: int = DEFAULT_PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None

    @property
    def recipe(self) -> Recipe:
        """How a saliency map becomes a mask."""
        return Recipe(
            self.foreground,
            self.probable,
            self.background,
            self.iterations,
            self.blur,
            self.side,
        )


@dataclass(frozen=True)
class Answer:
    """What a network says of N images.

    Attributes:
        saliency: (N, h, w) float32, the largest absolute gradient over the colours.
        targets: (N,) int64, the classes asked about.
        predicted: (N,) int64.
        probability: (N,) float32, of the targets.
    """

    saliency: NDArray[np.float32]
    targets: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float32]


class Segment:
    """A map from images to masks.

    Args:
        network: the network, on the device that computes.
        source: where the images come from.
        options: how.
        name: the job's name in the run: `segment`, or `segment-2` and so on.

    Attributes:
        name: likewise; whoever finds a better one in the run may change it.
        asked: what distinguishes these masks from others of the same images and network, as JSON.

    Raises:
        OptionError: an option is out of range, or OpenCV is not installed.
        QuestionError: nothing flows back to the pixels, or the rule changes nothing.
    """

    def __init__(
        self, network: Network, source: Source, options: SegmentOptions, name: str = "segment"
    ) -> None:
        if options.threads < 1 or options.batch_rows < 1:
            raise OptionError(
                f"batch_rows is {options.batch_rows}, threads {options.threads}; each is 1 or more"
            )
        if options.rule not in get_args(SaliencyRule):
            raise OptionError(f"no rule {options.rule!r}; there are plain and guided")
        self._recipe = options.recipe
        self._opencv = opencv().__version__
        self.name = name
        self._network, self._source, self._options = network, source, options
        self._backprop = Backprop(network, options.rule)
        nothing = torch.zeros(1, 3, *network.input_size)
        found = self._backprop.of_classes(nothing, None)
        self._classes = found.logits.shape[1]
        self._targets = Targets(options.target, network, self._classes, source)
        self.asked: dict[str, Any] = {
            "recipe": dataclasses.asdict(self._recipe),
            "rule": options.rule,
            "target": self._targets.asked,
        }

    @property
    def outputs(self) -> list[Output]:
        """The mask, and what stands beside it."""
        of = {"technique": TECHNIQUE, "of": self.name}
        about = {**of, **self.asked, "how": list(HOW), "classes": self._classes}
        return [
            Output(self.name, (), BYTES, about),
            Output(f"{self.name}.target", (), "int64", of),
            Output(f"{self.name}.predicted", (), "int64", of),
            Output(f"{self.name}.probability", (), "float32", of),
            Output(f"{self.name}.area", (), "float32", of),
            Output(f"{self.name}.how", (), "uint8", of),
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, transform, options and software; see `fc7.engine.store.fingerprint`."""
        return {
            "network": self._network.describe(),
            "options": {
                **self.asked,
                "batch_rows": self._options.batch_rows,
                "device": self._network.device.type,
            },
            "software": {**software(), "opencv": self._opencv},
        }

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were."""
        return weights_note(self._network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode and transform ahead, and keep what GrabCut works on."""
        transform, options = self._network.transform, self._options
        return read_ahead(
            self._source, numbers, transform, options.batch_rows, options.threads, self._working
        )

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Yielded]]:
        """Yield the masks of each batch in turn, and what stands beside them."""
        with ThreadPoolExecutor(self._options.threads, thread_name_prefix="fc7-cut") as pool:
            for batch in batches(rows, self._options.batch_rows):
                numbers = np.array([row.number for row in batch], dtype=np.int64)
                answer = self.forward(
                    numbers, [row.image for row in batch if row.image is not None]
                )
                cut = list(pool.map(self._cut, batch, answer.saliency))
                values: list[NDArray[Any] | list[bytes]] = [
                    [file for file, _, _ in cut],
                    answer.targets,
                    answer.predicted,
                    answer.probability,
                    np.array([area for _, area, _ in cut], np.float32),
                    np.array([how for _, _, how in cut], np.uint8),
                ]
                names = [output.name for output in self.outputs]
                yield numbers, dict(zip(names, values, strict=True))

    def forward(self, numbers: NDArray[np.int64], batch: Sequence[Tensor]) -> Answer:
        """Return what the network says of uint8 images, each (3, h, w), of rows."""
        pixels = as_floats(batch, self._network.device).div_(255)
        logits, predicted = self._backprop.predict(pixels, None)
        targets = self._targets.of(numbers, predicted)
        found = self._backprop.of_classes(pixels, targets)
        probability = logits.double().softmax(1).gather(1, targets[:, None])[:, 0]
        return Answer(
            found.maps.abs().amax(1).cpu().numpy(),
            targets.cpu().numpy(),
            predicted.cpu().numpy(),
            probability.float().cpu().numpy(),
        )

    def cut(self, image: Tensor, size: tuple[int, int], saliency: NDArray[np.float32]) -> Cutout:
        """Return the mask of one image.

        Args:
            image: uint8 (3, H', W'), the image before the transform, perhaps shrunk.
            size: its height and width before it was.
            saliency: (h, w), of what the transform makes of it.
        """
        box = self._network.transform.extent(*size)
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        return cut_out(pixels, saliency, self._recipe, size, box)

    def _cut(self, row: Row, saliency: NDArray[np.float32]) -> tuple[bytes, float, int]:
        """Return a row's mask as a file, its area and how it was found."""
        assert row.kept is not None
        assert row.size is not None
        found = self.cut(row.kept, row.size, saliency)
        return encode_mask(found.mask), float(found.mask.mean()), HOW.index(found.how)

    def _working(self, image: Tensor) -> Tensor:
        """Shrink an image in the thread that decodes it: at full size few fit into memory."""
        pixels = shrunk(image.permute(1, 2, 0).numpy(), self._recipe.side)
        return torch.from_numpy(pixels).permute(2, 0, 1)
