"""Networks by other ways, beside the same networks written out in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fc7.engine.errors import QuestionError
from fc7.engine.models import load_model
from fc7.engine.style.perceptual import Perceptual
from fc7.engine.style.ways import Averaging, Mirrored, MirroredAveraging, Wrapped, WrappedAveraging

Layer = Callable[..., nn.Module]


def images(count: int, size: tuple[int, int], channels: int = 3) -> Tensor:
    drawn = torch.Generator().manual_seed(sum(size))
    return torch.randn(count, channels, *size, generator=drawn)


def same_net(conv: dict[str, Any], pool: Layer, **more: Any) -> nn.Sequential:
    """Return two convolutions with a pooling between them; `more` goes to both."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, **conv, **more),
        nn.ReLU(),
        pool(),
        nn.Conv2d(6, 4, 3, padding=1, **more),
        nn.ReLU(),
    )


def agree(mode: type[Any], given: nn.Module, expected: nn.Module, x: Tensor) -> None:
    """Check values and gradients of float32 under a mode beside float64 without."""
    near = x.clone().requires_grad_()
    with mode():
        found = given(near)
    wide = x.double().requires_grad_()
    wanted = expected.double()(wide)
    assert found.shape == wanted.shape
    weights = torch.arange(wanted[0].numel()).double().cos().view(wanted.shape[1:])
    (back,) = torch.autograd.grad((found * weights.float()).sum(), near)
    (wanted_back,) = torch.autograd.grad((wanted * weights).sum(), wide)
    # float32 sums of some hundred products.
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(back.double(), wanted_back, rtol=1e-4, atol=1e-5)


CONVS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 5), "padding": (1, 2)},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "same", "dilation": 3},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 3},
    {"kernel_size": 5, "padding": 2, "stride": 2},
]


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_a_wrapped_convolution_has_circular_padding(conv: dict[str, Any]) -> None:
    given = same_net(conv, lambda: nn.MaxPool2d(2))
    expected = same_net(conv, lambda: nn.MaxPool2d(2), padding_mode="circular")
    agree(Wrapped, given, expected, images(2, (12, 20)))


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_both_ways_at_once(conv: dict[str, Any]) -> None:
    given = same_net(conv, lambda: nn.MaxPool2d(2))
    expected = same_net(conv, lambda: nn.AvgPool2d(2), padding_mode="circular")
    agree(WrappedAveraging, given, expected, images(2, (12, 20)))


@pytest.mark.parametrize("mode", [Mirrored, MirroredAveraging])
def test_a_mirrored_image_goes_on_in_its_mirror(mode: type[Any]) -> None:
    """As if three copies each way were there, every other one turned round."""
    torch.manual_seed(2)
    conv, x = nn.Conv2d(2, 3, (5, 4), padding="same"), images(1, (3, 4), 2)
    with mode(), torch.no_grad():
        found = conv(x)
    across = torch.cat([x.flip(3), x, x.flip(3)], 3)
    nine = torch.cat([across.flip(2), across, across.flip(2)], 2)
    with torch.no_grad():
        expected = conv.double()(nine.double())[:, :, 3:6, 4:8]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "pool",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (2, 3), "ceil_mode": True},
    ],
    ids=str,
)
def test_means_take_the_place_of_maxima(pool: dict[str, Any]) -> None:
    conv = {"kernel_size": 3, "padding": 1}
    given = same_net(conv, lambda: nn.MaxPool2d(**pool))
    expected = same_net(conv, lambda: nn.AvgPool2d(**pool, count_include_pad=False))
    agree(Averaging, given, expected, images(2, (11, 17)))


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.MaxPool2d(2),
    "function": lambda x: F.max_pool2d(x, 2),
    "torch": lambda x: torch.max_pool2d(x, 2),
    "named": lambda x: F.max_pool2d(x, kernel_size=2, stride=2),
    "aten": lambda x: torch.ops.aten.max_pool2d(x, [2, 2]),
    "aten default": lambda x: torch.ops.aten.max_pool2d.default(x, [2, 2], [2, 2]),
}


@pytest.mark.parametrize("name", sorted(SPELLINGS))
def test_however_a_pooling_is_spelt(name: str) -> None:
    x = images(1, (8, 10))
    expected = x.double().unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    for mode in (Averaging, WrappedAveraging):
        with mode():
            found = SPELLINGS[name](x)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    with Averaging(), pytest.raises(QuestionError, match="dilation"):
        F.max_pool2d(x, 2, dilation=2)


class Unlike(nn.Module):
    """Windows that reach further than strides, as AlexNet's, and a padding of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(3, 5, 7, stride=4, padding=2)
        self.second = nn.Conv2d(5, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.first(x), 3, 2)
        x = self.second(F.pad(x, (1, 0, 2, 1), mode="replicate"))
        return F.avg_pool2d(x, 3, 2, padding=1)


@pytest.mark.parametrize("mode", [Wrapped, WrappedAveraging])
def test_on_a_torus_no_place_is_special(mode: type[Any]) -> None:
    """What moves an image by the steps of all layers moves what they return by one place."""
    net, x = Unlike(), images(1, (32, 48))
    with mode(), torch.no_grad():
        found, moved = net(x), net(x.roll((16, -32), (2, 3)))
    assert found.shape == (1, 4, 2, 3)
    torch.testing.assert_close(moved, found.roll((1, -2), (2, 3)), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert not torch.allclose(net(x), net(x.roll(16, 2)).roll(-1, 2), atol=1e-2)


def test_a_torus_smaller_than_the_window_goes_round_several_times() -> None:
    conv = nn.Conv2d(2, 3, 7, padding=3)
    x = images(1, (2, 3), 2)
    with Wrapped(), torch.no_grad():
        found = conv(x)
    with torch.no_grad():
        expected = conv(x.repeat(1, 1, 9, 7))[:, :, 8:10, 9:12]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_grams_are_read_the_same_way() -> None:
    network = load_model("tiny-cifar10", device="cpu")
    x = images(2, (16, 24)).sigmoid()
    judge = Perceptual(network, {"pool1": 1.0, "relu3": 1.0}, way=WrappedAveraging)
    found = judge.grams(x)
    assert float(judge(x, judge.targets(None, found)).total.max()) < 1e-10
    moved = judge.grams(x.roll((4, 8), (2, 3)))
    for name, gram in found.items():
        torch.testing.assert_close(moved[name], gram, rtol=1e-4, atol=1e-6)
    plain = Perceptual(network, {"pool1": 1.0, "relu3": 1.0}).grams(x)
    assert not torch.allclose(plain["pool1"], found["pool1"], rtol=0.05)
