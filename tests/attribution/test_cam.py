"""Class activation maps: against the paper's formula in float64, and by what they add up to."""

from typing import Any

import pytest
import torch
from backward import Reference, error, images, lively
from torch import Tensor, nn
from torch.nn import functional as F
from truth import enliven, network_of

from fc7.engine.attribution.cam import ClassActivation, class_activation_maps, enlarge
from fc7.engine.errors import ModelError, OptionError
from fc7.engine.models import Network, load_model

# The module whose output is averaged, and the linear layer behind, of torchvision's networks.
ENDINGS = {
    "resnet18": ("layer4", "fc"),
    "googlenet": ("inception5b", "fc"),
    "mobilenet_v2": ("features", "classifier.1"),
    "shufflenet_v2_x0_5": ("conv5", "fc"),
    "squeezenet1_1": ("classifier.2", None),
}
ROUNDING = 1e-4
SIZES = [(80, 64), (97, 130)]


def formula(network: Network, x: Tensor, targets: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return maps, the classes' biases and logits, in float64, by hooks on a copy."""
    reference = Reference(network)
    path, last = ENDINGS[type_of(network)]
    seen: list[Tensor] = []
    module = reference.model.get_submodule(path)
    module.register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    logits = reference.logits(x.double())
    if last is None:
        rows = [seen[0][n, target] for n, target in enumerate(targets)]
        return torch.stack(rows), torch.zeros(len(x)), logits
    linear = reference.model.get_submodule(last)
    rows = []
    for n, target in enumerate(targets):
        total = torch.zeros(seen[0].shape[2:], dtype=torch.float64)
        for k in range(linear.in_features):
            total += linear.weight[target, k] * seen[0][n, k]
        rows.append(total)
    return torch.stack(rows), linear.bias[targets], logits


def type_of(network: Network) -> str:
    kinds = {"ResNet": "resnet18", "GoogLeNet": "googlenet", "MobileNetV2": "mobilenet_v2",
             "ShuffleNetV2": "shufflenet_v2_x0_5", "SqueezeNet": "squeezenet1_1"}  # fmt: skip
    return kinds[type(network.model).__name__]


@pytest.mark.parametrize("name", ENDINGS)
def test_equals_the_formula_and_adds_up_to_the_logit(name: str) -> None:
    network, targets = lively(name), [3, 999]
    for size in SIZES if name in ("resnet18", "squeezenet1_1") else SIZES[:1]:
        x = images(2, size)
        expected, bias, logits = formula(network, x, targets)
        found = class_activation_maps(network, x, targets)
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        # Float32 rounds to 6e-8; 20 to 60 layers add up to some 1e-6 of the last maps, and of
        # their sum, in which weights of both signs cancel, to some 1e-5.
        assert error(found, expected) < ROUNDING
        means = found.mean((1, 2), dtype=torch.float64) + bias
        wanted = logits.gather(1, torch.tensor(targets)[:, None])[:, 0]
        assert torch.allclose(means, wanted, rtol=0, atol=ROUNDING * float(logits.abs().max()))
        assert float(expected.std()) > 1e-2 * float(expected.abs().max()), "proves nothing"


def test_of_the_predicted_class_and_without_batch_mates() -> None:
    network, x = lively("resnet18"), images(17)  # more than run together
    whole = class_activation_maps(network, x)
    method = ClassActivation(network, (80, 64))
    assert whole.shape[1:] == method.grid == (3, 2)
    for n in (0, 16):
        alone = method(x[n : n + 1])
        assert error(alone.maps, whole[n : n + 1].double()) < 1e-5
        assert torch.equal(alone.targets, network(x[n : n + 1]).argmax(1))
        assert torch.allclose(alone.logits, network(x[n : n + 1]), rtol=1e-4, atol=1e-4)
        named = method(x[n : n + 1], alone.targets)
        assert torch.equal(named.maps, alone.maps)


class Spelt(nn.Module):
    """Two convolutions, and an ending that is written in one way or another."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.ending = ending
        self.a, self.b = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 6, 3, padding=1)
        self.drop, self.last = nn.Dropout(), nn.Linear(6, 4)
        self.bend, self.classes = nn.Sigmoid(), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        f = F.relu(self.b(F.relu(self.a(x))))
        h, w = f.shape[2:]
        endings: dict[str, Any] = {
            "mean": lambda: self.last(f.mean((2, 3))),
            "mean of one axis at a time": lambda: self.last(f.mean(3).mean(2)),
            "window": lambda: self.last(self.drop(F.avg_pool2d(f, (h, w)).squeeze(3).squeeze(2))),
            "adaptive": lambda: self.last(F.adaptive_avg_pool2d(f, 1).view(len(x), -1)).double(),
            "maps of classes": lambda: self.classes(f).mean((2, 3)),
            "short window": lambda: self.last(F.avg_pool2d(f, (h - 1, w)).flatten(1)),
            "padded window": lambda: self.last(
                F.avg_pool2d(F.pad(f, (0, 1)), (h, w + 1)).flatten(1)
            ),
            "largest": lambda: self.last(F.adaptive_max_pool2d(f, 1).flatten(1)),
            "bent": lambda: self.last(self.bend(f.mean((2, 3)))),
            "bent logits": lambda: self.bend(self.last(f.mean((2, 3)))),
            "places": lambda: self.last(F.adaptive_avg_pool2d(f, (1, 1)).flatten(1) + f[:, :, 0, 0])
        }  # fmt: skip
        return endings[self.ending]()


@pytest.mark.parametrize(
    "ending", ["mean", "window", "adaptive", "maps of classes", "padded window"]
)
def test_however_it_is_spelt(ending: str) -> None:
    size = (11, 15)
    network, x = network_of(enliven(Spelt(ending), size), size), images(3, size)
    maps = class_activation_maps(network, x, [0, 3, 3])
    bias = 0 if ending == "maps of classes" else network.model.last.bias[[0, 3, 3]]
    logits = network(x).gather(1, torch.tensor([0, 3, 3])[:, None])[:, 0]
    assert torch.allclose(maps.mean((1, 2)) + bias, logits, rtol=0, atol=1e-5)
    assert float(maps.std((1, 2)).min()) > 1e-3


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        ("short window", r"last reads "),
        ("largest", r"follows? adaptive_max_pool2d"),
        ("bent", r"last reads bend, which is no average of maps"),
        ("bent logits", r"its logits come from bend, not from averages"),
        ("places", r"test has no class activation maps"),
    ],
)
def test_another_ending_is_refused(ending: str, says: str) -> None:
    size = (11, 15)
    network = network_of(enliven(Spelt(ending), size), size)
    with pytest.raises(ModelError, match=says) as said:
        class_activation_maps(network, images(1, size))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", ["tiny-shapes", "alexnet"])
def test_fully_connected_layers_stand_in_the_way(name: str) -> None:
    network = load_model(name, device="cpu") if "-" in name else lively(name)
    says = r"fc8 reads relu7, which is no average of maps over the image; try occlusion"
    with pytest.raises(ModelError, match=says):
        ClassActivation(network)


def test_maps_of_one_element() -> None:
    """Where nothing is left to average, there is a map if larger images have an average."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    network = network_of(enliven(model, (16, 16)), (16, 16))
    x = images(2, (4, 3))
    maps = class_activation_maps(network, x, [0, 1])
    logits = network(x).gather(1, torch.tensor([[0], [1]]))[:, 0]
    assert maps.shape == (2, 1, 1)
    assert torch.allclose(maps[:, 0, 0] + model[-1].bias[:2], logits, atol=1e-6)
    wide = nn.Sequential(nn.Conv2d(3, 8, (16, 16)), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
    with pytest.raises(ModelError, match="3 reads 1, which is no average"):
        ClassActivation(network_of(wide, (16, 16)))


def test_enlarge_is_bilinear_between_the_middles_of_tiles() -> None:
    maps = images(2, (3, 5))[:, 0]
    found = enlarge(maps, (12, 25))
    assert found.shape == (2, 12, 25)
    for y in range(12):
        for x in range(25):
            row = min(max((y + 0.5) / 4 - 0.5, 0), 2)
            column = min(max((x + 0.5) / 5 - 0.5, 0), 4)
            i, j = min(int(row), 1), min(int(column), 3)
            v, u = row - i, column - j
            upper = maps[:, i, j] * (1 - u) + maps[:, i, j + 1] * u
            lower = maps[:, i + 1, j] * (1 - u) + maps[:, i + 1, j + 1] * u
            assert torch.allclose(found[:, y, x], upper * (1 - v) + lower * v, atol=1e-6)
    assert torch.equal(enlarge(maps, (3, 5)), maps)


def test_arguments_out_of_range() -> None:
    size = (11, 15)
    network, x = network_of(enliven(Spelt("mean"), size), size), images(2, size)
    for targets, says in (([1], "1 classes for 2 images"), ([0, 4], "no class 4; test has 0 to 3")):
        with pytest.raises(OptionError, match=says):
            class_activation_maps(network, x, targets)
    with pytest.raises(ValueError, match="divide uint8 images by 255"):
        class_activation_maps(network, torch.zeros(1, 3, 80, 64, dtype=torch.uint8))
    assert class_activation_maps(network, x[:0]).shape == (0, 5, 7)
