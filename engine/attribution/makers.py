"""What makes maps of gradients for a job: of each row's class, or of a unit of a layer.

Beside a map of a class stand

    .target        int64, the class whose logit it is
    .predicted     int64, the class that the network predicts
    .score         float32, the target's logit
    .probability   float32, the target's probability

and beside one of a unit

    .value         float32, what the unit answers
    .position      int64, where it is in the layer's map, row * columns + column; 0 in a vector
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.attribution.backprop import Backprop
from fc7.engine.attribution.saliency import Method
from fc7.engine.attribution.units import Units
from fc7.engine.data.source import Source
from fc7.engine.models import Network
from fc7.engine.models.targets import PREDICTED, Targets, class_count
from fc7.kernels.guided_relu import Rule

Reduction = Callable[[Tensor], Tensor]


class ClassMaps:
    """Maps of the logit of each row's class.

    Args:
        technique: what they are called.
        network: the network, on the device that computes.
        source: the rows, for their labels.
        target: "predicted", "label", or a class by number or name.
        rule: of the ReLUs.
        method: from gradients to maps, (N, 3, H, W).
        reduction: from these to (N, H, W); None to keep them.
        asked: what else distinguishes these maps, as JSON.
        shape: of a map, where it is not that of the image.

    Raises:
        OptionError: there is no such class.
    """

    def __init__(
        self,
        technique: str,
        network: Network,
        source: Source,
        target: str | int,
        rule: Rule,
        method: Method,
        reduction: Reduction | None,
        asked: Mapping[str, Any],
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self.technique, self.network = technique, network
        self._backprop, self._method, self._reduction = Backprop(network, rule), method, reduction
        classes = class_count(network)
        self._targets = Targets(target, network, classes, source)
        self.about = {"classes": classes}
        self.asked = {**asked, "target": self._targets.asked}
        whole = network.input_size if reduction else (3, *network.input_size)
        self.shape = shape or whole
        self.columns = {
            "target": "int64",
            "predicted": "int64",
            "score": "float32",
            "probability": "float32",
        }

    def __call__(self, rows: NDArray[np.int64], pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map images (B, 3, H, W) in [0, 1] of rows to maps and to columns (B,)."""
        found = self._method(self._backprop, pixels, self._wanted(rows, pixels))
        maps = found.maps if self._reduction is None else self._reduction(found.maps)
        logits, at = found.logits.double(), found.targets[:, None]
        return maps, {
            "target": found.targets,
            "predicted": logits.argmax(1),
            "score": logits.gather(1, at)[:, 0].float(),
            "probability": logits.softmax(1).gather(1, at)[:, 0].float(),
        }

    def _wanted(self, rows: NDArray[np.int64], pixels: Tensor) -> Tensor | None:
        """Return the rows' classes; None for the predicted ones, which the pass itself finds."""
        if self._targets.asked == PREDICTED:
            return None
        predicted = torch.full((len(rows),), -1, dtype=torch.int64)
        wanted = self._targets.of(rows, predicted)
        if bool((wanted < 0).any()):  # rows without a label
            wanted = self._targets.of(rows, self._backprop.predict(pixels, None)[1].cpu())
        return wanted


class UnitMaps:
    """Maps of one unit of a layer, the same for all rows.

    Args:
        technique: what they are called.
        network: the network, on the device that computes.
        layer: a canonical name or module path.
        unit: a channel, at its strongest place in each image; or channel, row and column.
        rule: of the ReLUs.

    Raises:
        LayerError: there is no such layer.
        OptionError: it has no such unit.
    """

    def __init__(
        self,
        technique: str,
        network: Network,
        layer: str,
        unit: int | tuple[int, int, int],
        rule: Rule,
    ) -> None:
        self.technique, self.network = technique, network
        self._backprop, self._unit = Backprop(network, rule, layer), unit
        self._units(1)  # a wrong one is found before anything is written
        named = list(unit) if isinstance(unit, tuple) else unit
        self.asked = {"rule": rule, "layer": layer, "unit": named}
        self.about: dict[str, Any] = {}
        self.shape = (3, *network.input_size)
        self.columns = {"value": "float32", "position": "int64"}

    def __call__(self, rows: NDArray[np.int64], pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map images (B, 3, H, W) in [0, 1] of rows to maps and to columns (B,)."""
        units = self._units(len(rows))
        found = self._backprop(pixels, units.of(slice(None)))
        return found.maps, {"value": found.scores, "position": units.positions(found.output)}

    def _units(self, count: int) -> Units:
        assert self._backprop.layer is not None
        return Units(self._backprop.layer, self._unit, count)
