"""Saliency against float64, captum, and what the papers promise of each method."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from backward import SWITCHES, Reference, error, images, lively, of_classes
from torch import Tensor, nn
from truth import enliven, network_of

from fc7.engine.attribution.backprop import Backprop
from fc7.engine.attribution.saliency import (
    gradient_maps,
    gradient_x_input_maps,
    integrated_gradients_maps,
    saliency_maps,
    smoothgrad_maps,
)
from fc7.engine.errors import OptionError, QuestionError
from fc7.engine.models import Network, load_model
from fc7.engine.models.passes import images_a_pass

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.attr import Saliency


def tiny() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet18", "googlenet"])
def test_equals_float64_and_captum(name: str) -> None:
    network, x, targets = lively(name), images(2), [3, 999]
    expected = Reference(network).gradient(x, of_classes(targets), "plain")
    found = gradient_maps(network, x, targets)
    assert found.shape == x.shape
    assert found.dtype == torch.float32
    assert error(found, expected) < SWITCHES
    maps = saliency_maps(network, x, targets)
    assert torch.equal(maps, found.abs().amax(1))
    theirs = Saliency(network).attribute(x.clone().requires_grad_(), target=targets).amax(1)
    assert error(maps, theirs) < 2 * SWITCHES


def test_of_a_network_without_switches_to_rounding() -> None:
    network, x = tiny(), images(3, (64, 64))
    expected = Reference(network).gradient(x, of_classes([1, 2, 15]), "plain")
    assert error(gradient_maps(network, x, [1, 2, 15]), expected) < 1e-5


@pytest.mark.parametrize("size", [(64, 64), (70, 96), (101, 67)])
def test_a_row_does_not_depend_on_its_batch_mates(size: tuple[int, int]) -> None:
    network = network_of(enliven(_pooled(), size), (64, 64))
    x = images(19, size)  # more than run together
    makers: list[Callable[..., Tensor]] = [
        saliency_maps,
        lambda *a: smoothgrad_maps(*a, samples=2),
        lambda *a: integrated_gradients_maps(*a, steps=2),
    ]
    for make in makers:
        whole = make(network, x)
        alone = torch.cat([make(network, x[n : n + 1]) for n in (0, 7, 18)])
        assert whole.shape[-2:] == size
        assert error(alone, whole[[0, 7, 18]].double()) < 1e-5


def _pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def test_the_predicted_class_is_meant_without_targets() -> None:
    network, x = tiny(), images(4, (64, 64))
    predicted = network(x).argmax(1)
    assert torch.equal(gradient_maps(network, x), gradient_maps(network, x, predicted))
    few = {"samples": 2}
    assert torch.equal(
        smoothgrad_maps(network, x, **few), smoothgrad_maps(network, x, predicted, **few)
    )


def test_of_a_linear_network_all_is_known() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 4, 7))
    network, x, targets = network_of(model, (5, 4)), images(2, (5, 4)), [6, 0]
    std = torch.tensor(network.std)[:, None, None]
    weights = model[1].weight[targets].view(2, 3, 5, 4) / std
    shares = weights * (x - torch.tensor(network.mean)[:, None, None])
    for make, expected in (
        (gradient_maps, weights),
        (gradient_x_input_maps, shares),
        (smoothgrad_maps, weights),
        (integrated_gradients_maps, shares),
    ):
        assert torch.allclose(make(network, x, targets), expected, rtol=1e-5, atol=1e-6), make
    black = gradient_x_input_maps(network, x, targets, baseline=0)
    assert torch.allclose(black, weights * x, rtol=1e-5, atol=1e-6)


def test_integrated_gradients_add_up_to_the_difference() -> None:
    network = network_of(enliven(_pooled(), (20, 24)), (20, 24))
    x, targets, colour = images(3, (20, 24)), torch.tensor([0, 1, 3]), (0.2, 0.9, 0.4)
    plain = torch.tensor(colour)[None, :, None, None].expand_as(x)
    change = (network(x) - network(plain)).gather(1, targets[:, None])[:, 0]
    # Along the way ReLUs switch, where the sum errs by up to a step: the more steps, the nearer.
    for steps, share in ((16, 0.1), (1024, 0.005)):
        maps = integrated_gradients_maps(network, x, targets, steps=steps, baseline=colour)
        assert torch.allclose(
            maps.sum((1, 2, 3)), change, rtol=0, atol=share * float(change.abs().max())
        )


def test_smoothgrad_is_the_mean_over_noise() -> None:
    network, x = tiny(), images(2, (64, 64)) * 0.5
    found = smoothgrad_maps(network, x, [1, 2], samples=3, noise=0.2, seed=5)
    generator = torch.Generator().manual_seed(5)
    spread = (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))[:, None, None, None]
    noisy = [x + 0.2 * spread * torch.randn(1, 3, 64, 64, generator=generator) for _ in range(3)]
    expected = torch.stack([gradient_maps(network, one, [1, 2]) for one in noisy]).mean(0)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(
        smoothgrad_maps(network, x, [1, 2], noise=0, samples=1), gradient_maps(network, x, [1, 2])
    )
    assert not torch.equal(found, smoothgrad_maps(network, x, [1, 2], 3, 0.2, seed=6))


def test_inside_inference_mode_and_of_tensors_made_there() -> None:
    network, x = tiny(), images(2, (64, 64))
    expected = saliency_maps(network, x, [0, 1])
    with torch.inference_mode():
        assert torch.equal(saliency_maps(network, x * 1, [0, 1]), expected)
    with torch.no_grad():
        assert torch.equal(saliency_maps(network, x, [0, 1]), expected)
    assert x.grad is None
    assert not x.requires_grad


def test_no_images_no_maps() -> None:
    assert saliency_maps(tiny(), torch.rand(0, 3, 64, 64)).shape == (0, 64, 64)


class Detached(nn.Module):
    """A network through which nothing flows back."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.last = how, nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        if self.how == "detached":
            means = means.detach()
        elif self.how == "constant":
            means = torch.ones_like(means)
        else:
            with torch.no_grad():
                return self.last(means)
        return self.last(means)


@pytest.mark.parametrize("how", ["detached", "constant", "no_grad"])
def test_a_network_without_a_gradient_is_refused(how: str) -> None:
    network = network_of(Detached(how), (8, 8))
    with pytest.raises(QuestionError, match="no gradient flows back from the logits") as said:
        saliency_maps(network, images(1, (8, 8)))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ([16, 0], r"no class 16; tiny-shapes has 0 to 15"),
        ([0, -1], r"no class -1"),
        ([1], r"1 classes for 2 images"),
        ([0.5, 1], r"classes are whole numbers"),
    ],
)
def test_classes_out_of_range(targets: Any, says: str) -> None:
    for make in (saliency_maps, smoothgrad_maps, integrated_gradients_maps):
        with pytest.raises(OptionError, match=says):
            make(tiny(), images(2, (64, 64)), targets)


def test_options_out_of_range() -> None:
    network, x = tiny(), images(1, (64, 64))
    for call, says in (
        (lambda: smoothgrad_maps(network, x, samples=0), "samples is 0"),
        (lambda: smoothgrad_maps(network, x, noise=float("nan")), "noise nan"),
        (lambda: integrated_gradients_maps(network, x, steps=0), "steps is 0"),
        (lambda: integrated_gradients_maps(network, x, baseline=2), "fill is 2"),
    ):
        with pytest.raises(OptionError, match=says):
            call()
    with pytest.raises(ValueError, match="divide uint8 images by 255"):
        saliency_maps(network, torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_large_activations_go_through_in_parts() -> None:
    """The largest result of a layer, 16 maps of 256 x 256, takes 4 MiB an image: 8 fill a heap."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 4),
    )  # fmt: skip
    network = network_of(enliven(model, (256, 256)), (256, 256))
    backprop = Backprop(network)
    x = images(11, (256, 256))
    assert images_a_pass(network, 11, (256, 256)) == 8
    assert images_a_pass(network, 11, (128, 128)) == 11
    assert images_a_pass(network, 2, (1024, 1024)) == 1
    assert images_a_pass(network, 0, (256, 256)) == 1
    found = backprop.of_classes(x, None)
    assert torch.equal(found.targets, network(x).argmax(1))
    whole = backprop._of_classes(x, found.targets)
    assert error(found.maps, whole.maps.double()) < 1e-6
    assert torch.allclose(found.logits, whole.logits, rtol=1e-5, atol=1e-5)
