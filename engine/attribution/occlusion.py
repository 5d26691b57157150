"""Occlusion sensitivity: which parts of an image a network's answer depends on.

Slide a square over the image and see how far the score falls with the square at each place
(Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section
4.2). The maps are exact: what is computed for each place is what full inference would find, within
rounding, but only the part of every layer that the square can change is computed
(`fc7.engine.attribution.incremental`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fc7.engine.attribution.grid import window_spans
from fc7.engine.attribution.incremental import Plan, Spans
from fc7.engine.attribution.sweep import Maps, Question, Score, Sweep
from fc7.engine.attribution.tracing import trace
from fc7.engine.errors import OptionError
from fc7.engine.models import Network

_BYTES_TOGETHER = 2**24  # of one layer's windows: images share a batch where they are small


class Occlusion:
    """Makes occlusion maps of images of one size; made once, it serves any number of them.

    Args:
        network: the network.
        window: side of the square in pixels.
        stride: pixels from one place to the next.
        fill: what covers, in [0, 1]: a number, or a colour (r, g, b). None is the network's mean
            colour, which it sees as zero.
        score: "probability", the softmax's, or "logit".
        size: height and width of the images; the network's own if None.
        growth: the largest share of a layer's side that the square may change, above 0. Below 1
            the maps are approximate: what it would change beyond that is left out.

    Attributes:
        grid: rows and columns of places.
        plan: what will be computed.
        unknown: names of functions that have no rule, so that the network runs in full from there.

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        network: Network,
        window: int = 16,
        stride: int = 8,
        fill: float | Sequence[float] | None = None,
        score: Score = "probability",
        size: tuple[int, int] | None = None,
        growth: float = 1.0,
    ) -> None:
        if not 0 < growth <= 1:
            raise OptionError(f"growth is {growth}; it must be above 0 and at most 1")
        self.size = size or network.input_size
        rows, columns = (window_spans(side, window, stride) for side in self.size)
        self.grid = len(rows.starts), len(columns.starts)
        self._network, question = network, Question(network, fill, score)
        graph = trace(network.folded([]), self.size)
        self.unknown = graph.unknown
        self._sweep = Sweep(question, graph, covering(rows), covering(columns), growth)
        self.plan = self._sweep.plan
        self.images_together = max(1, _BYTES_TOGETHER // self._sweep.executor.bytes_per_image)

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
        wanted = checked(self._network, images, self.size, targets, self.plan)
        drops = torch.zeros(len(images), *self.grid, device=self._network.device)
        found = torch.empty(len(images), dtype=torch.int64, device=drops.device)
        scores = torch.empty(len(images), device=drops.device)
        for start in range(0, len(images), self.images_together):
            part = slice(start, start + self.images_together)
            base = self._sweep.executor.base(on_device(images[part], self._network))
            found[part] = base.output.argmax(1) if wanted is None else wanted[part]
            exact, scores[part] = self._sweep.drops(base, found[part])
            drops[part, : self.plan.bands, : self.plan.positions] = exact
        return Maps(drops, found, scores)


def occlusion_maps(
    network: Network,
    images: Tensor,
    targets: Tensor | Sequence[int] | None = None,
    window: int = 16,
    stride: int = 8,
    fill: float | Sequence[float] | None = None,
    score: Score = "probability",
) -> Tensor:
    """Return by how much the score of a class falls with a window over each place of the image.

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1], of any one size that the network takes.
        targets: N class numbers; the predicted classes if None.
        window: side of the square in pixels.
        stride: pixels from one place to the next.
        fill: what covers, in [0, 1]: a number, or a colour (r, g, b). None is the network's mean
            colour, which it sees as zero.
        score: "probability", the softmax's, or "logit".

    Returns:
        (N, rows, columns) float32, with ceil((H - window) / stride) + 1 rows, likewise columns.

    Raises:
        OptionError: an option is out of range.
        ValueError: the images have another shape or dtype.
    """
    size = (int(images.shape[-2]), int(images.shape[-1]))
    return Occlusion(network, window, stride, fill, score, size).maps(images, targets).drops


def covering(spans: Spans) -> Spans:
    """Return the spans that cover anything: all, or all but the last."""
    held = spans.lengths > 0
    return Spans(spans.starts[held], spans.stops[held])


def on_device(images: Tensor, network: Network) -> Tensor:
    """Return images as the executor wants them: where the network is, float32, channels last."""
    moved = images.to(network.device, torch.float32)
    return moved.contiguous(memory_format=torch.channels_last)


def checked(
    network: Network,
    images: Tensor,
    size: tuple[int, int],
    targets: Tensor | Sequence[int] | None,
    plan: Plan,
) -> Tensor | None:
    """Return the class numbers as a tensor, (N,) int64, after a look at images and classes.

    Raises:
        OptionError: a class is out of range, or there are not N of them.
        ValueError: the images have another shape or dtype.
    """
    if images.ndim != 4 or images.shape[1:] != (3, *size) or not images.is_floating_point():
        raise ValueError(
            f"expected float images (N, 3, {size[0]}, {size[1]}) in [0, 1], got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    if targets is None:
        return None
    numbers = torch.as_tensor(targets, device=network.device).reshape(-1)
    classes = plan.graph.output.shape[0]
    if len(numbers) != len(images):
        raise OptionError(f"{len(numbers)} classes for {len(images)} images; give one for each")
    if numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise OptionError(f"classes are whole numbers, not {numbers.dtype}")
    for number in numbers.tolist():
        if not 0 <= number < classes:
            raise OptionError(f"no class {number}; {network.name} has 0 to {classes - 1}")
    return numbers.to(torch.int64)
