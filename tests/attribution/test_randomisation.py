"""The weight-randomisation check: on methods whose answer is known, and on those that we have."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fc7.engine.attribution.guided import guided_maps
from fc7.engine.attribution.metrics import centre_prior
from fc7.engine.attribution.randomisation import randomisation_check, rank_correlation
from fc7.engine.attribution.saliency import gradient_maps
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.errors import OptionError
from fc7.engine.models import Network, load_model

LAYERS = ["fc8", "fc7", "fc6", "conv5", "conv4", "conv3", "conv2", "conv1"]


def shapes(count: int) -> tuple[Network, Tensor]:
    source = ShapesSource(count, 987654)
    images = torch.stack([source.decode(source.read(row)) for row in range(count)])
    return load_model("tiny-shapes", device="cpu"), images.float() / 255


def sobel(_network: Network, images: Tensor, _targets: Tensor) -> Tensor:
    down = torch.tensor([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]])
    kernels = torch.stack([down, down.T])[:, None]
    grey = images.mean(1, keepdim=True)
    return F.conv2d(grey, kernels, padding=1).norm(dim=1)


def test_gradients_forget_edges_do_not_and_guided_ones_lie_between() -> None:
    """On 24 unseen pictures.

    Observed from fc8 alone to all layers: the gradient 0.32 0.31 0.23 0.16 0.14 0.14 0.13 0.10,
    guided backpropagation 0.95 0.93 0.88 0.82 0.69 0.54 0.34 0.16, edges 1 throughout.
    """
    network, images = shapes(24)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    means = {}
    for name, method in (("gradient", gradient_maps), ("guided", guided_maps), ("sobel", sobel)):
        found = list(randomisation_check(network, images, method))
        assert [layer for layer, _ in found] == LAYERS
        assert all(correlations.shape == (24,) for _, correlations in found)
        means[name] = [float(correlations.mean()) for _, correlations in found]
    assert means["sobel"] == pytest.approx([1.0] * 8)
    assert means["gradient"][-1] < 0.2
    assert means["gradient"][-1] < means["gradient"][0]
    for gradient, guided in list(zip(means["gradient"], means["guided"], strict=True))[:6]:
        assert gradient + 0.2 < guided < 0.98
    assert means["gradient"][-1] < means["guided"][-1] < 0.3
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_is_the_same_for_a_seed() -> None:
    network, images = shapes(3)

    def correlations(seed: int, **targets: list[int]) -> Tensor:
        found = randomisation_check(network, images, gradient_maps, seed=seed, **targets)
        return torch.stack([each for _, each in found])

    first = correlations(5)
    assert torch.equal(correlations(5), first)
    assert not torch.equal(correlations(6), first)
    predicted = network(images).argmax(1).tolist()
    assert torch.equal(correlations(5, targets=predicted), first)


def test_layers_are_shuffled_from_the_logits_down() -> None:
    network, images = shapes(1)
    trained = {path: module.weight.clone() for path, module in network.model.named_modules()
               if path in LAYERS}  # fmt: skip
    seen: list[list[str]] = []

    def changed(twin: Network, images: Tensor, targets: Tensor) -> Tensor:
        weights = {path: twin.model.get_submodule(path).weight for path in LAYERS}
        seen.append([path for path in LAYERS if not torch.equal(weights[path], trained[path])])
        for path in LAYERS:
            same = weights[path].flatten().sort().values, trained[path].flatten().sort().values
            assert torch.equal(*same)
        return centre_prior((64, 64)).expand(len(images), -1, -1)

    assert all(float(each) == pytest.approx(1) for _, each in
               randomisation_check(network, images, changed))  # fmt: skip
    assert seen == [LAYERS[:count] for count in range(9)]


def test_rank_correlation_is_spearmans() -> None:
    maps = torch.tensor(
        [
            [[1.0, -2.0], [3.0, 4.0]],
            [
                [
                    1,
                    1,
                ],
                [2, 3],
            ],
            [[5, 5], [5, 5]],
        ]
    )
    others = torch.tensor([[[10.0, 20.0], [-30.0, 90.0]], [[3, 2], [2, 1]], [[1, 2], [3, 4]]])
    # Of the second: ranks 1.5 1.5 3 4 and 4 2.5 2.5 1, products of their deviations -3.75, and
    # squares that add up to 4.5 each.
    assert rank_correlation(maps, others).tolist() == pytest.approx([1.0, -3.75 / 4.5, 0.0])
    with pytest.raises(ValueError, match="NaN"):
        rank_correlation(maps * torch.nan, others)
    with pytest.raises(ValueError, match="one shape"):
        rank_correlation(maps, others[:1])


def test_one_class_for_each_image() -> None:
    network, images = shapes(2)
    with pytest.raises(OptionError, match="1 classes for 2 images"):
        list(randomisation_check(network, images, gradient_maps, [1]))
