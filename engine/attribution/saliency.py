"""Saliency: by how much the score of a class would change with each pixel.

    gradient          g = dS / dx             Simonyan, Vedaldi and Zisserman, 2014, section 3
    saliency          max over colours |g|    likewise, section 3.1
    gradient x input  g (x - x')              Shrikumar et al., 2016, section 3.1
    SmoothGrad        mean of g(x + noise)    Smilkov et al., 2017
    integrated        (x - x') mean of g(x' + a (x - x'))    Sundararajan, Taly and Yan, 2017

S is the class's logit, before the softmax; x a pixel in [0, 1]; x' a baseline, by default the
network's mean colour, which it sees as zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from fc7.engine.attribution.backprop import Backprop, together
from fc7.engine.attribution.backprop import ClassGradients as Found
from fc7.engine.attribution.question import Question
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import class_numbers

SAMPLES, NOISE, STEPS = 25, 0.15, 32


def saliency_maps(
    network: Network, images: Tensor, targets: Tensor | Sequence[int] | None = None
) -> Tensor:
    """Return the largest absolute gradient of the logit over a pixel's three colours.

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1], of any one size that the network takes.
        targets: N class numbers; the predicted classes if None.

    Returns:
        (N, H, W) float32, at least 0.

    Raises:
        OptionError: a class is out of range, or there are not N of them.
        QuestionError: nothing flows back to the pixels.
        ValueError: the images have another shape or dtype.
    """
    return gradient_maps(network, images, targets).abs().amax(1)


def gradient_maps(
    network: Network, images: Tensor, targets: Tensor | Sequence[int] | None = None
) -> Tensor:
    """Return the gradient of the logit by each pixel and colour, (N, 3, H, W) float32.

    Arguments and errors are those of `saliency_maps`.
    """
    return _maps(network, images, targets, Gradient())


def gradient_x_input_maps(
    network: Network,
    images: Tensor,
    targets: Tensor | Sequence[int] | None = None,
    baseline: float | Sequence[float] | None = None,
) -> Tensor:
    """Return the gradient times the image's difference to a colour, (N, 3, H, W) float32.

    Args:
        network: as for `saliency_maps`, likewise the next two.
        images: likewise.
        targets: likewise.
        baseline: a number or a colour (r, g, b) in [0, 1]; the network's mean colour if None.

    Raises:
        OptionError: a class or the baseline is out of range.
    """
    return _maps(network, images, targets, GradientTimesInput(baseline))


def smoothgrad_maps(
    network: Network,
    images: Tensor,
    targets: Tensor | Sequence[int] | None = None,
    samples: int = SAMPLES,
    noise: float = NOISE,
    seed: int = 0,
) -> Tensor:
    """Return the mean gradient over noisy copies of each image, (N, 3, H, W) float32.

    Every image meets the same noise, so its map does not depend on its batch-mates.

    Args:
        network: as for `saliency_maps`, likewise the next two. The class is the one predicted
            without noise.
        images: likewise.
        targets: likewise.
        samples: how many copies.
        noise: standard deviation, as a share of the image's range of values.
        seed: of the noise.

    Raises:
        OptionError: a class or an option is out of range.
    """
    return _maps(network, images, targets, SmoothGrad(samples, noise, seed))


def integrated_gradients_maps(
    network: Network,
    images: Tensor,
    targets: Tensor | Sequence[int] | None = None,
    steps: int = STEPS,
    baseline: float | Sequence[float] | None = None,
) -> Tensor:
    """Return each pixel's share in the logit's difference to a baseline, (N, 3, H, W) float32.

    The integral is a sum over the middles of `steps` equal steps. The shares of an image add up
    to the difference of the two logits, but for what the sum misses.

    Args:
        network: as for `saliency_maps`, likewise the next two. The class is the image's own.
        images: likewise.
        targets: likewise.
        steps: how many.
        baseline: a number or a colour (r, g, b) in [0, 1]; the network's mean colour if None.

    Raises:
        OptionError: a class or an option is out of range.
    """
    return _maps(network, images, targets, IntegratedGradients(steps, baseline))


@dataclass(frozen=True)
class Gradient:
    """The gradient itself, as a method: from images and classes to maps."""

    def __call__(self, backprop: Backprop, images: Tensor, targets: Tensor | None) -> Found:
        """Return maps (N, 3, H, W) of images (N, 3, H, W), with the logits of the images."""
        return backprop.of_classes(images, targets)


@dataclass(frozen=True)
class GradientTimesInput:
    """See `gradient_x_input_maps`."""

    baseline: float | Sequence[float] | None = None

    def __call__(self, backprop: Backprop, images: Tensor, targets: Tensor | None) -> Found:
        """As `Gradient`."""
        found = backprop.of_classes(images, targets)
        return replace(found, maps=found.maps * _difference(backprop, images, self.baseline))


@dataclass(frozen=True)
class SmoothGrad:
    """See `smoothgrad_maps`."""

    samples: int = SAMPLES
    noise: float = NOISE
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.noise >= 0:
            raise OptionError(
                f"samples is {self.samples} and noise {self.noise}; at least 1 and 0 will do"
            )

    def __call__(self, backprop: Backprop, images: Tensor, targets: Tensor | None) -> Found:
        """As `Gradient`."""
        logits, targets = backprop.predict(images, targets)
        device = logits.device
        pixels = images.to(device)
        least, most = pixels.flatten(1).aminmax(dim=1)
        deviation = (self.noise * (most - least))[:, None, None, None]
        generator = torch.Generator().manual_seed(self.seed)
        total = torch.zeros_like(pixels)
        for _ in range(self.samples):
            noise = torch.randn(1, *pixels.shape[1:], generator=generator).to(device)
            total += backprop.of_classes(pixels + deviation * noise, targets).maps
        return Found(total / self.samples, targets, logits)


@dataclass(frozen=True)
class IntegratedGradients:
    """See `integrated_gradients_maps`."""

    steps: int = STEPS
    baseline: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"steps is {self.steps}; it must be at least 1")

    def __call__(self, backprop: Backprop, images: Tensor, targets: Tensor | None) -> Found:
        """As `Gradient`."""
        logits, targets = backprop.predict(images, targets)
        difference = _difference(backprop, images, self.baseline)
        start = images.to(difference.device) - difference
        total = torch.zeros_like(difference)
        for step in range(self.steps):
            along = start + (step + 0.5) / self.steps * difference
            total += backprop.of_classes(along, targets).maps
        return Found(total / self.steps * difference, targets, logits)


class Method(Protocol):
    """From images and classes to maps: `Gradient` and the others."""

    def __call__(self, backprop: Backprop, images: Tensor, targets: Tensor | None) -> Found:
        """Return maps (N, 3, H, W) of images (N, 3, H, W), with the logits of the images."""


def _difference(
    backprop: Backprop, images: Tensor, baseline: float | Sequence[float] | None
) -> Tensor:
    """Return images minus a colour, on the network's device."""
    colour = Question(backprop.network, baseline, "logit").colour.expand(3)
    return images.to(colour.device) - colour[:, None, None]


def _maps(
    network: Network, images: Tensor, targets: Tensor | Sequence[int] | None, method: Method
) -> Tensor:
    backprop = Backprop(network)
    classes = None if targets is None else class_numbers(targets, len(images))
    parts = (
        method(backprop, images[rows], None if classes is None else classes[rows]).maps
        for rows in together(images)
    )
    return torch.cat(list(parts))
