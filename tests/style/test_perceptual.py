"""Losses of style and content beside the formula, in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fc7.engine.errors import LayerError, OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.style.grams import at_scale, mixed, mixture
from fc7.engine.style.layers import style_layers
from fc7.engine.style.perceptual import Perceptual, Targets
from fc7.engine.style.picture import DescentOptions, descend

STYLE, CONTENT = {"relu1": 0.25, "conv3": 2.0}, {"relu3": 0.5}


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-cifar10", device="cpu")


def images(count: int, seed: int, size: tuple[int, int] = (37, 41)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def reference(network: Network, x: Tensor, style: Tensor, content: Tensor) -> Tensor:
    """Return the total of images (N, 3, H, W) float64, layers read one module at a time."""
    model = network.model.double()

    def read(pixels: Tensor) -> dict[str, Tensor]:
        mean, std = (torch.tensor(v).double()[:, None, None] for v in (network.mean, network.std))
        seen, handles = {}, []
        for name in ("relu1", "conv3", "relu3"):
            module = model.get_submodule(network.layer(name).path)

            def hook(_m: object, _i: object, out: Tensor, name: str = name) -> None:
                seen[name] = out.clone()

            handles.append(module.register_forward_hook(hook))
        model((pixels - mean) / std)
        for handle in handles:
            handle.remove()
        return seen

    def second_moment(features: Tensor) -> Tensor:
        flat = features.flatten(2)
        return flat @ flat.mT / flat.shape[2]

    found, of_style, of_content = read(x), read(style), read(content)
    total = torch.zeros(len(x), dtype=torch.float64)
    for name, weight in STYLE.items():
        wanted = second_moment(of_style[name])
        apart = second_moment(found[name]) - wanted
        total = total + weight * apart.square().sum((1, 2)) / wanted.square().sum((1, 2))
    for name, weight in CONTENT.items():
        apart = found[name] - of_content[name]
        total = total + weight * apart.square().sum((1, 2, 3)) / of_content[name].square().sum(
            (1, 2, 3)
        )
    return total


def test_losses_and_gradients_are_the_formulas(network: Network) -> None:
    x, content, style = images(3, 0), images(3, 1), images(1, 2, (29, 50))
    judge = Perceptual(network, STYLE, CONTENT)
    found = judge(x, judge.targets(content, judge.grams(style)))
    wide = x.double().requires_grad_()
    plain = load_model("tiny-cifar10", device="cpu")
    # The classifier does not take images of this size; what stands before it does.
    for name in ("fc6", "fc7", "fc8"):
        setattr(plain.model, name, torch.nn.Identity())
    expected = reference(plain, wide, style.double(), content.double())
    (gradient,) = torch.autograd.grad(expected.sum(), wide)
    # float32 sums of some thousand products, a dozen layers deep.
    torch.testing.assert_close(found.total.double(), expected.detach(), rtol=2e-5, atol=0)
    apart = (found.gradients.double() - gradient).flatten(1).norm(dim=1)
    assert bool((apart <= 1e-4 * gradient.flatten(1).norm(dim=1)).all())
    weighted = sum(
        weight * found.losses[f"{kind} {name}"]
        for kind, weights in (("style", STYLE), ("content", CONTENT))
        for name, weight in weights.items()
    )
    torch.testing.assert_close(found.total, weighted)


def test_an_image_is_no_way_from_itself(network: Network) -> None:
    x = images(2, 3)
    judge = Perceptual(network, STYLE, CONTENT)
    found = judge(x, judge.targets(x, judge.grams(x)))
    assert float(found.total.max()) < 1e-10
    assert tuple(found.losses) == judge.terms


def test_a_row_does_not_depend_on_its_company(network: Network) -> None:
    x, content, style = images(4, 4), images(4, 5), images(4, 6)
    judge = Perceptual(network, STYLE, CONTENT, together=2)
    targets = judge.targets(content, judge.grams(style))
    found = judge(x, targets)
    order = [2, 0, 3, 1]
    turned = Targets(
        {name: each[order] for name, each in targets.grams.items()},
        {name: each[order] for name, each in targets.content.items()},
    )
    again = judge(x[order], turned)
    assert torch.equal(again.total, found.total[order])
    assert torch.equal(again.gradients, found.gradients[order])


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_pictures_come_down_each_by_itself(network: Network, optimiser: str) -> None:
    content, style = images(2, 7), F.avg_pool2d(images(2, 8, (74, 82)), 2)
    judge = Perceptual(network, STYLE, CONTENT, together=1)
    options = DescentOptions(12, optimiser, variation=0.01)
    targets = judge.targets(content, judge.grams(style))
    found = descend(judge, targets, content, options)
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    total = sum(
        weight * found.curves[f"{kind} {name}"]
        for kind, weights in (("style", STYLE), ("content", CONTENT))
        for name, weight in weights.items()
    )
    total = total + 0.01 * found.curves["variation"]
    assert total.shape == (2, 12)
    # What is kept is the best so far: never worse than the last.
    assert bool((total[:, 1:] <= total[:, :-1] * (1 + 1e-6)).all())
    assert bool((total[:, -1] < 0.9 * total[:, 0]).all())
    torch.testing.assert_close(total[:, -1], found.totals)
    again = judge(found.images, targets).total
    rest = found.totals - 0.01 * found.curves["variation"][:, -1]
    torch.testing.assert_close(again, rest, rtol=1e-4, atol=1e-7)
    turned = judge.targets(content.flip(0), judge.grams(style.flip(0)))
    assert torch.equal(
        descend(judge, turned, content.flip(0), options).images.flip(0), found.images
    )


def test_a_mixture_is_the_weighted_sum(network: Network) -> None:
    judge = Perceptual(network, STYLE)
    one, two = judge.grams(images(1, 9)), judge.grams(images(1, 10, (20, 33)))
    found = mixed([one, two], [3, 1])
    for name in STYLE:
        expected = 0.75 * one[name].double() + 0.25 * two[name].double()
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-6, atol=1e-7)
        assert torch.equal(mixed([one], [5.0])[name], one[name])
    assert mixture(2, []) == [0.5, 0.5]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_mix_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(OptionError, match="weight"):
        mixture(2, weights)


def test_scale_is_of_sides() -> None:
    x = images(1, 11, (40, 30))
    assert at_scale(x, 0.5).shape == (1, 3, 20, 15)
    assert at_scale(x, 1.0) is x
    for scale in (0.0, -1.0, float("nan"), 1e-3):
        with pytest.raises(OptionError, match="scale"):
            at_scale(x, scale)


def test_layers_have_shares(network: Network) -> None:
    found = style_layers(network)
    assert found.style == dict.fromkeys(("relu1", "relu2", "relu3", "relu4", "relu5"), 0.2)
    assert found.content == {"relu4": 1.0}
    named = style_layers(network, ["relu1=3", "conv2"], ["relu3"])
    assert named.style == {"relu1": 0.75, "conv2": 0.25}
    with pytest.raises(LayerError):
        style_layers(network, ["relu9"])
    for words in (["relu1", "relu1=2"], ["relu1=0"], ["relu1=x"], ["relu1="], ["fc7"]):
        with pytest.raises(OptionError):
            style_layers(network, words)
