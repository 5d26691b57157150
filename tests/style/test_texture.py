"""Textures: how near they come, what they depend on, whether they tile, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.errors import LayerError, OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.style.grams import at_scale
from fc7.engine.style.layers import texture_layers
from fc7.engine.style.texture import Synthesiser, TextureOptions, noise, synthesise
from fc7.engine.synthesis.keyed import keys_of_rows

QUICK = TextureOptions(size=(32, 48), layers=("relu1", "pool1"), evaluations=8)


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-cifar10", device="cpu")


def blobs(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Return patches of coloured noise, smooth over three pixels, of unlike contrast."""
    drawn = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(drawn, 3, 1, 1, count_include_pad=False)
    shift = torch.linspace(-0.2, 0.2, count * 3).view(count, 3, 1, 1)
    return ((smooth - 0.5) * 2 + 0.5 + shift).clamp(0, 1)


def second_moments(network: Network, x: Tensor, wrapped: bool) -> dict[str, Tensor]:
    """Return the Gram matrices of tiny-cifar10's layers, in float64, by a net written out.

    Circular padding, or the image's mirror, in which its edge comes again.
    """
    model = network.model
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (network.mean, network.std))
    found, y = {}, (x.double() - mean) / std
    for name in ("conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "conv3", "relu3"):
        module = model.get_submodule(name)
        if isinstance(module, torch.nn.Conv2d):
            pad = module.kernel_size[0] // 2
            y = torch.from_numpy(
                np.pad(
                    y.numpy(),
                    ((0, 0), (0, 0), (pad, pad), (pad, pad)),
                    mode="wrap" if wrapped else "symmetric",
                )
            )
            assert module.bias is not None
            y = torch.nn.functional.conv2d(y, module.weight.double(), module.bias.double())
        elif name.startswith("relu"):
            y = y.clamp(min=0)
        else:
            y = torch.nn.functional.avg_pool2d(y, 2)
        flat = y.flatten(2)
        found[name] = flat @ flat.mT / flat.shape[2]
    return found


@pytest.mark.parametrize("tileable", [False, True])
def test_the_losses_are_the_formula_of_the_picture(network: Network, tileable: bool) -> None:
    patches = blobs(2, (20, 28))
    options = TextureOptions(
        size=(40, 36), layers=("relu1", "pool1", "relu3=2"), evaluations=3, tileable=tileable
    )
    made = synthesise(network, patches, options)
    wanted = second_moments(network, patches, wrapped=False)
    found = second_moments(network, made.images, wrapped=tileable)
    total = torch.zeros(2, dtype=torch.float64)
    for name, share in (("relu1", 0.25), ("pool1", 0.25), ("relu3", 0.5)):
        apart = (found[name] - wanted[name]).square().sum((1, 2)) / wanted[name].square().sum(
            (1, 2)
        )
        torch.testing.assert_close(made.losses[f"style {name}"].double(), apart, rtol=1e-3, atol=0)
        total += share * apart
    torch.testing.assert_close(made.after.double(), total, rtol=1e-3, atol=0)
    assert made.curves["style relu3"].shape == (2, 3)


@pytest.fixture(scope="module")
def vgg() -> Network:
    return load_model("vgg19", weights="random", device="cpu")


def test_a_picture_larger_than_its_patch_comes_near(network: Network, vgg: Network) -> None:
    """To a thousandth of the noise's distance, by learnt filters and by random ones."""
    patches = at_scale(blobs(1, (8, 8), 1), 4)
    for one, layers in ((network, ()), (vgg, ("relu1_1", "pool1", "pool2"))):
        options = TextureOptions((40, 48), layers, evaluations=60)
        made = synthesise(one, patches, options)
        assert made.images.shape == (1, 3, 40, 48)
        assert float(made.ratio.max()) <= 1e-3
        assert float(made.images.min()) >= 0
        assert float(made.images.max()) <= 1


def seam(picture: NDArray[np.float64], axis: int) -> tuple[float, NDArray[np.float64]]:
    """Return mean squared differences, (3, H, W): across the wrapped edge, and inside, each."""
    across = np.diff(picture, axis=axis, append=np.take(picture, [0], axis))
    lines = (across**2).mean(tuple(set(range(3)) - {axis}))
    return float(lines[-1]), lines[:-1]


def test_what_tiles_has_no_seam(network: Network) -> None:
    """And what is not asked to has one: patches are smooth, and opposite edges know nothing."""
    patches = at_scale(blobs(1, (10, 10), 2), 4)
    options = TextureOptions(size=(40, 48), evaluations=25)
    tiles = TextureOptions(size=(40, 48), evaluations=25, tileable=True)
    one, other = (synthesise(network, patches, each) for each in (tiles, options))
    for axis in (1, 2):
        edge, inside = seam(one.images[0].double().numpy(), axis)
        assert inside.min() <= edge <= inside.max()
        edge, inside = seam(other.images[0].double().numpy(), axis)
        assert edge > inside.max()


def test_the_histogram_is_the_patchs(network: Network) -> None:
    """Of each level of each channel as many pixels as in the patch, four times."""
    patches = blobs(2, (16, 24), 3).mul(255).round().div(255)
    made = synthesise(network, patches, replace(QUICK, histogram="channels"))
    for row in range(2):
        for channel in range(3):
            levels = [t[row, channel].mul(255).round().int() for t in (made.images, patches)]
            found, wanted = (torch.bincount(each.flatten(), minlength=256) for each in levels)
            assert torch.equal(found, 4 * wanted)


def test_noise_has_the_patchs_colours_and_is_the_rows_own() -> None:
    patches = blobs(3, (5, 7), 4)
    keys = keys_of_rows(9, [4, 5, 6], [0, 0, 0])
    found = noise(patches, keys, (40, 50))
    for row in range(3):
        colours = {tuple(pixel) for pixel in patches[row].flatten(1).T.tolist()}
        drawn = [tuple(pixel) for pixel in found[row].flatten(1).T.tolist()]
        assert set(drawn) == colours  # 2,000 draws of 35: one is missed once in 10^24
    alone = noise(patches[1:2], keys_of_rows(9, [5], [0]), (40, 50))
    assert torch.equal(alone[0], found[1])
    assert not torch.equal(noise(patches[1:2], keys_of_rows(9, [5], [1]), (40, 50)), alone)


def test_a_row_does_not_depend_on_its_company(network: Network) -> None:
    patches = blobs(3, (20, 20), 5)
    rows = [0, 1, 2]
    options = TextureOptions(
        size=(32, 32), layers=("relu1", "relu3"), evaluations=6, octaves=2, tileable=True,
        histogram="colours",
    )  # fmt: skip
    found = synthesise(network, patches, options, keys_of_rows(0, rows, [0] * 3))
    for order in ([2, 0, 1], [1, 1, 1]):
        keys = keys_of_rows(0, order, [0] * 3)
        again = synthesise(network, patches[order], options, keys)
        assert torch.equal(again.images, found.images[order])
        assert torch.equal(again.after, found.after[order])


def test_octaves_halve_and_stop_where_a_patch_is_too_small(network: Network) -> None:
    options = TextureOptions(size=(128, 96), octaves=9, tileable=True)
    found = Synthesiser(network, options).octaves((40, 33))
    assert found[-1] == ((40, 33), (128, 96))
    assert found[-2] == ((20, 16), (64, 48))
    assert found[-3] == ((10, 8), (32, 24))
    assert len(found) < 9
    own = Synthesiser(network, TextureOptions(tileable=True))
    assert own.stride == (4, 4)
    assert own.size((15, 21)) == (32, 44)
    assert Synthesiser(network).size((15, 21)) == (30, 42)


def test_layers_are_the_papers(network: Network, vgg: Network) -> None:
    usual = ("relu1_1", "pool1", "pool2", "pool3", "pool4")
    assert texture_layers(vgg) == dict.fromkeys(usual, 0.2)
    assert list(texture_layers(network)) == ["relu1", "pool1", "pool2", "relu3", "relu4"]
    assert texture_layers(network, ["conv2=3", "pool1"]) == {"conv2": 0.75, "pool1": 0.25}
    resnet = load_model("resnet18", weights="random", device="cpu")
    with pytest.raises(OptionError, match="resnet18 has none of the layers"):
        texture_layers(resnet)
    assert texture_layers(resnet, ["layer1"]) == {"layer1": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 9)}, "size is"),
        ({"size": (2, 90)}, "a picture of 2 x 90 pixels does not reach"),
        ({"size": (50, 64), "tileable": True}, "50 x 64 pixels does not tile.* ask for 52 x 64"),
        ({"octaves": 0}, "octaves is 0"),
        ({"seed": -1}, "seed -1"),
        ({"pooling": "min"}, "no pooling 'min'"),
        ({"histogram": "rgb"}, "no histogram 'rgb'"),
        ({"evaluations": 0}, "evaluations is 0"),
        ({"pairs": 0}, "pairs 0"),
        ({"layers": ("fc7",)}, "fc7 has no places"),
    ],
)
def test_what_cannot_be_is_named(
    network: Network, options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        synthesise(network, blobs(1, (20, 20)), TextureOptions(**options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_patches_that_are_none_are_named(network: Network) -> None:
    with pytest.raises(OptionError, match="a patch of 2 x 9 pixels does not reach"):
        synthesise(network, blobs(1, (2, 9)))
    with pytest.raises(LayerError):
        Synthesiser(network, TextureOptions(layers=("relu9",)))
    for patches in (torch.zeros(3, 9, 9), torch.zeros(1, 3, 9, 9).byte(), torch.zeros(0, 3, 9, 9)):
        with pytest.raises(ValueError, match="expected float patches"):
            synthesise(network, patches)
    with pytest.raises(ValueError, match="need as many keys"):
        synthesise(network, blobs(2, (20, 20)), QUICK, keys_of_rows(0, [0], [0]))
