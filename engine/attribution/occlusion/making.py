"""What all makers of occlusion maps have in common, exact or not: images in, maps out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fc7.engine.attribution.occlusion.grid import covering, window_spans
from fc7.engine.attribution.occlusion.incremental import Base, Plan
from fc7.engine.attribution.occlusion.sweep import Maps, Sweep
from fc7.engine.attribution.question import Question, Score
from fc7.engine.attribution.tracing import trace
from fc7.engine.models import Network
from fc7.engine.models.targets import check_classes, class_numbers


class MapMaker(ABC):
    """Makes occlusion maps of images of one size; made once, it serves any number of them.

    Args:
        network: the network.
        window: side of the square in pixels.
        stride: pixels from one place to the next.
        fill: what covers, in [0, 1]: a number, or a colour (r, g, b). None is the network's mean
            colour, which it sees as zero.
        score: "probability", the softmax's, or "logit".
        size: height and width of the images; the network's own if None.

    Attributes:
        size: likewise.
        grid: rows and columns of places.
        rows: the pixels that each row of places covers, where it covers any.
        columns: likewise.
        question: what is asked of the network.
        graph: the network's operations.
        images_together: how many images share a batch.

    Raises:
        OptionError: an option is out of range.
    """

    images_together = 1

    def __init__(
        self,
        network: Network,
        window: int = 16,
        stride: int = 8,
        fill: float | Sequence[float] | None = None,
        score: Score = "probability",
        size: tuple[int, int] | None = None,
    ) -> None:
        self.size = size or network.input_size
        rows, columns = (window_spans(side, window, stride) for side in self.size)
        self.grid = len(rows.starts), len(columns.starts)
        self.rows, self.columns = covering(rows), covering(columns)
        self.question = Question(network, fill, score)
        self.graph = trace(network.folded([]), self.size)
        self._sweep = self._first_sweep()

    @property
    def plan(self) -> Plan:
        """What every image is computed by; all of it, or the coarse part."""
        return self._sweep.plan

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of functions that have no rule, so that the network runs in full from there."""
        return self.graph.unknown

    @property
    def classes(self) -> int:
        """How many classes the network has."""
        return self.graph.output.shape[0]

    @abstractmethod
    def _first_sweep(self) -> Sweep:
        """Return what every image goes through."""

    @abstractmethod
    def _drops(self, base: Base, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return some images' maps, without places that cover nothing, and their scores."""

    @torch.inference_mode()
    def choice(self) -> dict[str, Any]:
        """Return which executor makes the maps, and why; see `Choice.record`."""
        device = self.question.network.device
        # Which is faster depends on how many share a batch; on a CPU nothing is measured.
        count = self.images_together if device.type == "cuda" else 1
        images = torch.zeros(count, 3, *self.size, device=device)
        return self._sweep.choice(self._base(images)).record

    def _base(self, images: Tensor) -> Base:
        return Base(self.plan, images.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def maps(self, images: Tensor, targets: Tensor | Sequence[int] | None = None) -> Maps:
        """Return the maps of images.

        Args:
            images: (N, 3, H, W), float in [0, 1].
            targets: N class numbers; the predicted classes if None.

        Raises:
            OptionError: a class is out of range, or there are not N of them.
            ValueError: the images have another shape or dtype.
        """
        if (
            images.ndim != 4
            or images.shape[1:] != (3, *self.size)
            or not images.is_floating_point()
        ):
            raise ValueError(
                f"expected float images (N, 3, {self.size[0]}, {self.size[1]}) in [0, 1], got "
                f"{images.dtype} {tuple(images.shape)}"
            )
        network, wanted = self.question.network, None
        if targets is not None:
            wanted = class_numbers(targets, len(images)).to(network.device)
            check_classes(wanted.tolist(), network, self.classes)
        drops = torch.zeros(len(images), *self.grid, device=network.device)
        found = torch.empty(len(images), dtype=torch.int64, device=network.device)
        scores = torch.empty(len(images), device=network.device)
        for start in range(0, len(images), self.images_together):
            part = slice(start, start + self.images_together)
            pixels = images[part].to(network.device, torch.float32)
            base = self._base(pixels)
            found[part] = base.output.argmax(1) if wanted is None else wanted[part]
            some, scores[part] = self._drops(base, found[part])
            drops[part, : some.shape[1], : some.shape[2]] = some
        return Maps(drops, found, scores)
