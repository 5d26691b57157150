"""Occlusion sensitivity: which parts of an image a network's answer depends on.

Slide a square over the image and see how far the score falls with the square at each place
(Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section
4.2). The maps are exact: what is computed for each place is what full inference would find, within
rounding, but only the part of every layer that the square can change is computed
(`fc7.engine.attribution.occlusion.incremental`).
"""

from collections.abc import Sequence

from torch import Tensor

from fc7.engine.attribution.occlusion.incremental import Base
from fc7.engine.attribution.occlusion.making import MapMaker
from fc7.engine.attribution.occlusion.sweep import Sweep
from fc7.engine.attribution.question import Score
from fc7.engine.errors import OptionError
from fc7.engine.models import Network

# Of one layer's windows in one band: images share a batch where they are small. On a GPU it makes
# ten images of VGG16 at 224 pixels.
_BYTES_TOGETHER = {"cpu": 2**24, "cuda": 2**25}


class Occlusion(MapMaker):
    """Makes exact occlusion maps, or with a cap on growth approximate ones; see `MapMaker`.

    Args:
        growth: the largest share of a layer's side that the square may change, above 0. Below 1
            the maps are approximate: what it would change beyond that is left out.

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
        self._growth = growth
        super().__init__(network, window, stride, fill, score, size)
        most = _BYTES_TOGETHER.get(network.device.type, _BYTES_TOGETHER["cuda"])
        self.images_together = max(1, most // self.plan.bytes_of_band)

    def _first_sweep(self) -> Sweep:
        return Sweep(self.question, self.graph, self.rows, self.columns, self._growth)

    def _drops(self, base: Base, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self._sweep.drops(base, targets)


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
