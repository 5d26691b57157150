"""The occlusion job: images in, maps of what the network's answer depends on out.

A row's map is `occlusion` (rows, columns) float32, by how much the score falls with the window at
each place. Beside it stand, one number a row:

    occlusion.target        int64, the class whose score it is
    occlusion.predicted     int64, the class that the network predicts
    occlusion.score         float32, the target's score with nothing covered
    occlusion.probability   float32, the target's probability with nothing covered
    occlusion.largest       float32, the largest fall on the map

A second job in the same run, asked differently, is `occlude-2` and makes `occlusion-2`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.attribution.occlusion.making import MapMaker
from fc7.engine.attribution.occlusion.maps import Occlusion
from fc7.engine.attribution.occlusion.refined import RefinedOcclusion
from fc7.engine.attribution.occlusion.stored import (
    DEFAULT_PART_ROWS,
    TECHNIQUE,
    output_name,
)
from fc7.engine.attribution.question import Score
from fc7.engine.data.batches import as_floats, batches, read_ahead
from fc7.engine.data.reader import Row
from fc7.engine.data.source import Source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import PREDICTED, Targets
from fc7.engine.store import Arrays, Output, Report
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note

EVERY, REGION = 3, 0.5
"""Where maps are refined: one row and column in three is coarse, half of each side fine."""

_MOST_TOGETHER = 32


@dataclass(frozen=True)
class OccludeOptions:
    """How to occlude.

    Attributes:
        window: side of the square in pixels.
        stride: pixels from one place to the next.
        fill: what covers, in [0, 1]: a number, or a colour (r, g, b). None is the network's mean
            colour, which it sees as zero.
        score: "probability", the softmax's, or "logit".
        target: the class that is asked about: "predicted"; "label", the row's own, where it is
            known, else the predicted one; or a class by number or name.
        refine: an approximation: a coarse grid first, and every place only where it is strongest.
        growth: an approximation below 1: the largest share of a layer's side that the square may
            change.
        batch_rows: images read and computed together; as many as suit the network if None.
        part_rows: rows committed together, in a new run.
        threads: decoding threads.
        parts: a slice of the parts, such as `0::8`, for one task of a job array.
        report: called after each batch.
    """

    window: int = 16
    stride: int = 8
    fill: float | Sequence[float] | None = None
    score: Score = "probability"
    target: str | int = PREDICTED
    refine: bool = False
    growth: float = 1.0
    batch_rows: int | None = None
    part_rows: int = DEFAULT_PART_ROWS
    threads: int = 2
    parts: str | None = None
    report: Report | None = None


class Occlude:
    """A map from images to occlusion maps.

    Args:
        network: the network, on the device that computes.
        source: where the images come from.
        options: how.
        name: the job's name in the run: `occlude`, or `occlude-2` and so on.

    Attributes:
        name: likewise; whoever finds a better one in the run may change it.
        asked: what distinguishes these maps from others of the same images and network, as JSON.
        unknown: functions of the network that have no rule: it runs in full from there.

    Raises:
        OptionError: an option is out of range, or two of them do not go together.
    """

    def __init__(
        self, network: Network, source: Source, options: OccludeOptions, name: str = "occlude"
    ) -> None:
        if options.threads < 1 or (options.batch_rows is not None and options.batch_rows < 1):
            raise OptionError(
                f"batch_rows is {options.batch_rows}, threads {options.threads}; each is 1 or more"
            )
        self.name = name
        self._network, self._source, self._options = network, source, options
        self._occlusion = make_occlusion(network, options)
        self.unknown = self._occlusion.unknown
        self._classes = self._occlusion.classes
        self._targets = Targets(options.target, network, self._classes, source)
        colour = self._occlusion.question.colour.expand(3)
        self.asked: dict[str, Any] = {
            "window": options.window,
            "stride": options.stride,
            "fill": [round(float(part), 6) for part in colour],
            "score": options.score,
            "target": self._targets.asked,
            "approximation": _approximation(options),
        }
        together = min(self._occlusion.images_together, _MOST_TOGETHER)
        self._batch_rows = options.batch_rows or together

    @property
    def outputs(self) -> list[Output]:
        """The map, and what stands beside it."""
        drops = output_name(self.name)
        of = {"technique": TECHNIQUE, "of": drops}
        size = list(self._occlusion.size)
        about = {**of, **self.asked, "size": size, "classes": self._classes}
        return [
            Output(drops, self._occlusion.grid, "float32", about),
            Output(f"{drops}.target", (), "int64", of),
            Output(f"{drops}.predicted", (), "int64", of),
            Output(f"{drops}.score", (), "float32", of),
            Output(f"{drops}.probability", (), "float32", of),
            Output(f"{drops}.largest", (), "float32", of),
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, transform, options and software; see `fc7.engine.store.fingerprint`."""
        return fingerprint_of(
            self._network,
            **self.asked,
            # What suits may change with the software, which is recorded.
            batch_rows=self._options.batch_rows or "as suits",
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were, what of the network runs in full, and what runs the rest."""
        return {
            **weights_note(self._network),
            "runs_in_full_from": list(self.unknown),
            "executor": self._occlusion.choice(),
        }

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode and transform ahead."""
        transform, threads = self._network.transform, self._options.threads
        return read_ahead(self._source, numbers, transform, self._batch_rows, threads)

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield the maps of each batch in turn, and what stands beside them."""
        for batch in batches(rows, self._batch_rows):
            numbers = np.array([row.number for row in batch], dtype=np.int64)
            images = [row.image for row in batch if row.image is not None]
            found = self.forward(numbers, images)
            yield (
                numbers,
                {
                    output.name: tensor.cpu().numpy()
                    for output, tensor in zip(self.outputs, found.values(), strict=True)
                },
            )

    @torch.inference_mode()
    def forward(self, numbers: NDArray[np.int64], batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Map uint8 images, each (3, H, W), of rows to every output's tensor (B, ...), in order.

        The map is called `drops`, the others by what follows its name.
        """
        pixels = as_floats(batch, self._network.device).div_(255)
        logits = self._network(pixels).double()
        predicted = logits.argmax(1)
        maps = self._occlusion.maps(pixels, self._targets.of(numbers, predicted))
        probability = maps.scores
        if self._options.score != "probability":
            probability = logits.softmax(1).gather(1, maps.targets[:, None])[:, 0]
        return {
            "drops": maps.drops,
            "target": maps.targets,
            "predicted": predicted,
            "score": maps.scores,
            "probability": probability,
            "largest": maps.drops.flatten(1).amax(1),
        }


def make_occlusion(network: Network, options: OccludeOptions) -> MapMaker:
    """Return what makes the maps: exact, unless one of the approximations is asked for.

    Raises:
        OptionError: an option is out of range, or both approximations are asked for.
    """
    window, stride, fill, score = options.window, options.stride, options.fill, options.score
    if not options.refine:
        return Occlusion(network, window, stride, fill, score, growth=options.growth)
    if options.growth != 1:
        raise OptionError("refine and growth are two approximations; ask for one of them")
    return RefinedOcclusion(network, window, stride, fill, score, every=EVERY, region=REGION)


def _approximation(options: OccludeOptions) -> dict[str, Any] | None:
    if options.refine:
        return {"name": "refine", "every": EVERY, "region": REGION}
    return {"name": "growth", "growth": options.growth} if options.growth < 1 else None
