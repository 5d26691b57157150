"""Guided backpropagation: which pixels speak for a class, or for any neuron of any layer.

Go back from the neuron to the pixels, and let through each ReLU only what is positive and went
forward through it (Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR
2015 workshop, section 3.4). Two other rules stand beside it: the derivative, "plain", and that of
the deconvolutional network, "deconv", which lets pass what is positive, whatever went forward
(Zeiler and Fergus, 2014).

A guided gradient is no derivative. It shows what a neuron sees more sharply than the derivative
does, partly because it finds edges: `fc7.engine.attribution.metrics` has what to compare it with.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fc7.engine.attribution.backprop import Backprop, together
from fc7.engine.attribution.units import Unit, Units
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import class_numbers
from fc7.kernels.guided_relu import Rule

_ALL = slice(None)


def guided_maps(
    network: Network,
    images: Tensor,
    targets: Tensor | Sequence[int] | None = None,
    *,
    layer: str | None = None,
    unit: Unit | None = None,
    rule: Rule = "guided",
) -> Tensor:
    """Return the guided gradient of a class's logit, or of a layer's units, by the pixels.

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1]. With a layer, of the network's own input size.
        targets: N class numbers; the predicted classes if None. Not with a layer.
        layer: a canonical name or module path.
        unit: of the layer: a channel, which stands for its strongest neuron in each image; one
            neuron, (channel, row, column); a list or tensor with one of these for each image; or
            None for the strongest neuron of every channel.
        rule: "guided", "plain" or "deconv".

    Returns:
        (N, 3, H, W) float32; (N, C, 3, H, W) for every channel.

    Raises:
        LayerError: there is no such layer.
        OptionError: a class or unit is out of range, or a unit has no layer.
        QuestionError: nothing flows back to the pixels, or the rule changes nothing.
        ValueError: the images have another shape or dtype, or there is no such rule.
    """
    if layer is None:
        if unit is not None:
            raise OptionError(f"unit {unit!r} of which layer? name one")
        classes = None if targets is None else class_numbers(targets, len(images))
        backprop = Backprop(network, rule)
        parts = (
            backprop.of_classes(images[rows], None if classes is None else classes[rows]).maps
            for rows in together(images)
        )
        return torch.cat(list(parts))
    if targets is not None:
        raise OptionError(f"targets are classes, and {layer} is no class; name its unit instead")
    backprop = Backprop(network, rule, layer)
    assert backprop.layer is not None
    if unit is None:
        channels = range(backprop.layer.shape[0])
        parts = (
            torch.stack(list(_channels(backprop, images[rows], channels)), 1)
            for rows in together(images)
        )
        return torch.cat(list(parts))
    units = Units(backprop.layer, unit, len(images))
    parts = (backprop(images[rows], units.of(rows)).maps for rows in together(images))
    return torch.cat(list(parts))


def guided_channels(
    network: Network,
    images: Tensor,
    layer: str,
    channels: Sequence[int] | None = None,
    rule: Rule = "guided",
) -> Iterator[Tensor]:
    """Yield the guided gradient of each channel's strongest neuron, from one forward pass.

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1], of the network's input size; few of them.
        layer: a canonical name or module path.
        channels: of the layer; all of them if None.
        rule: "guided", "plain" or "deconv".

    Yields:
        (N, 3, H, W) float32 for each channel.

    Raises:
        See `guided_maps`.
    """
    backprop = Backprop(network, rule, layer)
    assert backprop.layer is not None
    yield from _channels(
        backprop, images, range(backprop.layer.shape[0]) if channels is None else channels
    )


def _channels(backprop: Backprop, images: Tensor, channels: Sequence[int]) -> Iterator[Tensor]:
    assert backprop.layer is not None
    units = [Units(backprop.layer, channel, len(images)) for channel in channels]
    for found in backprop.each(images, (one.of(_ALL) for one in units)):
        yield found.maps
