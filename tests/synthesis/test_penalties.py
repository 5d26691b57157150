"""Penalties against loops over pixels in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from company import COLOUR, SIZES, array, images, same_in_any_company, with_gradient
from numpy.typing import NDArray

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.regularisers import L2, CentreBias, LAlpha, Penalty, TotalVariation

Image = NDArray[np.float64]


def power_sum(image: Image, alpha: float) -> float:
    return sum(
        abs(float(value) - colour) ** alpha
        for channel, colour in zip(image, COLOUR, strict=True)
        for value in channel.ravel()
    )


def variation(image: Image, beta: float) -> float:
    total = 0.0
    for channel in image:
        height, width = channel.shape
        for i in range(height):
            for j in range(width):
                dx = channel[i, j + 1] - channel[i, j] if j + 1 < width else 0.0
                dy = channel[i + 1, j] - channel[i, j] if i + 1 < height else 0.0
                total += (dx**2 + dy**2) ** (beta / 2)
    return total


def bias(image: Image) -> float:
    total = 0.0
    for channel, colour in zip(image, COLOUR, strict=True):
        height, width = channel.shape
        for i in range(height):
            for j in range(width):
                y = (i + 0.5 - height / 2) / (height / 2)
                x = (j + 0.5 - width / 2) / (width / 2)
                total += (x * x + y * y) * (channel[i, j] - colour) ** 2
    return total


ALL: list[tuple[Penalty, Callable[[Image], float]]] = [
    (L2(COLOUR), lambda image: power_sum(image, 2)),
    (LAlpha(COLOUR), lambda image: power_sum(image, 6)),
    (LAlpha(COLOUR, 1.0), lambda image: power_sum(image, 1)),
    (LAlpha(COLOUR, 3.5), lambda image: power_sum(image, 3.5)),
    (TotalVariation(), lambda image: variation(image, 2)),
    (TotalVariation(1.0), lambda image: variation(image, 1)),
    (TotalVariation(1.5), lambda image: variation(image, 1.5)),
    (CentreBias(COLOUR), bias),
]
NAMES = [repr(penalty) for penalty, _ in ALL]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("penalty", "formula"), ALL, ids=NAMES)
def test_equals_the_formula(
    penalty: Penalty, formula: Callable[[Image], float], size: tuple[int, int]
) -> None:
    x = images(3, size)
    found = penalty(x)
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    expected = [formula(image) for image in array(x)]
    # Up to 5,883 addends of float32, summed in a tree, each rounded some times.
    np.testing.assert_allclose(found.numpy(), expected, rtol=3e-6, atol=1e-12)
    np.testing.assert_allclose(penalty(x.double()).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (4, 3)])
@pytest.mark.parametrize("penalty", [penalty for penalty, _ in ALL], ids=NAMES)
def test_gradients_are_those_of_the_formula(penalty: Penalty, size: tuple[int, int]) -> None:
    assert torch.autograd.gradcheck(penalty, images(2, size).double().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("penalty", [penalty for penalty, _ in ALL], ids=NAMES)
def test_a_flat_image_has_a_finite_gradient(penalty: Penalty, dtype: torch.dtype) -> None:
    """Of the mean colour all penalties are 0, their least, and so is the gradient."""
    colour = torch.tensor(COLOUR, dtype=dtype).view(1, 3, 1, 1)
    flat = colour.expand(2, 3, 6, 5).clone().requires_grad_()
    value = penalty(flat)
    (gradient,) = torch.autograd.grad(value.sum(), flat)
    assert torch.equal(value, torch.zeros(2, dtype=dtype))
    assert torch.equal(gradient, torch.zeros_like(flat))


@pytest.mark.parametrize("beta", [1.0, 1.2, 1.5, 2.0, 3.0])
def test_variation_by_the_smallest_differences_has_a_finite_gradient(beta: float) -> None:
    for step in (1e-45, 1e-38, 1e-23, 1e-19, 1e-7):
        x = torch.zeros(1, 3, 4, 4)
        x[:, :, 1:] = step
        step = float(x.max())  # as float32 holds it
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(TotalVariation(beta)(x).sum(), x)
        assert gradient.isfinite().all(), step
        assert float(gradient.abs().max()) <= beta * step ** (beta - 1) * 1.001


def test_total_variation_of_edges() -> None:
    """A sharp edge and a slope of the same height differ by beta 2, not by beta 1."""
    edge = torch.zeros(1, 3, 1, 9)
    edge[..., 5:] = 1
    slope = torch.linspace(0, 1, 9).expand(1, 3, 1, 9).clone()
    assert TotalVariation(1.0)(edge).item() == pytest.approx(3)
    assert TotalVariation(1.0)(slope).item() == pytest.approx(3)
    assert TotalVariation(2.0)(edge).item() == pytest.approx(3)
    assert TotalVariation(2.0)(slope).item() == pytest.approx(3 / 8)


@pytest.mark.parametrize("size", [(7, 5), (37, 53)])
@pytest.mark.parametrize("penalty", [penalty for penalty, _ in ALL], ids=NAMES)
def test_a_row_is_the_same_in_any_company(penalty: Penalty, size: tuple[int, int]) -> None:
    x = images(6, size)
    same_in_any_company(lambda rows: with_gradient(penalty, x[rows]), 6)
    assert penalty(x[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: L2((0.5, 0.5, -0.1)), "three numbers of 0 to 1"),
        (lambda: LAlpha(COLOUR, 0.5), "alpha is 0.5"),
        (lambda: TotalVariation(0.9), "beta is 0.9"),
        (lambda: TotalVariation(float("inf")), "beta is inf"),
        (lambda: CentreBias((0.5, 0.5)), "three numbers"),  # type: ignore[arg-type]
    ],
)
def test_options_out_of_range(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        make()
