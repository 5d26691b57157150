"""Operations on images and gradients against numpy and scipy in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from company import COLOUR, SIZES, array, gradients, images, same_in_any_company
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.percentiles import percentiles
from fc7.engine.synthesis.regularisers import (
    Blur,
    BlurGradients,
    CentreBox,
    CentreGaussian,
    Clamp,
    ClipNorm,
    Decay,
    DropSmallGradients,
    GradientOperation,
    ImageOperation,
    UnitMean,
    UnitNorm,
    ZeroSmallContribution,
    ZeroSmallGradient,
    ZeroSmallNorm,
)
from fc7.engine.synthesis.smoothing import gaussian_blur

Image = NDArray[np.float64]
MEAN = np.array(COLOUR)[:, None, None]
# float32 holds the colour to 3e-8, and values below 1 likewise.
ROUNDING = 3e-7


def steps(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def without(image: Image, measure: Image, percentile: float, colour: Image | float) -> Image:
    small = measure < np.percentile(measure, percentile)
    return np.where(small, colour, image)


def norm(channels: Image) -> Image:
    return np.sqrt((channels**2).sum(0))


ON_IMAGES: list[tuple[ImageOperation, Callable[[Image, Image], Image]]] = [
    (Decay(0.3, COLOUR), lambda x, g: MEAN + 0.7 * (x - MEAN)),
    (Decay(0.0, COLOUR), lambda x, g: x),
    (Blur(1.3), lambda x, g: gaussian_filter(x, 1.3, axes=(1, 2))),
    (ZeroSmallNorm(20, COLOUR), lambda x, g: without(x, norm(x - MEAN), 20, MEAN)),
    (ZeroSmallNorm(0, COLOUR), lambda x, g: x),
    (ZeroSmallNorm(100, COLOUR), lambda x, g: without(x, norm(x - MEAN), 100, MEAN)),
    (
        ZeroSmallContribution(57.5, COLOUR),
        lambda x, g: without(x, np.abs(((x - MEAN) * g).sum(0)), 57.5, MEAN),
    ),
    (ZeroSmallGradient(33, COLOUR), lambda x, g: without(x, norm(g), 33, MEAN)),
    (Clamp(0.2, 0.6), lambda x, g: np.clip(x, 0.2, 0.6)),
]
ON_GRADIENTS: list[tuple[GradientOperation, Callable[[Image], Image]]] = [
    (DropSmallGradients(33), lambda g: without(g, norm(g), 33, 0.0)),
    (UnitMean(), lambda g: g / np.abs(g).mean()),
    (UnitNorm(), lambda g: g / np.sqrt((g**2).sum())),
    (ClipNorm(2.0), lambda g: g * min(1.0, 2.0 / np.sqrt((g**2).sum()))),
    (ClipNorm(1e6), lambda g: g),
    (BlurGradients(0.8), lambda g: gaussian_filter(g, 0.8, axes=(1, 2))),
    (CentreGaussian(0.4), lambda g: masked(g, lambda y, x: np.exp(-(x * x + y * y) / 0.32))),
    (CentreBox(0.5), lambda g: masked(g, lambda y, x: float(max(x * x, y * y) <= 0.25))),
    (CentreBox(1.0), lambda g: g),
]


def masked(g: Image, weight: Callable[[float, float], float]) -> Image:
    """Weigh each pixel by a function of its distances from the middle, in half sides."""
    _, height, width = g.shape
    found = g.copy()
    for i in range(height):
        for j in range(width):
            y, x = (i + 0.5) / height * 2 - 1, (j + 0.5) / width * 2 - 1
            found[:, i, j] *= weight(y, x)
    return found


NAMES_OF_IMAGES, NAMES_OF_GRADIENTS = (
    [repr(operation)[:40] for operation, _ in cases] for cases in (ON_IMAGES, ON_GRADIENTS)
)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("operation", "formula"), ON_IMAGES, ids=NAMES_OF_IMAGES)
def test_operations_on_images_are_their_formulas(
    operation: ImageOperation, formula: Callable[[Image, Image], Image], size: tuple[int, int]
) -> None:
    x, g = images(3, size), gradients(3, size)
    before = x.clone()
    found = operation(x, g, steps(1, 2, 3))
    assert torch.equal(x, before)
    assert found.dtype == torch.float32
    expected = [formula(one, grad) for one, grad in zip(array(x), array(g), strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("operation", "formula"), ON_GRADIENTS, ids=NAMES_OF_GRADIENTS)
def test_operations_on_gradients_are_their_formulas(
    operation: GradientOperation, formula: Callable[[Image], Image], size: tuple[int, int]
) -> None:
    g = gradients(3, size)
    before = g.clone()
    found = operation(g)
    assert torch.equal(g, before)
    assert found.dtype == torch.float32
    expected = [formula(one) for one in array(g)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7, rtol=ROUNDING)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (37, 53)])
def test_a_row_is_the_same_in_any_company(size: tuple[int, int]) -> None:
    x, g = images(6, size), gradients(6, size)
    made = steps(1, 4, 8, 3, 12, 5)
    on_images = [operation for operation, _ in ON_IMAGES] + [Blur(0.7, every=4)]
    for change in on_images:
        same_in_any_company(lambda rows, c=change: c(x[rows], g[rows], made[rows]), 6)
    for operation, _ in ON_GRADIENTS:
        same_in_any_company(lambda rows, o=operation: o(g[rows]), 6)


def test_no_rows() -> None:
    none = torch.zeros(0, 3, 5, 4)
    for change, _ in ON_IMAGES:
        assert change(none, none, steps()).shape == none.shape
    for operation, _ in ON_GRADIENTS:
        assert operation(none).shape == none.shape


def test_only_rows_that_are_due_are_blurred() -> None:
    x, made = images(5, (9, 8)), steps(4, 5, 8, 11, 0)
    found = Blur(1.0, every=4)(x, x, made)
    for row, step in enumerate(made):
        expected = gaussian_blur(x[row : row + 1], 1.0)[0] if step % 4 == 0 else x[row]
        assert torch.equal(found[row], expected)
    assert torch.equal(Blur(1.0, every=4)(x, x, made * 0 + 3), x)
    assert torch.equal(Blur(0.0)(x, x, made), x)


@pytest.mark.parametrize("width", [0.12, 0.13, 0.5, 1.0, 2.7, 9.0])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (13, 9)])
def test_blur_is_scipys(width: float, size: tuple[int, int]) -> None:
    """Also by kernels that are several times as wide as the image."""
    x = images(2, size)
    found = gaussian_blur(x.double(), width)
    expected = gaussian_filter(array(x), width, axes=(2, 3))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-13)
    np.testing.assert_allclose(gaussian_blur(x, width).numpy(), expected, atol=ROUNDING)


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1961])
@pytest.mark.parametrize("percentile", [0, 0.1, 12.5, 33, 50, 57.5, 90, 99.99, 100])
def test_percentiles_are_numpys(count: int, percentile: float) -> None:
    generator = torch.Generator().manual_seed(count)
    for values in (
        torch.randn(3, count, generator=generator),
        torch.randint(0, 4, (3, count), generator=generator).float(),
        torch.full((2, count), 0.1),
    ):
        expected = np.percentile(array(values), percentile, axis=1, method="linear")
        assert percentiles(values, percentile).tolist() == expected.tolist()


def test_about_as_many_pixels_are_zeroed_as_the_percentile_says() -> None:
    """Each row by itself: one has a thousandth of the other's contrast."""
    x = images(2, (20, 25))
    x[1] = (x[1] - 0.5) / 1000 + torch.tensor(COLOUR)[:, None, None]
    found = ZeroSmallNorm(30, COLOUR)(x, x, steps(1, 1))
    changed = (found != x).any(1).flatten(1).sum(1)
    assert changed.tolist() == [150, 150]
    replaced = found[0][:, (found[0] != x[0]).any(0)]
    assert torch.equal(replaced, torch.tensor(COLOUR)[:, None].expand(3, 150))


def test_flat_images_stay() -> None:
    """Pixels that are all alike are none of them small."""
    flat = torch.full((2, 3, 5, 4), 0.25)
    for percentile in (0, 50, 100):
        for operation in (
            ZeroSmallNorm(percentile, COLOUR),
            ZeroSmallContribution(percentile, COLOUR),
            ZeroSmallGradient(percentile, COLOUR),
        ):
            assert torch.equal(operation(flat, flat, steps(1, 2)), flat)
        assert torch.equal(DropSmallGradients(percentile)(flat), flat)


def test_a_gradient_of_zero_stays_zero_and_spares_its_mates() -> None:
    g = gradients(3, (6, 5))
    g[1] = 0
    for operation, _ in ON_GRADIENTS:
        found = operation(g)
        assert torch.equal(found[1], g[1])
        assert found.isfinite().all()
        assert float(found[0].abs().max()) > 0


@pytest.mark.parametrize("scale", [1e-30, 1e-40, 1e25, 1e37])
def test_gradients_of_any_size(scale: float) -> None:
    """Their squares do not fit float32, and the smallest are no normal numbers."""
    g = gradients(2, (6, 5)) * scale
    exact = array(g)
    mean = np.abs(exact).mean((1, 2, 3), keepdims=True)
    length = np.sqrt((exact**2).sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(UnitMean()(g).numpy(), exact / mean, rtol=ROUNDING)
    np.testing.assert_allclose(UnitNorm()(g).numpy(), exact / length, rtol=ROUNDING)
    clipped = exact * np.minimum(1, 1 / length)
    np.testing.assert_allclose(ClipNorm(1.0)(g).numpy(), clipped, rtol=ROUNDING)
    kept = [without(one, norm(one), 40, 0.0) for one in exact]
    np.testing.assert_array_equal(DropSmallGradients(40)(g).numpy(), kept)


def test_masks_keep_the_middle() -> None:
    for height, width in ((9, 8), (1, 1), (7, 2)):
        ones = torch.ones(1, 3, height, width)
        box = CentreBox(1e-6)(ones)[0, 0]
        assert int(box.sum()) == (2 - height % 2) * (2 - width % 2)
        assert box[height // 2, width // 2] == 1
        mask = CentreGaussian(0.3)(ones)[0, 0]
        assert torch.equal(mask, mask.flip(0, 1))
        assert mask[height // 2, width // 2] == mask.max()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Decay(1.5, COLOUR), "rate of decay is 1.5"),
        (lambda: Decay(0.1, (1.0, 2.0, 0.0)), "three numbers of 0 to 1"),
        (lambda: Blur(-1.0), "width of blur is -1.0"),
        (lambda: Blur(1.0, 0), "between blurs is 0"),
        (lambda: ZeroSmallNorm(101, COLOUR), "percentile is 101"),
        (lambda: ZeroSmallContribution(float("nan"), COLOUR), "percentile is nan"),
        (lambda: ZeroSmallGradient(-1, COLOUR), "percentile is -1"),
        (lambda: Clamp(1.0, 0.0), "between 1.0 and 0.0"),
        (lambda: DropSmallGradients(-0.1), "percentile is -0.1"),
        (lambda: ClipNorm(0.0), "limit of norms is 0.0"),
        (lambda: CentreGaussian(0.0), "width of the mask is 0"),
        (lambda: CentreBox(float("inf")), "width of the mask is inf"),
        (lambda: BlurGradients(float("nan")), "width of blur is nan"),
    ],
)
def test_options_out_of_range(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(OptionError, match=says) as said:
        make()
    assert "\n" not in str(said.value)


def test_tensors_of_inference_mode() -> None:
    with torch.inference_mode():
        x = images(2, (5, 4)) * 1
        for operation, _ in ON_GRADIENTS:
            assert isinstance(operation(x), Tensor)
        for change, _ in ON_IMAGES:
            assert isinstance(change(x, x, steps(1, 2)), Tensor)
