"""Large images in windows: what is covered, what is the same, and what a pass gets to see."""

import math

import pytest
import torch
from torch import Tensor

from fc7.engine.models import Network, load_model
from fc7.engine.models.passes import bytes_a_pixel
from fc7.engine.synthesis.dream import Dreamer, DreamOptions, dream_images
from fc7.engine.synthesis.evaluation import Evaluator
from fc7.engine.synthesis.guide import guided_by
from fc7.engine.synthesis.objectives import Objective, activation_norm, channel, direction
from fc7.engine.synthesis.octaves import resized
from fc7.engine.synthesis.tiles import WindowedGradient, usual_tile, windows_of

# Pixels that conv3 of tiny-cifar10 sees: of 5, pooled, 3 twice as far apart, pooled, 3 four times.
SEEN = 5 + 1 + 2 * 2 + 2 + 2 * 4


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-cifar10", device="cpu")


def images(count: int, size: tuple[int, int]) -> Tensor:
    coarse = torch.rand(count, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    return resized(coarse, size)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 64), (100, 1000), (1300, 31)])
@pytest.mark.parametrize("tile", [1, 48, 64, 512])
def test_windows_fill_each_pixel_once(size: tuple[int, int], tile: int) -> None:
    if tile == 1 and math.prod(size) > 5000:
        size = (size[0] % 60 + 1, size[1] % 60 + 1)
    windows = windows_of(size, tile)
    filled = torch.zeros(size)
    for rows, columns, own_rows, own_columns in windows.places():
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        assert shape == windows.window
        assert max(shape) <= tile
        assert rows.start >= 0
        assert columns.start >= 0
        assert rows.stop <= size[0]
        assert columns.stop <= size[1]
        assert own_rows.start >= rows.start
        assert own_columns.start >= columns.start
        filled[own_rows, own_columns] += 1
    assert torch.equal(filled, torch.ones(size))
    assert windows.is_whole == (max(size) <= tile)


def gradients(
    network: Network, x: Tensor, objective: Objective, tile: int
) -> tuple[Tensor, Tensor]:
    """Gradients and scores of images in tiles."""
    windows = windows_of((x.shape[2], x.shape[3]), tile)
    evaluator = Evaluator(network, objective.layers)
    gradient = WindowedGradient(network, evaluator, [objective] * len(x), windows)
    return gradient(x), gradient.scores(x)


def asked(network: Network) -> dict[str, Objective]:
    vector = torch.randn(
        network.layer("conv3").shape[0], generator=torch.Generator().manual_seed(3)
    )
    guide = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(4))
    return {
        "sums and means": activation_norm("conv3") + 9000.0 * channel("conv2", 5),
        "direction": direction("conv3", vector),
        "guide": guided_by(network, "conv3", guide),
    }


@pytest.mark.parametrize("name", ["sums and means", "direction", "guide"])
def test_away_from_seams_windows_change_nothing(network: Network, name: str) -> None:
    x, objective = images(2, (64, 128)), asked(network)[name]
    whole, tiled = (gradients(network, x, objective, tile) for tile in (128, 64))
    # Windows begin at 0, 48 and 64; the first two meet at 56, the last two at 88.
    inner = [c for c in range(128) if min(abs(c - 55.5), abs(c - 87.5)) > SEEN - 8]
    expected, found = whole[0][..., inner], tiled[0][..., inner]
    assert float((found - expected).norm() / expected.norm()) < 1e-4
    torch.testing.assert_close(tiled[1], whole[1], rtol=0.1, atol=0)


def test_a_dream_in_tiles_gains_as_much(network: Network) -> None:
    """As one that is rolled as far: half a tile. Both are judged by one pass over the whole."""
    x, evaluator = images(1, (80, 118)), Evaluator(network, ["conv4"])

    def norm(pixels: Tensor) -> float:
        return float(evaluator.outputs(pixels)["conv4"].norm())

    whole, tiled = (
        dream_images(network, x, "conv4", DreamOptions(octaves=2, steps=6, tile=tile, jitter=32))
        for tile in (118, 64)
    )
    assert norm(whole.images) > 1.3 * norm(x)
    assert norm(tiled.images) == pytest.approx(norm(whole.images), rel=0.05)
    # Windows lack what is beyond their edges, and so do their scores.
    assert float(tiled.after) == pytest.approx(norm(tiled.images) ** 2 / 2, rel=0.1)
    assert tiled.images.shape == x.shape
    # No column of pixels is left behind where windows meet: rolled, they meet everywhere.
    moved = (tiled.images - x).abs().mean((0, 1, 2))
    assert moved.min() > 0.3 * moved.mean()


def test_no_pass_sees_more_than_a_tile(network: Network) -> None:
    seen: list[tuple[int, ...]] = []
    dreamer = Dreamer(network, [channel("conv2", 1)], DreamOptions(octaves=2, steps=1, tile=32))
    first = dreamer._evaluator.network.model.get_submodule("conv1")
    handle = first.register_forward_pre_hook(lambda _m, args: seen.append(tuple(args[0].shape)))
    try:
        dreamer(images(1, (70, 100)), [0])
    finally:
        handle.remove()
    assert {shape[0] for shape in seen} <= {1}
    assert max(max(shape[2:]) for shape in seen) == 32
    # Before, after, and a step in two octaves: 3 x 4 windows of the image, 2 x 3 of 50 x 71.
    assert len(seen) == 3 * 12 + 6


@pytest.mark.parametrize(("name", "layer"), [("squeezenet1_0", "conv10"), ("resnet18", "layer4")])
def test_a_usual_tile_keeps_a_gibibyte_at_most(name: str, layer: str) -> None:
    network = load_model(name, weights="random", device="cpu")
    tile = usual_tile(network, [layer])
    each = bytes_a_pixel(network, [layer])
    assert tile >= 224
    assert tile**2 * each <= 1 << 30 < (tile + 32) ** 2 * each
    assert bytes_a_pixel(network, ["conv1"]) < each


def test_bytes_of_a_pixel_are_those_of_the_layers_on_the_way(network: Network) -> None:
    shapes = [(64, 32, 32), (64, 32, 32), (64, 16, 16), (128, 16, 16)]
    expected = 4 * sum(map(math.prod, shapes)) / 32**2
    assert bytes_a_pixel(network, ["conv2", "conv1"]) == expected
