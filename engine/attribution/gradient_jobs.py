"""The jobs of saliency and of guided backpropagation, made from options.

run["saliency"]   (N, H, W): of the methods below, gradient alone keeps three numbers a pixel
run["guided"]     (N, 3, H, W)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor

from fc7.engine.attribution.backprop import Backprop, ClassGradients
from fc7.engine.attribution.cam import ClassActivation
from fc7.engine.attribution.makers import ClassMaps, Reduction, UnitMaps
from fc7.engine.attribution.pixel_maps import MapOptions, PixelMaps
from fc7.engine.attribution.question import Question
from fc7.engine.attribution.saliency import (
    NOISE,
    SAMPLES,
    STEPS,
    Gradient,
    GradientTimesInput,
    IntegratedGradients,
    Method,
    SmoothGrad,
)
from fc7.engine.data.source import Source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import PREDICTED
from fc7.kernels.guided_relu import Rule

METHODS = (
    "saliency",
    "gradient",
    "gradient-x-input",
    "smoothgrad",
    "integrated-gradients",
    "cam",
)
SALIENCY, GUIDED = "saliency", "guided"


@dataclass(frozen=True)
class SaliencyOptions(MapOptions):
    """How to make saliency maps.

    Attributes:
        method: "saliency", the largest absolute gradient over a pixel's colours; "gradient",
            signed, of every colour; "gradient-x-input" and "integrated-gradients", a pixel's share
            in the logit, summed over its colours; "smoothgrad", as saliency, of the mean gradient
            over noisy copies; "cam", the class activation map, which is as coarse as the network's
            last maps, of networks that average them.
        target: the class that is asked about: "predicted"; "label", the row's own, where it is
            known, else the predicted one; or a class by number or name.
        samples: noisy copies of smoothgrad.
        noise: their standard deviation, as a share of the image's range of values.
        seed: of the noise.
        steps: of integrated gradients.
        baseline: what integrated gradients and gradient-x-input measure from: a number or a colour
            (r, g, b) in [0, 1]. None is the network's mean colour, which it sees as zero.
    """

    method: str = "saliency"
    target: str | int = PREDICTED
    samples: int = SAMPLES
    noise: float = NOISE
    seed: int = 0
    steps: int = STEPS
    baseline: float | Sequence[float] | None = None


@dataclass(frozen=True)
class GuidedOptions(MapOptions):
    """How to make guided gradients.

    Attributes:
        rule: "guided", "deconv" or "plain".
        target: as for `SaliencyOptions`, where no layer is named.
        layer: whose unit to go back from, a canonical name or module path; the logits if None.
        unit: of the layer: a channel, at its strongest place in each image; or one neuron,
            (channel, row, column).
    """

    rule: Rule = "guided"
    target: str | int = PREDICTED
    layer: str | None = None
    unit: int | tuple[int, int, int] | None = None


def saliency_job(network: Network, source: Source, options: SaliencyOptions) -> PixelMaps:
    """Return the job that makes saliency maps.

    Raises:
        OptionError: an option is out of range, or the class is none of the network's.
        QuestionError: the network averages no maps, and has no class activation maps.
    """
    method, reduction, asked = _method(network, options)
    shape = method.grid if isinstance(method, Activation) else None
    target = options.target
    maker = ClassMaps(SALIENCY, network, source, target, "plain", method, reduction, asked, shape)
    return PixelMaps(maker, source, options)


def guided_job(network: Network, source: Source, options: GuidedOptions) -> PixelMaps:
    """Return the job that makes guided gradients.

    Raises:
        LayerError: there is no such layer.
        OptionError: an option is out of range, or the class or unit is not there.
    """
    rule, layer, unit = options.rule, options.layer, options.unit
    check_rule(rule)
    if layer is None:
        if unit is not None:
            raise OptionError(f"unit {unit} of which layer? name one")
        asked = {"rule": rule, "layer": None, "unit": None}
        maker = ClassMaps(GUIDED, network, source, options.target, rule, Gradient(), None, asked)
        return PixelMaps(maker, source, options)
    if options.target != PREDICTED:
        raise OptionError(f"the target is a class, and {layer} is none; name its unit instead")
    if unit is None:
        raise OptionError(f"which unit of {layer}? name a channel, or channel, row and column")
    return PixelMaps(UnitMaps(GUIDED, network, layer, unit, rule), source, options)


class Activation:
    """Class activation maps as a method like the others; they need no way back."""

    def __init__(self, network: Network) -> None:
        self._activation = ClassActivation(network)
        self.grid = self._activation.grid

    def __call__(
        self, backprop: Backprop, images: Tensor, targets: Tensor | None
    ) -> ClassGradients:
        """Return maps (N, h, w) of images (N, 3, H, W), with the logits of the images."""
        return self._activation(images, targets)


def check_rule(rule: str) -> None:
    """Raise OptionError where there is no such rule."""
    if rule not in get_args(Rule):
        raise OptionError(f"no rule {rule!r}; there are {', '.join(get_args(Rule))}")


def _method(
    network: Network, options: SaliencyOptions
) -> tuple[Method, Reduction | None, Mapping[str, Any]]:
    """Return the method, how its maps come to one number a pixel, and what it was asked."""
    name, colour = options.method, {"baseline": _colour(network, options.baseline)}
    if name == "saliency":
        return Gradient(), _largest, {"method": name}
    if name == "gradient":
        return Gradient(), None, {"method": name}
    if name == "gradient-x-input":
        return GradientTimesInput(options.baseline), _sum, {"method": name, **colour}
    if name == "smoothgrad":
        samples, noise, seed = options.samples, options.noise, options.seed
        asked = {"method": name, "samples": samples, "noise": noise, "seed": seed}
        return SmoothGrad(samples, noise, seed), _largest, asked
    if name == "integrated-gradients":
        steps = options.steps
        method = IntegratedGradients(steps, options.baseline)
        return method, _sum, {"method": name, "steps": steps, **colour}
    if name == "cam":
        return Activation(network), None, {"method": name}
    raise OptionError(f"no method {name!r}; there are {', '.join(METHODS)}")


def _largest(maps: Tensor) -> Tensor:
    return maps.abs().amax(1)


def _sum(maps: Tensor) -> Tensor:
    return maps.sum(1)


def _colour(network: Network, baseline: float | Sequence[float] | None) -> list[float]:
    colour = Question(network, baseline, "logit").colour.expand(3)
    return [round(float(part), 6) for part in colour]
