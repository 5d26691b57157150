"""Class activation maps: where a network that averages its last maps has found a class.

Where the logits are a linear layer of the averages of K maps f_k over the image,

    S_c = sum over k of w_k^c mean of f_k(x, y) + b_c,

the two sums may change places: S_c is the mean, plus b_c, of

    M_c(x, y) = sum over k of w_k^c f_k(x, y)

(Zhou, Khosla, Lapedriza, Oliva and Torralba, "Learning Deep Features for Discriminative
Localization", CVPR 2016, section 2). A network whose last convolution makes one map a class and
averages it, as SqueezeNet does, is the same with w the identity and b = 0: M_c is that map, behind
whatever activation follows the convolution.

Whether a network is built like that is read from its operations (`tracing`), however they are
spelt. A map is as coarse as the network's last convolution; `enlarge` brings it to pixels.
"""

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor
from torch.nn import functional

from fc7.engine.attribution.backprop import ClassGradients, together
from fc7.engine.attribution.tracing import Graph, Op, trace
from fc7.engine.attribution.tracing.ops import (
    AvgPool,
    Linear,
    Mean,
    Other,
    Reshape,
)
from fc7.engine.errors import LayerError, ModelError, QuestionError
from fc7.engine.models import Network
from fc7.engine.models.targets import check_classes, class_numbers


def class_activation_maps(
    network: Network, images: Tensor, targets: Tensor | Sequence[int] | None = None
) -> Tensor:
    """Return what each place of a network's last maps adds to a class's logit.

    Args:
        network: the network, one whose logits are a linear layer of its last maps' averages.
        images: (N, 3, H, W), float in [0, 1], of any one size that the network takes.
        targets: N class numbers; the predicted classes if None.

    Returns:
        (N, h, w) float32, of the size of the network's last maps. A map's mean plus the linear
        layer's bias is the logit.

    Raises:
        OptionError: a class is out of range, or there are not N of them.
        QuestionError: the network is built differently.
        ValueError: the images have another shape or dtype.
    """
    network.normalise(images[:0].to(network.device))  # says what is wrong with images
    method = ClassActivation(network, (images.shape[2], images.shape[3]))
    classes = None if targets is None else class_numbers(targets, len(images))
    parts = (
        method(images[rows], None if classes is None else classes[rows]).maps
        for rows in together(images)
    )
    return torch.cat(list(parts))


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps at the size of the image, interpolated bilinearly.

    An h x w map is taken to tile the image: the centre of element (i, j) lies in the middle of its
    tile, ((i + 0.5) H / h, (j + 0.5) W / w) in pixels from the corner, and pixels further out than
    the outermost centres have the value there. (That is `align_corners=False`. The receptive
    fields of a network with padding lie there to within half a stride.)

    Args:
        maps: (N, h, w), floating.
        size: H and W in pixels.

    Returns:
        (N, H, W), in the dtype of the maps.
    """
    found: Tensor = functional.interpolate(
        maps[:, None], size, mode="bilinear", align_corners=False
    )
    return found[:, 0]


class ClassActivation:
    """A network ready for class activation maps of images of one size.

    Args:
        network: the network.
        size: height and width of the images; the network's own if None.

    Attributes:
        network: likewise.
        size: likewise.
        grid: height and width of the maps.

    Raises:
        QuestionError: the logits are no linear layer of the averages of maps, or the maps
            themselves averaged; the message names the layer that stands in the way.
    """

    def __init__(self, network: Network, size: tuple[int, int] | None = None) -> None:
        self.network, self.size = network, size or network.input_size
        self._graph = trace(network.folded([]), self.size)
        self._features, self._weight = _Ending(network, self._graph, self.size).found()
        self.grid = self._features.grid

    @torch.inference_mode()
    def __call__(self, images: Tensor, targets: Tensor | None = None) -> ClassGradients:
        """Return the maps of images, (N, 3, H, W) float in [0, 1], for classes, (N,) int64.

        Raises:
            OptionError: a class is none of the network's.
        """
        images = images.to(self.network.device)
        features = logits = images
        for op, value in self._graph.values(images):
            logits = value.float()  # the last one is
            if op is self._features:
                features = logits
        if targets is None:
            classes = logits.argmax(1)
        else:
            check_classes(targets.tolist(), self.network, logits.shape[1])
            classes = targets.to(logits.device)
        if self._weight is None:
            maps = features[torch.arange(len(classes), device=classes.device), classes]
        else:
            weight = self._weight.to(features).flatten(1)[classes]
            maps = torch.einsum("nk,nkhw->nhw", weight, features)
        return ClassGradients(maps.clone(), classes.clone(), logits)


class _Ending:
    """How a network gets from its last maps to its logits, read from the end."""

    def __init__(self, network: Network, graph: Graph, size: tuple[int, int]) -> None:
        self._network, self._graph, self._size = network, graph, size

    def found(self) -> tuple[Op, Tensor | None]:
        """Return the operation that makes the last maps, and the weight, (classes, K, 1, 1)."""
        last = _unshaped(self._graph.output)
        if not isinstance(last, Linear):
            return self._pooled(last, last), None
        return self._pooled(_unshaped(last.inputs[0]), last), last.weight

    def _pooled(self, op: Op, last: Op) -> Op:
        """Return what an average over the image is the average of."""
        if isinstance(op, Mean) or _averages_all(op):
            return op.inputs[0]
        if op.grid == (1, 1) and len(op.shape) == 3 and self._averages_larger_images():
            return op
        ours = f"{self._network.name} has no class activation maps:"
        if isinstance(op, Other):
            unknown = ", ".join(self._graph.unknown)
            raise QuestionError(f"{ours} what follows {unknown} is not known to average maps")
        name = self._name(op)
        if op is last:
            raise QuestionError(f"{ours} its logits come from {name}, not from averages of maps")
        raise QuestionError(
            f"{ours} {self._name(last)} reads {name}, which is no average of maps over the image; "
            "try occlusion, saliency or guided"
        )

    def _averages_larger_images(self) -> bool:
        """Say whether there is an average that images this small, of one element, go without."""
        network, usual = self._network, self._network.input_size
        if usual == self._size:
            return False
        with suppress(ModelError):
            _Ending(network, trace(network.folded([]), usual), usual).found()
            return True
        return False

    def _name(self, op: Op) -> str:
        """Return the layer that makes an operation's result, or the operation."""
        path = self._graph.paths.get(op.name, "").removeprefix("model").removeprefix(".")
        for layer in self._network.layers.values():
            if path and layer.path == path:
                return layer.name
        try:
            return self._network.layer(path).name if path else op.name
        except LayerError:
            return op.name


def _unshaped(op: Op) -> Op:
    """Return what was given another shape or dtype, and nothing else."""
    while isinstance(op, Reshape):
        (op,) = op.inputs
    return op


def _averages_all(op: Op) -> bool:
    """Say whether it is an average by a window that covers the map, once."""
    if not isinstance(op, AvgPool):
        return False
    height, width = op.inputs[0].grid
    covers = [slide.kernel for slide in op.slides] == [height, width]
    return covers and op.grid == (1, 1) and float(op.divisor) == height * width
