"""Style transfer: mixtures, scales, colours and starts, each beside what it should equal."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fc7.engine.errors import LayerError, OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.style.colours import luminance, matched, recoloured
from fc7.engine.style.grams import at_size
from fc7.engine.style.perceptual import Perceptual
from fc7.engine.style.picture import descend
from fc7.engine.style.transfer import Look, Transfer, style_images
from fc7.engine.style.transfer_options import StyleOptions
from fc7.engine.style.ways import Averaging
from fc7.engine.synthesis.parametrisation import SigmoidPixels

STYLE = dict.fromkeys(("relu1", "relu2", "relu3", "relu4", "relu5"), 0.2)
TO_YIQ = [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-cifar10", device="cpu")


def images(count: int, seed: int, size: tuple[int, int] = (37, 41)) -> Tensor:
    """Noise of several grains, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 6, generator=generator)
    fine = torch.rand(count, 3, *size, generator=generator)
    return (F.interpolate(coarse, size, mode="bicubic").clamp(0, 1) + fine) / 2


def gram(features: Tensor) -> Tensor:
    flat = features.double().flatten(2)
    return flat @ flat.mT / flat.shape[2]


def test_the_first_losses_are_those_of_the_content(network: Network) -> None:
    contents, styles = images(2, 0), [images(1, 1, (30, 60)), images(1, 2, (41, 20))[0]]
    options = StyleOptions(evaluations=1, mix=(3, 1), style_scale=0.9)
    found = style_images(network, contents, styles, options)
    # A style's longer side becomes .9 of 41 pixels.
    sides = [(18, 37), (37, 18)]
    resized = [
        F.interpolate(one.view(1, *one.shape[-3:]), size, mode="bicubic", antialias=True).clamp(
            0, 1
        )
        for one, size in zip(styles, sides, strict=True)
    ]
    start = contents.clamp(0.1, 0.9)
    layers = [*STYLE]
    of_styles = [network.activations(one, layers) for one in resized]
    of_start, of_content = (network.activations(one, layers) for one in (start, contents))
    for name in layers:
        wanted = 0.75 * gram(of_styles[0][name]) + 0.25 * gram(of_styles[1][name])
        apart = gram(of_start[name]) - wanted
        expected = apart.square().sum((1, 2)) / wanted.square().sum((1, 2))
        # float32 features, and a sigmoid undone and done again.
        torch.testing.assert_close(
            found.curves[f"style {name}"][:, 0].double(), expected, rtol=1e-4, atol=1e-7
        )
    a, b = (of["relu4"].double().flatten(1) for of in (of_start, of_content))
    expected = (a - b).square().sum(1) / b.square().sum(1)
    torch.testing.assert_close(
        found.curves["content relu4"][:, 0].double(), expected, rtol=1e-4, atol=1e-7
    )


def test_one_style_is_itself_by_any_weight(network: Network) -> None:
    contents, style, other = images(1, 3), images(1, 4), images(1, 5)
    plain = style_images(network, contents, [style], StyleOptions(evaluations=6))
    for styles, mix in (([style], (1.0,)), ([style], (7.0,)), ([style, other], (2.0, 0.0))):
        found = style_images(network, contents, styles, StyleOptions(evaluations=6, mix=mix))
        assert torch.equal(found.images, plain.images)
        assert torch.equal(found.totals, plain.totals)
    both = style_images(network, contents, [style, other], StyleOptions(evaluations=6))
    assert not torch.equal(both.images, plain.images)


def frequency(picture: Tensor) -> float:
    """Return the mean cycles a pixel along rows of (3, H, W), weighted by power."""
    rows = picture.mean(0)
    power = torch.fft.rfft(rows - rows.mean(), dim=1).abs().square().mean(0)
    return float((power * torch.fft.rfftfreq(rows.shape[1])).sum() / power.sum())


def test_style_scale_is_that_of_the_texture(network: Network) -> None:
    across = torch.arange(48.0)
    stripes = (0.5 + 0.4 * torch.sin(2 * torch.pi * across / 8)).expand(1, 3, 48, 48)
    content = torch.full((1, 3, 48, 48), 0.5)
    usual: dict[str, Any] = {"evaluations": 25, "content_weight": 0, "start": "noise"}
    found = {
        scale: frequency(
            style_images(
                network, content, [stripes], StyleOptions(**usual, style_scale=scale)
            ).images[0]
        )
        for scale in (0.5, 1.0)
    }
    assert frequency(stripes[0]) == pytest.approx(1 / 8, rel=0.05)
    # Noise that is left weighs a little.
    for scale, cycles in found.items():
        assert cycles == pytest.approx(1 / (8 * scale), rel=0.3), found


def test_scales_are_descents_from_what_was_found_smaller(network: Network) -> None:
    contents, style = images(2, 6, (48, 40)), images(1, 7, (50, 33))
    options = StyleOptions(evaluations=4, scales=2, ratio=1.5)
    transfer = Transfer(network, options, (48, 40), together=2)
    assert transfer.scales((48, 40)) == [(32, 27), (48, 40)]
    found = transfer(contents, [Look([style])] * 2)
    content = {"relu4": options.content_weight}
    judge = Perceptual(network, STYLE, content, together=2)
    start, way = at_size(contents, (32, 27)), SigmoidPixels(margin=0.1)
    for size in ((32, 27), (48, 40)):
        small = at_size(style, (size[0], round(33 * size[0] / 50)))
        targets = judge.targets(at_size(contents, size), judge.grams(small))
        made = descend(judge, targets, at_size(start, size), options, way)
        start = made.images
    assert torch.equal(found.images, made.images)
    assert torch.equal(found.totals, made.totals)
    assert {curve.shape for curve in found.curves.values()} == {(2, 8)}
    for term, curve in made.curves.items():
        assert torch.equal(found.curves[term][:, 4:], curve)


def test_a_scale_that_is_too_small_is_left_out(network: Network) -> None:
    transfer = Transfer(network, StyleOptions(scales=9))
    sizes = transfer.scales((40, 60))
    assert sizes[-1] == (40, 60)
    assert 1 < len(sizes) < 9
    with pytest.raises(OptionError, match="an image of 3 x 60 pixels does not reach"):
        transfer.scales((3, 60))


def test_colours_stay_where_only_brightness_is_painted(network: Network) -> None:
    contents, style = images(2, 8) / 2 + 0.25, images(1, 9)
    options = StyleOptions(evaluations=6, keep_colours=True)
    found = style_images(network, contents, [style], options)
    to_yiq = torch.tensor(TO_YIQ).double()
    a, b = (torch.einsum("ij,njhw->nihw", to_yiq, x.double()) for x in (found.images, contents))
    inside = (found.images > 0).all(1) & (found.images < 1).all(1)
    assert float(inside.float().mean()) > 0.8
    # Luminance as published to three digits, so I and Q move by as much as its error.
    torch.testing.assert_close(a[:, 1:].mT[inside.mT[:, None].expand(-1, 2, -1, -1)],
                               b[:, 1:].mT[inside.mT[:, None].expand(-1, 2, -1, -1)],
                               rtol=0, atol=2e-4)  # fmt: skip
    assert float((a[:, 0] - b[:, 0]).abs().mean()) > 0.002
    # What is painted is grey, and the style's brightness is spread as each content's.
    alone = style_images(network, contents[1:], [style], options)
    torch.testing.assert_close(alone.totals, found.totals[1:], rtol=1e-3, atol=0)
    grey = matched(style, contents[:1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    own = torch.einsum("j,njhw->nhw", to_yiq[0], contents[:1].double())
    assert float(grey.mean()) == pytest.approx(float(own.mean()), abs=1e-5)
    assert float(grey[:, 0].std()) == pytest.approx(float(own.std()), rel=1e-2)


def test_recoloured_keeps_an_image_that_was_not_painted() -> None:
    x = images(2, 10)
    torch.testing.assert_close(recoloured(luminance(x), x), x, rtol=0, atol=1e-6)
    flat = matched(torch.full((1, 3, 4, 5), 0.3), x[:1])
    assert float(flat.std()) < 1e-6
    assert float(flat[0, 0, 0, 0]) == pytest.approx(float(luminance(x[:1]).mean()), abs=1e-6)


def test_noise_is_each_rows_own(network: Network) -> None:
    contents, style = images(2, 11), images(1, 12)
    options = StyleOptions(evaluations=3, start="noise", seed=4)
    transfer = Transfer(network, options, together=2)
    looks = [Look([style])] * 2
    found = transfer(contents, looks, [4, 9])
    assert torch.equal(transfer(contents.flip(0), looks, [9, 4]).images, found.images.flip(0))
    usual = transfer(contents, looks)
    assert torch.equal(usual.images[:1], found.images[:1])
    assert not torch.equal(usual.images[1:], found.images[1:])


@pytest.mark.parametrize(
    "options",
    [{}, {"keep_colours": True}, {"scales": 2, "optimiser": "adam"}],
    ids=["plain", "colours", "scales"],
)
def test_a_row_does_not_depend_on_its_company(network: Network, options: dict[str, Any]) -> None:
    contents = images(4, 13, (40, 44))
    looks = [Look([images(1, seed, (44, 40))]) for seed in (14, 15, 16, 17)]
    transfer = Transfer(network, StyleOptions(evaluations=4, **options), together=2)
    found = transfer(contents, looks)
    order = [2, 0, 3, 1]
    turned = transfer(contents[order], [looks[place] for place in order])
    assert torch.equal(turned.images, found.images[order])
    assert torch.equal(turned.totals, found.totals[order])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_weight": 0}, "style_weight is 0"),
        ({"content_weight": -1}, "content_weight is -1"),
        ({"style_scale": float("nan")}, "style_scale is nan"),
        ({"style_scale": 0.01}, "nothing is left|a style image of"),
        ({"scales": 0}, "scales is 0"),
        ({"ratio": 1.0}, "ratio is 1"),
        ({"start": "black"}, "no start 'black'; there are content and noise"),
        ({"evaluations": 0}, "evaluations is 0"),
        ({"mix": (1, 1)}, "1 styles and 2 weights"),
        ({"style_layers": ("fc7",)}, "fc7 has no places"),
    ],
)
def test_a_wrong_option_is_named(network: Network, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        style_images(network, images(1, 18), [images(1, 19)], StyleOptions(**options))
    assert "\n" not in str(caught.value)


def test_what_is_no_image_is_refused(network: Network) -> None:
    x = images(2, 20)
    with pytest.raises(LayerError):
        style_images(network, x, [x[:1]], StyleOptions(style_layers=("relu9",)))
    for contents, styles in (
        (x[0], [x[:1]]),
        (x.byte(), [x[:1]]),
        (x[:0], [x[:1]]),
        (x, [x]),
        (x, []),
        (x, [x[0].int()]),
    ):
        with pytest.raises(ValueError, match=r"expected|style|one at least"):
            style_images(network, contents, styles)


def test_pooling_is_of_the_networks_maxima(network: Network) -> None:
    x = images(1, 31)
    found = {
        pooling: Transfer(network, StyleOptions(pooling=pooling)).judge.grams(x)
        for pooling in ("max", "average")
    }
    expected = Perceptual(network, STYLE, way=Averaging).grams(x)
    for name in STYLE:
        assert torch.equal(found["average"][name], expected[name])
    assert not torch.equal(found["average"]["relu2"], found["max"]["relu2"])


def test_tiles_change_nothing(network: Network) -> None:
    """Beside rounding, and only the first evaluation: a descent enlarges what rounding leaves."""
    x, style, options = images(2, 32, (60, 52)), images(1, 33)[0], StyleOptions(tile=48)
    whole, tiled = (
        style_images(network, x, [style], StyleOptions(evaluations=1, tile=tile))
        for tile in (None, 48)
    )
    torch.testing.assert_close(tiled.totals, whole.totals, rtol=1e-5, atol=0)
    assert Transfer(network, options).judge.tiles((60, 52)) > 1
