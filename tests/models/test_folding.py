"""Folded networks: the same layers within rounding, and none that changed."""

import pytest
import torch
from torch import nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import LayerError
from fc7.engine.models import Network, load_model


def with_statistics(model):
    """Give normalisations something to do: statistics and weights that are not the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


def network_of(model, size=32):
    transform = Transform(resize=size, crop=size)
    return Network(model, "test", weights="own", transform=transform, device="cpu")


@pytest.mark.parametrize(
    ("name", "layers", "changed"),
    [
        ("resnet18", ["layer1.0.bn1", "layer2", "layer3.0.conv1", "avgpool", "fc"], "conv1"),
        ("mobilenet_v2", ["features.0.1", "features.5", "fc"], "features.0.0"),
    ],
)
def test_folded_layers_differ_by_rounding_only(name, layers, changed):
    torch.manual_seed(0)
    network = load_model(name, "random", device="cpu")
    with_statistics(network.model)
    images = torch.rand(2, 3, 64, 64)
    folded = network.folded(layers)
    with torch.inference_mode():
        expected = network.activations(images, layers)
        actual = folded.activations(images, layers)
        logits = network(images), folded(images)
    for layer in layers:
        # Each of some fifty layers rounds to 24 bits in its own order: 50 * 2 ** -24 = 3e-6.
        error = (actual[layer] - expected[layer]).abs().max() / expected[layer].abs().max()
        assert error < 1e-5, layer
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    assert folded.describe() == network.describe()
    assert network.layer(changed)
    with pytest.raises(LayerError):
        folded.layer(changed)
    kinds = [type(module) for module in folded.model.modules()]
    left = kinds.count(nn.BatchNorm2d)
    assert left == sum(".conv" in layer for layer in layers)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.model.modules()) > left


class Shared(nn.Module):
    """Nothing here may be folded: outputs read twice, modules that run twice, and no pairs."""

    def __init__(self):
        super().__init__()
        self.read_twice, self.norm1 = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.run_twice, self.norm2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.bare = nn.Conv2d(4, 4, 1)
        self.norm3 = nn.BatchNorm2d(4)
        self.batchwise, self.norm4 = (
            nn.Conv2d(4, 4, 1),
            nn.BatchNorm2d(4, track_running_stats=False),
        )

    def forward(self, x):
        x = self.read_twice(x)
        x = x + self.norm1(x)
        x = self.norm2(self.run_twice(self.norm2(self.run_twice(x))))
        x = self.norm3(self.bare(x) * 2)
        return self.norm4(self.batchwise(x))


def test_what_cannot_be_folded_is_left_alone():
    torch.manual_seed(0)
    network = network_of(with_statistics_of_tracking(Shared()))
    folded = network.folded([])
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(folded(images), network(images))
    assert list(folded.layers) == list(network.layers)


def with_statistics_of_tracking(model):
    for norm in (model.norm1, model.norm2, model.norm3):
        with_statistics(nn.Sequential(norm))
    return model


def test_a_kept_container_keeps_its_convolution():
    torch.manual_seed(0)
    network = network_of(
        with_statistics(
            nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4, affine=True))
        )
    )
    images = torch.rand(1, 3, 32, 32)
    kept = network.folded(["0"]).activations(images, ["0"])["0"]
    assert torch.equal(kept, network.activations(images, ["0"])["0"])
    with pytest.raises(LayerError):
        network.folded(["1"]).layer("0")


def test_the_network_itself_does_not_change():
    network = load_model("shufflenet_v2_x0_5", "random", device="cpu")
    folded = network.folded(["fc"])
    folded.to(torch.device("cpu"))
    from fc7.engine.models.state import digest_of

    assert digest_of(network.model) == network.digest
    assert folded.model.fc.weight.data_ptr() == network.model.fc.weight.data_ptr()


class Hooked(nn.Module):
    def __init__(self, hook):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        hook(self)

    def forward(self, images):
        return self.norm(self.convolution(images)).relu().mean((2, 3))


@pytest.mark.parametrize(
    "hook",
    [
        lambda m: m.convolution.register_forward_hook(lambda _, images, output: output * 2),
        lambda m: m.norm.register_forward_hook(lambda _, maps, output: output + 1),
        lambda m: m.norm.register_forward_pre_hook(lambda _, maps: (maps[0] * 2,)),
        lambda m: nn.utils.spectral_norm(m.convolution),
        lambda m: nn.utils.parametrizations.weight_norm(m.convolution),
    ],
)
def test_what_hooks_do_is_not_folded_away(hook):
    torch.manual_seed(0)
    network = network_of(with_statistics(Hooked(hook)))
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network.folded([])(images), network(images))
