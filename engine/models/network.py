"""A network as the engine sees it: images in [0, 1] in, logits or any layer out, and frozen."""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import ModelError
from fc7.engine.models.folding import fold
from fc7.engine.models.layers import Layer, find_layers, name_layers, resolve
from fc7.engine.models.state import digest_of
from fc7.engine.models.taps import Reduce, tap

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Network(nn.Module):
    """A classifier, frozen: no weight takes a gradient, and no layer is ever in training mode.

    Gradients still flow from any layer to the images.

    Args:
        model: the bare network, from normalised images (N, 3, H, W) to logits, or to a tuple or
            mapping of which the logits are the first. It is taken over: put into evaluation
            mode, frozen, moved and converted.
        name: by which people know it.
        weights: what its weights are, in a word.
        transform: from a decoded image to one that the network takes.
        mean: per channel, subtracted from an image in [0, 1].
        std: per channel, by which the difference is divided.
        labels: one name a class, or None.
        seed: that the weights were drawn with, or None.
        device: as torch names it, or "auto": the first CUDA device, else the CPU.
        precision: of weights and activations. Normalisation and logits are float32 in any case.
        file: that the weights were read from, or None.

    Attributes:
        digest: sha256 of the weights in float32, as hex.
        input_size: height and width in pixels of a transformed image.

    Raises:
        ModelError: an argument is wrong, or the model does not run on images of its input size.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        *,
        weights: str,
        transform: Transform,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        labels: Sequence[str] | None = None,
        seed: int | None = None,
        device: str = "auto",
        precision: Precision = "fp32",
        file: Path | None = None,
    ) -> None:
        super().__init__()
        if precision not in get_args(Precision):
            raise ModelError(f"no precision {precision!r}; there are {', '.join(DTYPES)}")
        self.name = name
        self.weights = weights
        self.seed = seed
        self.file = file
        self.precision: Precision = precision
        self.transform = transform
        self.input_size = input_size_of(transform)
        self.labels = tuple(labels) if labels is not None else None
        self.mean, self.std = _channels("mean", mean), _channels("std", std)
        if min(self.std) <= 0:
            raise ModelError(f"std must be above 0, not {self.std}")
        place = device_named(device)
        model.float().eval().requires_grad_(False)
        self.digest = digest_of(model)
        self.model = model.to(place, DTYPES[precision])
        self.model.to(memory_format=torch.channels_last)
        # (x - mean) / std as x * scale + shift, in one pass over the images.
        inverse = 1 / torch.tensor(self.std, dtype=torch.float64)
        shift = -torch.tensor(self.mean, dtype=torch.float64) * inverse
        self.scale: Tensor
        self.shift: Tensor
        for key, value in (("scale", inverse), ("shift", shift)):
            constant = value.to(place, torch.float32).reshape(1, 3, 1, 1)
            self.register_buffer(key, constant, persistent=False)
        self._eval()
        try:
            self._found = find_layers(self.model, self.input_size)
        except Exception as error:
            height, width = self.input_size
            raise ModelError(
                f"{name} does not run on images of {height} x {width} pixels: {first_line(error)}"
            ) from error

    @property
    def device(self) -> torch.device:
        """Where the network is, and where its images must be."""
        return self.scale.device

    @cached_property
    def layers(self) -> Mapping[str, Layer]:
        """The layers worth knowing, by canonical name, in order of execution."""
        return MappingProxyType(name_layers(self.model, self._found))

    @property
    def every_layer(self) -> Mapping[str, Layer]:
        """All layers by module path, in the order in which their (last) calls end."""
        return MappingProxyType(self._found)

    def layer(self, name: str) -> Layer:
        """Return the layer of that canonical name or module path.

        Raises:
            LayerError: there is none; the message lists the right names, the closest first.
        """
        return resolve(name, self.name, self.layers, self._found)

    def layers_after(self, name: str) -> int:
        """Return how many modules return something after this layer; 0 for the logits.

        The blocks that a layer lies in return after it, and are not counted.

        Raises:
            LayerError: there is no such layer.
        """
        own, order = self.layer(name).path, list(self._found)
        later = order[order.index(own) + 1 :]
        return sum(bool(path) and not own.startswith(f"{path}.") for path in later)

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images in [0, 1], float (N, 3, H, W), to logits, float32 (N, classes)."""
        return logits_of(self.model(self.normalise(images))).float()

    def normalise(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std, computed in float32, in the network's precision.

        Args:
            images: RGB in [0, 1], float (N, 3, H, W).

        Raises:
            ValueError: the images have another shape or are not floats.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"expected float images (N, 3, H, W) in [0, 1], not {images.dtype} "
                f"{tuple(images.shape)}; divide uint8 images by 255"
            )
        # Two passes, the second in place: a quarter of the time of addcmul with its broadcasts.
        normalised = images.float().mul(self.scale).add_(self.shift)
        return normalised.to(DTYPES[self.precision]).contiguous(memory_format=torch.channels_last)

    def activations(
        self, images: Tensor, layers: Sequence[str], reduce: Reduce | None = None
    ) -> dict[str, Any]:
        """Return what the named layers return, by name, from one pass stopped at the deepest.

        A layer is what its module itself returned: conv5 before the ReLU that follows, even one
        that works in place. A module that runs several times counts with its last call.

        Args:
            images: RGB in [0, 1], float (N, 3, H, W), on the network's device.
            layers: canonical names or module paths, at least one.
            reduce: called with each layer and its output, (N, *layer.shape) in the network's
                precision, before anything can change that tensor; what it returns is kept
                instead, and must not share the tensor's memory.

        Raises:
            LayerError: there is no such layer, or the pass did not reach it.
        """
        wanted = [self.layer(name) for name in layers]
        return tap(self.model, lambda: self.model(self.normalise(images)), wanted, reduce)

    def folded(self, layers: Sequence[str]) -> Self:
        """Return a faster network for these layers: with batch normalisation in the convolutions.

        It shares this one's other weights, is described by the same words, and differs by
        rounding: in float32 by about 1e-6 of a layer's largest value. It has no layer whose
        output the folding changes: a convolution is left alone only if `layers` name it. What is
        done to this network's weights afterwards does not reach it.

        Args:
            layers: canonical names or module paths that will be asked of it.

        Raises:
            LayerError: there is no such layer.
        """
        kept = {self.layer(name).path for name in layers}
        model, changed = fold(self.model, self.input_size, kept)
        twin = copy.copy(self)
        twin._modules = {"model": model}
        twin._found = {path: layer for path, layer in self._found.items() if path not in changed}
        twin.__dict__.pop("layers", None)
        return twin

    def describe(self) -> dict[str, Any]:
        """Return what distinguishes this network's numbers from another's, ready for JSON."""
        return {
            "name": self.name,
            "weights": self.weights,
            "digest": self.digest,
            "seed": self.seed,
            "precision": self.precision,
            "mean": list(self.mean),
            "std": list(self.std),
            "transform": self.transform.to_dict(),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of; its layers are listed again."""
        return {name: value for name, value in self.__dict__.items() if name != "layers"}

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: BatchNorm would couple batch-mates, dropout would add noise."""
        return self._eval()

    def _eval(self) -> Self:
        return super().train(False)


def input_size_of(transform: Transform) -> tuple[int, int]:
    """Return height and width in pixels of what the transform makes.

    Raises:
        ModelError: the transform leaves images in different sizes.
    """
    size = transform.crop if transform.crop is not None else transform.resize
    if isinstance(size, int) and transform.crop is not None:
        return size, size
    if not isinstance(size, tuple):
        raise ModelError("the transform needs a crop, or all images differ in size")
    return size


def first_line(error: BaseException) -> str:
    """Return the class and the first line of an error's message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def logits_of(output: Any) -> Tensor:
    """Return the logits alone where a network returns more, as with auxiliary classifiers."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        candidates = [output[key] for key in ("logits", "out") if key in output]
        candidates += list(output.values())
    else:
        candidates = [output.logits] if hasattr(output, "logits") else []
        candidates += list(output) if isinstance(output, Sequence) else []
    for candidate in candidates:
        if isinstance(candidate, Tensor):
            return candidate
    raise ModelError(f"the network returned a {type(output).__name__} without logits in it")


def _channels(what: str, values: Sequence[float]) -> tuple[float, float, float]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise ModelError(f"{what} must be three numbers, one a channel, not {values}")
    return numbers


def device_named(name: str) -> torch.device:
    """Return a device as torch names it, or of "auto" the first CUDA device, else the CPU.

    Raises:
        ModelError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except Exception as error:  # torch raises AssertionError, RuntimeError and others here
        raise ModelError(
            f"no device {name!r} here ({first_line(error)}); try auto or cpu"
        ) from None
    return place
