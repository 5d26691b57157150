"""What dreams are made of: octaves beside scipy's zoom, the best of a guide's vectors, sizes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from fc7.engine.models import load_model
from fc7.engine.models.sizes import Sizes
from fc7.engine.synthesis.guide import GuideMatch
from fc7.engine.synthesis.objectives import Batch, Objective
from fc7.engine.synthesis.octaves import closer, octave_sizes, resized

Array = NDArray[np.float64]


def zoom(image: Array, scale: tuple[float, ...]) -> Array:
    """As the notebook calls scipy, but for a last column that rounding puts outside: 0 there."""
    zoomed: Array = ndimage.zoom(image, scale, order=1, mode="nearest")
    return zoomed


@pytest.mark.parametrize("places", [1, 7, 400])
def test_the_best_of_a_guide_s_vectors_counts(places: int) -> None:
    generator = torch.Generator().manual_seed(places)
    x = torch.randn(2, 5, 6, 7, generator=generator).requires_grad_()
    guides = [torch.randn(5, count, generator=generator) for count in (places, 3)]
    objectives = [Objective(((1.0, GuideMatch("layer", y)),)) for y in guides]
    scores = Batch(objectives, torch.device("cpu"))({"layer": x}, slice(0, 2))
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    for row, guide in enumerate(guides):
        y, flat = guide.double().numpy(), x[row].detach().double().numpy().reshape(5, -1)
        products = flat.T @ y
        assert scores[row].item() == pytest.approx(products.max(1).sum(), rel=1e-5)
        best = y[:, products.argmax(1)].reshape(5, 6, 7)
        np.testing.assert_array_equal(gradient[row].numpy(), best.astype(np.float32))


def test_few_products_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from fc7.engine.synthesis import guide

    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(4, 53, generator=generator), torch.randn(4, 31, generator=generator)
    whole = guide._match(x, y)
    monkeypatch.setattr(guide, "_PRODUCTS", 100)
    assert guide._match(x, y).item() == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 56), (224, 301)])
def test_octaves_are_scipy_s(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    sizes = octave_sizes(size, 3, 1.4)
    assert sizes[0] == size
    expected = x[1].double().numpy()
    found = x
    for each in sizes[1:]:
        scale = (1, each[0] / expected.shape[1], each[1] / expected.shape[2])
        expected = zoom(expected, scale)
        found = resized(found, each)
        assert found.shape == (2, 3, *each)
        np.testing.assert_allclose(found[1].numpy(), expected, atol=1e-6)
        up = zoom(expected, (1, size[0] / each[0], size[1] / each[1]))
        np.testing.assert_allclose(resized(found, size)[1].numpy(), up, atol=1e-6)


def test_octave_sizes_are_those_of_the_notebook() -> None:
    assert octave_sizes((224, 320), 4, 1.4) == [(224, 320), (160, 229), (114, 164), (81, 117)]
    assert octave_sizes((2, 1), 3, 1.4) == [(2, 1), (1, 1), (1, 1)]


def test_a_step_closer_is_about_the_middle() -> None:
    ramp = torch.arange(7.0)[None, None, None].expand(1, 1, 5, 7)
    found = closer(ramp, 2.0)
    torch.testing.assert_close(found[0, 0, 0], 3 + (torch.arange(7.0) - 3) / 2)
    assert torch.equal(closer(ramp, 1.0), ramp)


@pytest.mark.parametrize(
    ("name", "layer", "least"), [("alexnet", "conv5", 31), ("tiny-shapes", "pool5", 15)]
)
def test_the_least_size_is_the_least_that_runs(name: str, layer: str, least: int) -> None:
    network = load_model(name, weights="random", device="cpu")
    sizes = Sizes(network, [layer])
    assert sizes.least == least
    network.activations(torch.zeros(1, 3, least, least), [layer])
    with pytest.raises(RuntimeError):
        network.activations(torch.zeros(1, 3, least - 1, least - 1), [layer])
    assert not sizes.runs((least - 1, 100))
