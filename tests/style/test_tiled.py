"""Losses and gradients in tiles beside those of the whole image."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.models.rectified import Rectified
from fc7.engine.style.layers import StyleLayers
from fc7.engine.style.perceptual import Perceptual, Targets
from fc7.engine.style.picture import DescentOptions, descend
from fc7.engine.style.tiled import TiledPerceptual
from fc7.engine.style.tiling import Reach, spans, tiling_of
from fc7.engine.synthesis.evaluation import Way

# float64 throughout, and gradients rounded to float32 once a tile: their largest share is 1e-7.
EQUAL = 1e-6


def loaded(name: str) -> Network:
    """Return a network that computes in float64, where rounding decides no maximum and no ReLU."""
    kind = {} if name.startswith("tiny") else {"weights": "random"}
    return in_float64(load_model(name, device="cpu", **kind))


def in_float64(network: Network) -> Network:
    network.model.double()
    mean, std = (torch.tensor(each).double()[:, None, None] for each in (network.mean, network.std))
    network.__dict__["normalise"] = lambda images: (images.double() - mean) / std
    return network


def images(count: int, seed: int, size: tuple[int, int]) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def apart(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize(
    ("name", "style", "content", "size", "tile", "tiles"),
    [
        ("tiny-cifar10", ("relu1", "conv3", "relu5"), "relu4", (61, 90), 56, 15),
        ("alexnet", ("relu1", "relu5"), "relu4", (91, 277), 240, 4),
        ("vgg19", ("relu1_1", "relu3_1"), "relu4_1", (131, 24), 112, 4),
        ("resnet18", ("relu", "layer1"), "layer2.0", (60, 203), 160, 3),
        ("googlenet", ("conv1", "conv2"), "inception3a", (61, 101), 80, 3),
    ],
)
def test_tiles_are_the_whole(
    name: str,
    style: tuple[str, ...],
    content: str,
    size: tuple[int, int],
    tile: int,
    tiles: int,
) -> None:
    network = loaded(name)
    weights = {layer: 0.3 + number for number, layer in enumerate(style)}
    whole = Perceptual(network, weights, {content: 0.7}, size=size)
    tiled = TiledPerceptual(network, weights, {content: 0.7}, tile=tile)
    assert tiled.tiles(size) == tiles
    x, start, painting = (images(1, seed, size) for seed in range(3))
    targets = whole.targets(start, whole.grams(painting))
    again = tiled.targets(start, tiled.grams(painting))
    for layer in style:
        assert apart(again.grams[layer], targets.grams[layer]) < EQUAL
    assert again.content.keys() == {content}
    assert apart(again.content[content], targets.content[content]) < EQUAL
    found, expected = tiled(x, targets), whole(x, targets)
    assert apart(found.gradients, expected.gradients) < EQUAL
    torch.testing.assert_close(found.total, expected.total, rtol=EQUAL, atol=0)
    assert tuple(found.losses) == tiled.terms
    for term, loss in expected.losses.items():
        torch.testing.assert_close(found.losses[term], loss.float(), rtol=1e-5, atol=0)


def test_float32_is_as_near_as_rounding_allows() -> None:
    network = load_model("tiny-cifar10", device="cpu")
    style, size = {"relu1": 1.0, "relu5": 1.0}, (101, 83)
    whole = Perceptual(network, style, {"relu4": 1.0}, size=size)
    tiled = TiledPerceptual(network, style, {"relu4": 1.0}, tile=64)
    x = images(1, 3, size)
    targets = whole.targets(images(1, 4, size), whole.grams(images(1, 5, size)))
    found, expected = tiled(x, targets), whole(x, targets)
    # A ReLU or a maximum that rounding turns changes what it sees by a fraction: few, and little.
    away = (found.gradients - expected.gradients).abs() / expected.gradients.abs().max()
    assert float(away.norm() * expected.gradients.abs().max() / expected.gradients.norm()) < 1e-3
    assert float((away > 1e-5).float().mean()) < 0.02
    torch.testing.assert_close(found.total, expected.total, rtol=1e-5, atol=0)
    for each in (found.total, found.gradients, *found.losses.values()):
        assert each.dtype == torch.float32


class Averaged(Rectified):
    """Maxima are means, on the way there and back."""

    def __init__(self) -> None:
        super().__init__("plain")

    def __torch_function__(
        self, func: object, types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> Tensor:
        if func in (nn.functional.max_pool2d, torch.max_pool2d):
            result: Tensor = nn.functional.avg_pool2d(*args[:3])  # type: ignore[arg-type]
            return result
        answer: Tensor = super().__torch_function__(func, types, args, kwargs)  # type: ignore[arg-type]
        return answer


def test_other_modes_are_tiled_too() -> None:
    network, size = loaded("tiny-cifar10"), (90, 61)
    x, painting = images(1, 6, size), images(1, 7, size)
    found = {}
    for way in ("plain", Averaged):
        whole = Perceptual(network, {"relu3": 1.0}, way=way, size=size)
        tiled = TiledPerceptual(network, {"relu3": 1.0}, way=way, tile=64)
        targets = whole.targets(None, whole.grams(painting))
        found[way] = tiled(x, targets).gradients
        assert apart(found[way], whole(x, targets).gradients) < EQUAL
    assert apart(found["plain"], found[Averaged]) > 0.1


@pytest.mark.parametrize("way", ["guided", "deconv", "redirected"])
def test_ways_that_are_not_linear_are_refused(way: Way) -> None:
    with pytest.raises(OptionError, match=f"'{way}' do not add up"):
        TiledPerceptual(load_model("tiny-cifar10", device="cpu"), {"relu1": 1.0}, way=way)


STACKS = st.lists(
    st.tuples(
        st.sampled_from(["conv", "max", "mean", "ceil", "branches"]),
        st.integers(1, 5),  # kernel
        st.integers(1, 3),  # stride
        st.integers(0, 2),  # padding
    ),
    min_size=1,
    max_size=3,
)


class Branches(nn.Module):
    """Two ways of different reach whose sum goes on, as in a residual block."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(4, 4, 3, stride, 1)
        self.narrow = nn.Conv2d(4, 4, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.wide(x) + self.narrow(x)
        return total


def stack(parts: list[tuple[str, int, int, int]]) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Conv2d(3, 4, 1)]
    for kind, kernel, stride, padding in parts:
        if kind == "conv":
            modules.append(nn.Conv2d(4, 4, kernel, stride, min(padding, kernel - 1)))
        elif kind == "branches":
            modules.append(Branches(stride))
        elif kind == "mean":
            modules.append(nn.AvgPool2d(kernel, stride, min(padding, kernel // 2)))
        else:
            around = min(padding, kernel // 2)
            modules.append(nn.MaxPool2d(kernel, stride, around, ceil_mode=kind == "ceil"))
    return nn.Sequential(*modules)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    parts=STACKS,
    height=st.integers(60, 150),
    width=st.integers(40, 60),
    more=st.integers(0, 40),
)
def test_features_of_tiles_are_those_of_the_whole(
    parts: list[tuple[str, int, int, int]], height: int, width: int, more: int
) -> None:
    torch.manual_seed(0)
    network = in_float64(
        Network(stack(parts), "stack", weights="random", transform=Transform(40, 40), device="cpu")
    )
    names = [str(number) for number in range(len(parts) + 1)]
    with pytest.raises(OptionError, match="must be") as refusal:
        tiling_of(network, names, (height, width), 0)
    tile = int(str(refusal.value).split("must be ")[1].split()[0]) + more
    tiling = tiling_of(network, names, (height, width), tile)
    x = images(1, 8, (height, width))
    whole = network.activations(x, names)
    found = {name: torch.full_like(each, float("nan")) for name, each in whole.items()}
    counts = {name: torch.zeros(each.shape[2:], dtype=torch.int64) for name, each in whole.items()}
    for one in tiling.tiles:
        pixels = one.crop(x)
        assert max(pixels.shape[2:]) <= tile
        for name, each in network.activations(pixels, names).items():
            one.of_image(name, found[name])[:] = one.of_tile(name, each)
            one.of_image(name, counts[name])[:] += 1
    for name, each in whole.items():
        assert bool((counts[name] == 1).all())
        torch.testing.assert_close(found[name], each, rtol=1e-10, atol=1e-12)
        shares = sum(tiling.share(one, name) for one in tiling.tiles)
        assert shares == pytest.approx(1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    length=st.integers(1, 3000),
    tile=st.integers(1, 700),
    layers=st.lists(
        st.tuples(st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 80), st.integers(0, 80)),
        min_size=1,
        max_size=4,
    ),
)
def test_each_position_has_one_owner(
    length: int, tile: int, layers: list[tuple[int, int, int]]
) -> None:
    reaches = {
        str(number): Reach(before + stride + after, stride, -before, -(-length // stride))
        for number, (stride, before, after) in enumerate(layers)
    }
    try:
        found = spans(length, tile, reaches)
    except OptionError:
        least = max(reach.size for reach in reaches.values())
        assert tile < least + 3 * 16 + 160  # halos of different layers, and two strides
        return
    assert all(span.pixels.stop - span.pixels.start <= tile for span in found)
    for name, reach in reaches.items():
        owned = [j for span in found for j in range(span.own[name].start, span.own[name].stop)]
        assert owned == list(range(reach.count))
        for span in found:
            first = reach.offset + span.own[name].start * reach.stride
            last = reach.offset + (span.own[name].stop - 1) * reach.stride + reach.size
            assert span.pixels.start <= max(0, first)
            assert span.pixels.stop >= min(length, last)
            steps = span.own[name].start - span.inside[name].start
            assert steps * reach.stride == span.pixels.start


def test_what_sees_all_or_not_in_even_steps_is_refused() -> None:
    network = load_model("resnet18", weights="random", device="cpu")
    with pytest.raises(OptionError, match=r"avgpool of resnet18 does not see .* even steps"):
        tiling_of(network, ["layer1", "avgpool"], (600, 300), 500)
    doubled = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, 1, 1)
    )
    odd = Network(doubled, "odd", weights="random", transform=Transform(32, 32), device="cpu")
    with pytest.raises(OptionError, match="2 of odd does not see"):
        tiling_of(odd, ["2"], (200, 60), 64)
    around = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.ReLU())
    ring = Network(around, "ring", weights="random", transform=Transform(32, 32), device="cpu")
    with pytest.raises(OptionError, match="1 of ring does not see"):
        tiling_of(ring, ["1"], (200, 60), 64)


def test_a_tile_too_small_is_refused_with_the_least() -> None:
    network = load_model("tiny-cifar10", device="cpu")
    with pytest.raises(OptionError, match=r"relu5 see 36 pixels; it must be 39 or more"):
        tiling_of(network, ["relu1", "relu5"], (100, 30), 38)
    assert len(tiling_of(network, ["relu1", "relu5"], (100, 30), 39).tiles) == 25


def test_a_row_does_not_depend_on_its_company() -> None:
    network, size = load_model("tiny-cifar10", device="cpu"), (63, 39)
    judge = TiledPerceptual(network, {"relu1": 1.0, "relu4": 1.0}, {"relu3": 1.0}, tile=48)
    x = images(3, 9, size)
    targets = judge.targets(images(3, 10, size), judge.grams(images(3, 11, (60, 37))))
    found = judge(x, targets)
    for row in range(3):
        own = Targets(
            {name: each[row : row + 1] for name, each in targets.grams.items()},
            {name: each[row : row + 1] for name, each in targets.content.items()},
        )
        alone = judge(x[row : row + 1], own)
        assert torch.equal(alone.gradients[0], found.gradients[row])
        assert torch.equal(alone.total[0], found.total[row])
        assert all(
            torch.equal(alone.losses[term][0], found.losses[term][row]) for term in judge.terms
        )


def test_pictures_come_down_in_tiles() -> None:
    network, size = load_model("tiny-cifar10", device="cpu"), (61, 39)
    layers = StyleLayers({"relu1": 0.5, "relu3": 0.5}, {"relu4": 1.0})
    judge = TiledPerceptual(network, layers.style, layers.content, tile=48)
    assert judge.tiles(size) > 1
    targets = judge.targets(images(2, 12, size), judge.grams(images(1, 13, (40, 33))))
    found = descend(judge, targets, images(2, 14, size), DescentOptions(6))
    before = judge(images(2, 14, size), targets).total
    assert bool((judge(found.images, targets).total < 0.8 * before).all())


def test_small_images_are_judged_whole() -> None:
    network = load_model("tiny-cifar10", device="cpu")
    layers = StyleLayers({"relu1": 1.0}, {"relu4": 1.0})
    given = TiledPerceptual(network, layers.style, layers.content, tile=200)
    assert given.tiles((200, 150)) == 1
    assert given.tiles((201, 150)) > 1
    big = TiledPerceptual(network, layers.style, layers.content)
    # A pass holds so many pixels, whatever the shape.
    assert big.tiles((4 * big.tile, big.tile // 4)) == 1
    assert big.tiles((big.tile, big.tile + 8)) > 1
    x, size = images(1, 15, (60, 50)), (60, 50)
    whole = Perceptual(network, layers.style, layers.content, size=size)
    targets: Mapping[bool, Targets] = {
        tiled: each.targets(x, each.grams(x)) for tiled, each in ((True, big), (False, whole))
    }
    assert torch.equal(targets[True].content["relu4"], targets[False].content["relu4"])
    y = images(1, 16, size)
    assert torch.equal(big(y, targets[True]).gradients, whole(y, targets[False]).gradients)
