"""Taps: the module's own output, from a pass that stops."""

import threading

import pytest
import torch
from torch import nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import LayerError
from fc7.engine.models import Network, load_model


def small(model, size=16, precision="fp32"):
    transform = Transform(resize=size, crop=size)
    return Network(
        model, "small", weights="own", transform=transform, device="cpu", precision=precision
    )


class Bomb(nn.Module):
    """Runs when the layers are listed; explodes afterwards."""

    armed = False

    def forward(self, x):
        if self.armed:
            raise AssertionError("ran past the deepest layer")
        return x


@pytest.fixture(scope="module")
def alexnet():
    return load_model("alexnet", "random", device="cpu")


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 97, 80, generator=torch.Generator().manual_seed(0))


def test_a_tap_is_untouched_by_the_inplace_relu_after_it(alexnet, images):
    with torch.inference_mode():
        taps = alexnet.activations(images, ["conv1", "relu1", "conv5", "relu5", "features.0"])
        x = alexnet.normalise(images)
        for place, module in enumerate(alexnet.model.features):
            x = module.forward(x)
            if place in (0, 10):
                by_hand = x.clone()
                name = {0: "conv1", 10: "conv5"}[place]
                assert by_hand.min() < 0
                assert torch.equal(taps[name], by_hand)
            if place in (1, 11):
                assert torch.equal(taps[{1: "relu1", 11: "relu5"}[place]], x)
    assert torch.equal(taps["features.0"], taps["conv1"])
    assert list(taps) == ["conv1", "relu1", "conv5", "relu5", "features.0"]


def test_reduce_sees_the_output_before_anything_changes_it(alexnet, images):
    lowest = alexnet.activations(images, ["conv5", "conv1"], lambda layer, out: float(out.min()))
    assert list(lowest) == ["conv5", "conv1"]
    assert max(lowest.values()) < 0


def test_the_pass_stops_at_the_deepest_layer():
    bomb = Bomb()
    network = small(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), bomb, nn.Conv2d(4, 2, 3)))
    bomb.armed = True
    images = torch.rand(2, 3, 16, 16)
    assert network.activations(images, ["1", "0"])["1"].shape == (2, 4, 14, 14)
    with pytest.raises(AssertionError, match="past"):
        network.activations(images, ["0", "3"])


def test_a_model_that_swallows_errors_stops_all_the_same():
    class Swallows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            self.fallback = Bomb()

        def forward(self, x):
            try:
                return self.conv(x)
            except Exception:
                return self.fallback(x)

    network = small(Swallows())
    assert network.activations(torch.rand(1, 3, 16, 16), ["conv"])["conv"].shape == (1, 2, 16, 16)


def test_hooks_are_gone_whatever_happens(alexnet, images):
    def failing(layer, output):
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        alexnet.activations(images, ["conv3"], failing)
    with pytest.raises(LayerError, match="conv5"):
        alexnet.activations(images, ["conv5", "conv9"])
    with pytest.raises(LayerError, match="at least one"):
        alexnet.activations(images, [])
    alexnet.activations(images, ["conv2"])
    assert all(not module._forward_hooks for module in alexnet.modules())


def test_a_shared_module_counts_with_its_last_call():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.conv(self.relu(self.conv(x))))

    torch.manual_seed(0)
    network = small(Shared())
    images = torch.rand(2, 3, 16, 16)
    taps = network.activations(images, ["conv", "relu"])
    first = network.model.conv(network.normalise(images)).relu()
    assert torch.equal(taps["conv"], network.model.conv(first))
    assert torch.equal(taps["relu"], taps["conv"].relu())


def test_a_layer_that_is_not_reached_is_an_error():
    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.large, self.small = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return (self.large if x.shape[-1] > 8 else self.small)(x)

    network = small(Choosy())
    with pytest.raises(LayerError, match="did not reach large"):
        network.activations(torch.rand(1, 3, 8, 8), ["large"])


def test_gradients_reach_the_images_through_taps_and_logits(alexnet, images):
    pixels = images.clone().requires_grad_(True)
    taps = alexnet.activations(pixels, ["conv2", "conv4"])
    (taps["conv2"].sum() + taps["conv4"].sum()).backward()
    assert pixels.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in alexnet.parameters())
    pixels.grad = None
    alexnet(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_threads_see_their_own_pass():
    network = load_model("tiny-shapes", "random", device="cpu")
    batches = [torch.rand(1 + number, 3, 64, 64) for number in range(4)]
    expected = [network.activations(batch, ["conv3"])["conv3"] for batch in batches]
    wrong = []

    def work(number):
        for _ in range(20):
            for layer in ("conv3", "conv5"):
                taps = network.activations(batches[number], ["conv3", layer])
                if not torch.equal(taps["conv3"], expected[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_bf16_taps_are_bf16_and_near():
    exact = load_model("tiny-shapes", "random", device="cpu")
    rough = load_model("tiny-shapes", "random", device="cpu", precision="bf16")
    images = torch.rand(4, 3, 64, 64)
    a, b = (net.activations(images, ["fc7"])["fc7"] for net in (exact, rough))
    assert (a.dtype, b.dtype) == (torch.float32, torch.bfloat16)
    assert rough.layer("fc7").dtype == torch.bfloat16
    assert rough(images).dtype == torch.float32
    # Seven layers that each round to 8 bits, with errors that add up as a random walk: 2 ** -8 * 7
    # bounds it with room to spare.
    assert (a - b.float()).norm() / a.norm() < 0.028
    assert rough.digest == exact.digest
