"""Names of layers: each alias is the module one expects, and wrong names help."""

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import LayerError
from fc7.engine.models import Network, load_model
from fc7.engine.models.layers import find_layers, name_layers


def named(name, size=(224, 224)):
    """Layers of a torchvision network without weights; they are not needed."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that GoogLeNet will draw its weights another way
        model = torchvision.models.get_model(name, weights=None).eval()
    found = find_layers(model, size)
    return model, name_layers(model, found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "alexnet",
            {
                "conv1": ("features.0", "Conv2d", (64, 55, 55), True),
                "relu1": ("features.1", "ReLU", (64, 55, 55), False),
                "pool2": ("features.5", "MaxPool2d", (192, 13, 13), False),
                "conv5": ("features.10", "Conv2d", (256, 13, 13), True),
                "pool5": ("features.12", "MaxPool2d", (256, 6, 6), False),
                "fc6": ("classifier.1", "Linear", (4096,), True),
                "relu7": ("classifier.5", "ReLU", (4096,), False),
                "fc8": ("classifier.6", "Linear", (1000,), False),
            },
        ),
        (
            "vgg16",
            {
                "conv1_1": ("features.0", "Conv2d", (64, 224, 224), True),
                "conv3_3": ("features.14", "Conv2d", (256, 56, 56), True),
                "relu4_2": ("features.20", "ReLU", (512, 28, 28), False),
                "conv5": ("features.28", "Conv2d", (512, 14, 14), True),
                "pool5": ("features.30", "MaxPool2d", (512, 7, 7), False),
                "fc7": ("classifier.3", "Linear", (4096,), True),
            },
        ),
        (
            "vgg19_bn",
            {
                "conv1": ("features.3", "Conv2d", (64, 224, 224), False),
                "conv5_4": ("features.49", "Conv2d", (512, 14, 14), False),
                "bn5_4": ("features.50", "BatchNorm2d", (512, 14, 14), True),
                "relu5": ("features.51", "ReLU", (512, 14, 14), False),
            },
        ),
        (
            "resnet18",
            {
                "conv1": ("conv1", "Conv2d", (64, 112, 112), False),
                "bn1": ("bn1", "BatchNorm2d", (64, 112, 112), True),
                "layer2": ("layer2", "Sequential", (128, 28, 28), False),
                "avgpool": ("avgpool", "AdaptiveAvgPool2d", (512, 1, 1), False),
                "fc": ("fc", "Linear", (1000,), False),
            },
        ),
        (
            "googlenet",
            {
                "conv1": ("conv1", "BasicConv2d", (64, 112, 112), False),
                "inception3a": ("inception3a", "Inception", (256, 28, 28), False),
                "inception5b": ("inception5b", "Inception", (1024, 7, 7), False),
                "avgpool": ("avgpool", "AdaptiveAvgPool2d", (1024, 1, 1), False),
            },
        ),
        (
            "densenet121",
            {
                "conv1": ("features.conv0", "Conv2d", (64, 112, 112), False),
                "denseblock4": ("features.denseblock4", "_DenseBlock", (1024, 7, 7), False),
                # Its ReLU is a function, not a module.
                "features.norm5": ("features.norm5", "BatchNorm2d", (1024, 7, 7), True),
                "fc": ("classifier", "Linear", (1000,), False),
            },
        ),
        ("squeezenet1_1", {"conv10": ("classifier.1", "Conv2d", (1000, 13, 13), True)}),
        ("mobilenet_v2", {"fc": ("classifier.1", "Linear", (1000,), False)}),
        ("mobilenet_v3_small", {"fc": ("classifier.3", "Linear", (1000,), False)}),
        ("efficientnet_b0", {"fc": ("classifier.1", "Linear", (1000,), False)}),
        ("mnasnet0_5", {"fc": ("classifier.1", "Linear", (1000,), False)}),
        ("convnext_tiny", {"fc": ("classifier.2", "Linear", (1000,), False)}),
        ("shufflenet_v2_x0_5", {"stage3": ("stage3", "Sequential", (96, 14, 14), False)}),
        ("vit_b_32", {"fc": ("heads.head", "Linear", (1000,), False)}),
    ],
)
def test_aliases_name_the_modules_of_the_literature(name, expected):
    model, layers = named(name)
    modules = dict(model.named_modules())
    assert [alias for alias in layers if alias in expected] == list(expected)
    for alias, (path, kind, shape, rectified) in expected.items():
        layer = layers[alias]
        assert (layer.path, layer.kind, layer.shape) == (path, kind, shape)
        assert layer.rectified is rectified, alias
        assert type(modules[path]).__name__ == kind


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_every_vgg_has_its_sixteen_or_fewer_convolutions(depth):
    for suffix in ("", "_bn"):
        _, layers = named(f"vgg{depth}{suffix}", (32, 32))
        numbered = [name for name in layers if name.startswith("conv") and "_" in name]
        assert len(numbered) == depth - 3
        for block in range(1, 6):
            last = [name for name in numbered if name.startswith(f"conv{block}_")][-1]
            assert layers[f"conv{block}"].path == layers[last].path
            assert layers[f"relu{block}"].path == layers[last.replace("conv", "relu")].path


def test_layers_are_listed_in_the_order_they_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Conv2d(4, 2, 1)
            self.first = nn.Conv2d(3, 4, 1)
            self.unused = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.last(F.relu(self.first(x)))

    model = Backwards().eval()
    layers = name_layers(model, find_layers(model, (5, 7)))
    assert list(layers) == ["first", "last"]
    assert layers["first"].rectified
    assert not layers["last"].rectified
    assert layers["first"].shape == (4, 5, 7)
    assert layers["first"].is_spatial


def test_a_module_that_runs_twice_is_its_last_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return torch.relu(self.conv(self.conv(x))).flatten(1)

    layer = find_layers(Twice().eval(), (9, 9))["conv"]
    assert layer.calls == 2
    assert layer.shape == (3, 5, 5)
    assert layer.rectified


def network():
    with torch.device("meta"):
        model = torchvision.models.alexnet()
    transform = Transform(resize=64, crop=64)
    return Network(
        model.to_empty(device="cpu"), "alexnet", weights="none", transform=transform, device="cpu"
    )


def test_wrong_names_list_the_right_ones_with_the_close_ones_first():
    net = network()
    with pytest.raises(LayerError) as caught:
        net.layer("conv6")
    message = str(caught.value)
    assert "\n" not in message
    assert message.index("conv5") < message.index("conv1, relu1")
    assert all(name in message for name in net.layers)
    with pytest.raises(LayerError, match=r"features\.10"):
        net.layer("feature.10")
    with pytest.raises(LayerError, match="''"):
        net.layer("")


def test_paths_are_names_too():
    net = network()
    assert net.layer("features.10").path == net.layer("conv5").path
    assert net.layer("features.10").name == "features.10"
    assert net.layer("classifier").shape == (1000,)
    with pytest.raises(TypeError):
        net.layers["new"] = net.layers["conv1"]


def test_layers_after_counts_to_the_logits() -> None:
    alexnet = load_model("alexnet", weights="random", device="cpu")
    assert [alexnet.layers_after(name) for name in ("fc8", "relu7", "fc7")] == [0, 1, 2]
    resnet = load_model("resnet18", weights="random", device="cpu")
    assert [resnet.layers_after(name) for name in ("fc", "avgpool", "layer4")] == [0, 1, 2]


def test_a_network_can_be_copied_with_its_layers_listed() -> None:
    network = load_model("tiny-shapes", device="cpu")
    before = list(network.layers)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(network)))
    assert list(twin.layers) == before
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(twin(images), network(images))
    assert twin.model.conv1.weight.data_ptr() != network.model.conv1.weight.data_ptr()
