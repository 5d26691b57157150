"""Guided gradients against a float64 reference with the paper's rule written out, and captum."""

import copy
import warnings
from typing import Any

import pytest
import torch
from backward import SWITCHES, Reference, error, images, lively, of_classes
from torch import Tensor, nn
from torch.nn import functional as F
from truth import enliven, network_of

from fc7.engine.attribution.backprop import Backprop
from fc7.engine.attribution.guided import guided_channels, guided_maps
from fc7.engine.errors import Fc7Error, LayerError, OptionError, QuestionError
from fc7.engine.models import Network, load_model
from fc7.kernels.guided_relu import Rule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.attr import Deconvolution, GuidedBackprop, NeuronGuidedBackprop


def out_of_place(network: Network) -> nn.Module:
    """Return a copy that captum's hooks can work on."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return twin


@pytest.mark.parametrize("rule", ["guided", "deconv"])
@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet18", "googlenet", "densenet121"])
def test_equals_the_formula_in_float64(name: str, rule: Rule) -> None:
    network, x, targets = lively(name), images(2), [3, 999]
    expected = Reference(network).gradient(x, of_classes(targets), rule)
    found = guided_maps(network, x, targets, rule=rule)
    assert found.shape == x.shape
    assert found.dtype == torch.float32
    assert error(found, expected) < SWITCHES
    plain = guided_maps(network, x, targets, rule="plain")
    assert error(plain, expected) > 0.5, "the rule changed nothing"


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet18"])
def test_equals_captum(name: str) -> None:
    network, x, targets = lively(name), images(2), [3, 999]
    other = out_of_place(network)
    for method, rule in ((GuidedBackprop, "guided"), (Deconvolution, "deconv")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = method(other).attribute(x.clone().requires_grad_(), target=targets)
        assert error(guided_maps(network, x, targets, rule=rule), theirs) < 2 * SWITCHES


@pytest.mark.parametrize("layer", ["conv5", "relu3", "fc7", "conv1"])
@pytest.mark.parametrize("rule", ["guided", "plain"])
def test_units_of_layers(layer: str, rule: Rule) -> None:
    network = load_model("tiny-shapes", device="cpu")
    x, found = images(3, (64, 64)), network.layer(layer)
    reference = Reference(network)
    spatial = len(found.shape) == 3
    place: Any = (5, found.shape[1] - 1, 2) if spatial else 5

    def neuron(output: Tensor) -> Tensor:
        return output[:, 5, found.shape[1] - 1, 2] if spatial else output[:, 5]

    def strongest(channels: list[int]) -> Any:
        return lambda output: torch.stack(
            [output[n, c].amax() for n, c in enumerate(channels)]  # one of equals alone is largest
        )

    for unit, score in (
        (place, neuron),
        (5, strongest([5, 5, 5])),
        ([5, 0, 7], strongest([5, 0, 7])),
        (torch.tensor([5, 0, 7]), strongest([5, 0, 7])),
    ):
        expected = reference.gradient(x, score, rule, found.path)
        maps = guided_maps(network, x, layer=layer, unit=unit, rule=rule)
        silent = expected.flatten(1).norm(dim=1) == 0
        assert torch.equal(maps.flatten(1).norm(dim=1) == 0, silent)
        if not silent.all():
            assert error(maps[~silent], expected[~silent]) < 1e-5
    if spatial:
        rows = torch.tensor([[5, 0, 1], [0, 2, 2], [7, 1, 0]])
        maps = guided_maps(network, x, layer=layer, unit=rows, rule=rule)
        for n, row in enumerate(rows.tolist()):
            one = guided_maps(network, x[n : n + 1], layer=layer, unit=tuple(row), rule=rule)
            assert torch.allclose(maps[n], one[0], rtol=1e-4, atol=1e-7)


def test_a_neuron_equals_captum() -> None:
    network, x = lively("alexnet"), images(2)
    other = out_of_place(network)
    layer = other.model.features[8]  # conv4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = NeuronGuidedBackprop(other, layer).attribute(
            x.clone().requires_grad_(), (17, 2, 1)
        )
    assert error(guided_maps(network, x, layer="conv4", unit=(17, 2, 1)), theirs) < 1e-5


def test_every_channel_from_one_forward_pass() -> None:
    network, x = load_model("tiny-shapes", device="cpu"), images(2, (64, 64))
    layer = "conv3"
    maps = guided_maps(network, x, layer=layer)
    channels = network.layer(layer).shape[0]
    assert maps.shape == (2, channels, 3, 64, 64)
    for channel in (0, channels - 1):
        one = guided_maps(network, x, layer=layer, unit=channel)
        assert torch.equal(maps[:, channel], one)
    some = list(guided_channels(network, x, layer, [4, 2]))
    assert torch.equal(torch.stack(some, 1), maps[:, [4, 2]])


class Spelt(nn.Module):
    """One ReLU module shared by two layers, one function in place, one method."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.shared, self.last = nn.ReLU(inplace=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.a(x))
        x = self.shared(self.b(x))
        x = F.relu(self.c(x), inplace=True)
        return self.last(x.mean((2, 3)).relu())


@pytest.mark.parametrize("size", [(12, 12), (17, 9)])
def test_shared_functional_and_in_place(size: tuple[int, int]) -> None:
    network, x = network_of(enliven(Spelt(), size), size), images(5, size)

    def by_hand(images: Tensor, target: int) -> Tensor:
        model = copy.deepcopy(network.model).double()
        mean, std = (torch.tensor(c, dtype=torch.float64)[:, None, None]
                     for c in (network.mean, network.std))  # fmt: skip
        h = [(images.double() - mean) / std]
        for convolution in (model.a, model.b, model.c):
            h.append(F.conv2d(h[-1].clamp(min=0) if len(h) > 1 else h[0],
                              convolution.weight, convolution.bias))  # fmt: skip
        means = h[3].clamp(min=0).mean((2, 3))
        g = model.last.weight[target].expand(len(images), -1)
        g = g * (g > 0) * (means > 0)
        g = (g / h[3][0, 0].numel())[:, :, None, None].expand_as(h[3])
        for at, convolution in ((3, model.c), (2, model.b), (1, model.a)):
            g = g * (g > 0) * (h[at] > 0)
            g = F.conv_transpose2d(g, convolution.weight)
        return g / std

    assert error(guided_maps(network, x, [2] * 5), by_hand(x, 2)) < 1e-5
    alone = torch.cat([guided_maps(network, one[None], [2]) for one in x])
    assert error(guided_maps(network, x, [2] * 5), alone.double()) < 1e-5


@pytest.mark.parametrize("rule", ["guided", "deconv"])
def test_a_network_without_relu_is_refused_by_name(rule: Rule) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network, x = network_of(model, (8, 8)), images(1, (8, 8))
    for options in ({}, {"layer": "0", "unit": 1}):
        with pytest.raises(QuestionError, match=r"test calls no ReLU.*it has silu") as said:
            guided_maps(network, x, rule=rule, **options)
        assert "\n" not in str(said.value)
    assert guided_maps(network, x, rule="plain").abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"layer": "conv9", "unit": 0}, LayerError, "no layer 'conv9'.*close: conv"),
        ({"layer": "conv5", "unit": 64}, OptionError, "no channel 64 in conv5; it has 0 to"),
        ({"layer": "conv5", "unit": -1}, OptionError, "no channel -1 in conv5"),
        ({"layer": "conv5", "unit": (0, 99, 0)}, OptionError, "no row 99 in conv5"),
        ({"layer": "conv5", "unit": (0, 0, 99)}, OptionError, "no column 99 in conv5"),
        ({"layer": "fc7", "unit": 9999}, OptionError, "no unit 9999 in fc7"),
        ({"layer": "fc7", "unit": (1, 2, 3)}, OptionError, "fc7 is a vector"),
        ({"layer": "fc7", "unit": 1.5}, OptionError, "no unit 1.5"),
        ({"layer": "fc7", "unit": "x"}, OptionError, "no unit 'x'"),
        ({"layer": "fc7", "unit": [1, 2, 3]}, OptionError, "3 units for 2 images"),
        ({"unit": 1}, OptionError, "unit 1 of which layer"),
        ({"targets": [0, 16]}, OptionError, "no class 16; tiny-shapes has 0 to 15"),
        ({"targets": [0, 1], "layer": "fc7", "unit": 1}, OptionError, "fc7 is no class"),
    ],
)
def test_what_is_not_there_is_named(options: Any, kind: type[Fc7Error], says: str) -> None:
    network = load_model("tiny-shapes", device="cpu")
    with pytest.raises(kind, match=says) as said:
        guided_maps(network, images(2, (64, 64)), **options)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("rule", ["guided", "plain"])
def test_a_pass_keeps_masks_and_places_alone(rule: Rule) -> None:
    """Of a frozen network one byte an activation behind a ReLU, four a pooled one, no more."""
    network, x = load_model("tiny-shapes", device="cpu"), images(3, (64, 64))
    rectified: list[Tensor] = []
    pooled: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, into=into: into.append(out))
        for module in network.modules()
        if (into := {nn.ReLU: rectified, nn.MaxPool2d: pooled}.get(type(module))) is not None
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    backprop = Backprop(network, rule)
    weights = {tensor.data_ptr() for tensor in backprop._folded.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = backprop.of_classes(x, torch.tensor([0, 1, 2]))
    allowed = sum(out.numel() for out in rectified) + 4 * sum(out.numel() for out in pooled)
    assert len(rectified) > 5
    assert len(pooled) >= 2
    # The logits, the class of each row, and the constants of the normalisation: a few bytes each.
    assert allowed <= sum(kept.values()) <= allowed + 4 * found.logits.numel() + 100
