"""Transforms against loops over pixels in float64, and their chains."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from company import SIZES, array, images, keys, same_in_any_company, taken, with_gradient
from numpy.typing import NDArray

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.randomness import Keys, Purpose, integers
from fc7.engine.synthesis.transforms import (
    Affine,
    Compose,
    Jitter,
    Pad,
    Rotate,
    Scale,
    Shift,
    Transform,
    _rolled_by_index,
    rolled,
)

FACTORS = tuple(1 + (i - 5) / 50 for i in range(11))
ANGLES = tuple(range(-10, 11))
LUCID = Compose((Pad(6), Shift(4), Scale(FACTORS), Rotate(ANGLES), Shift(2)))
ALL: list[Transform] = [
    Jitter(3), Jitter(0), Shift(3, (0.1, 0.5, 0.9)), Scale(FACTORS), Scale((0.4, 2.5)),
    Rotate(ANGLES), Rotate((90.0, 37.0)), Affine(FACTORS, ANGLES, 3, 2, (0.1, 0.5, 0.9)),
    LUCID,
]  # fmt: skip
NAMES = [repr(transform)[:40] for transform in ALL]


def offsets(of: Keys, most: int) -> list[list[int]]:
    found: list[list[int]] = (integers(of, Purpose.JITTER, 2, 2 * most + 1) - most).tolist()
    return found


def sampled(image: NDArray[np.float64], factor: float, degrees: float) -> NDArray[np.float64]:
    """Look up where each pixel of the result comes from, between the four around it."""
    _, height, width = image.shape
    found = np.empty_like(image)
    angle = math.radians(degrees)
    for i in range(height):
        for j in range(width):
            # From the middle, y upwards, as angles are counted.
            x, y = j - (width - 1) / 2, (height - 1) / 2 - i
            # Before the turn, and before the growth.
            x, y = (
                (x * math.cos(angle) + y * math.sin(angle)) / factor,
                (y * math.cos(angle) - x * math.sin(angle)) / factor,
            )
            column = min(max(x + (width - 1) / 2, 0), width - 1)
            row = min(max((height - 1) / 2 - y, 0), height - 1)
            top, left = int(row), int(column)
            low, right = min(top + 1, height - 1), min(left + 1, width - 1)
            down, across = row - top, column - left
            found[:, i, j] = (1 - down) * (
                (1 - across) * image[:, top, left] + across * image[:, top, right]
            ) + down * ((1 - across) * image[:, low, left] + across * image[:, low, right])
    return found


@pytest.mark.parametrize("size", SIZES)
def test_jitter_rolls_each_row_by_its_own_offsets(size: tuple[int, int]) -> None:
    x, own = images(4, size), keys(4)
    found = Jitter(5)(x, own)
    for row, by in enumerate(offsets(own, 5)):
        assert np.array_equal(found[row].numpy(), np.roll(x[row].numpy(), by, (1, 2)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pixels", [0, 2, 9])
def test_shift_lets_a_colour_in(size: tuple[int, int], pixels: int) -> None:
    colour = (0.1, 0.5, 0.9)
    x, own = images(4, size), keys(4)
    found = Shift(pixels, colour)(x, own)
    assert found.shape == x.shape
    height, width = size
    for row, (down, across) in enumerate(offsets(own, pixels)):
        expected = np.broadcast_to(np.float32(colour)[:, None, None], (3, *size)).copy()
        for i in range(height):
            for j in range(width):
                if 0 <= i - down < height and 0 <= j - across < width:
                    expected[:, i, j] = x[row, :, i - down, j - across]
        assert np.array_equal(found[row].numpy(), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 0), (0, 2), (8, 4)])
def test_affine_is_shift_scale_turn_and_shift(
    size: tuple[int, int], before: int, after: int
) -> None:
    """One after the other on a frame of the colour, so wide that no edge of it comes in."""
    (height, width), frame, colour = size, max(size) + 20, (0.1, 0.5, 0.9)
    x, own = images(2, size), keys(2)
    factors = integers(own, Purpose.SCALE, 1, len(FACTORS))[:, 0].tolist()
    angles = integers(own, Purpose.ROTATION, 1, len(ANGLES))[:, 0].tolist()
    first, second = offsets(own.within(0), before), offsets(own.within(1), after)
    wide = array(Pad(frame, colour)(x, own))
    expected = []
    for row in range(2):
        moved = np.roll(wide[row], first[row], (1, 2))
        moved = sampled(moved, FACTORS[factors[row]], ANGLES[angles[row]])
        moved = np.roll(moved, second[row], (1, 2))
        expected.append(moved[:, frame : frame + height, frame : frame + width])
    found = Affine(FACTORS, ANGLES, before, after, colour)(x, own)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1.0, 0.5, 0.9, 1.1, 3.0])
def test_scale_is_bilinear(size: tuple[int, int], factor: float) -> None:
    x = images(2, size)
    expected = [sampled(one, factor, 0) for one in array(x)]
    found = Scale((factor,))(x.double(), keys(2))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    # A place's rounding, relative 6e-8 of half a side, times the largest difference, 1.
    np.testing.assert_allclose(Scale((factor,))(x, keys(2)).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("degrees", [0.0, 5.0, -10.0, 90.0, 180.0, 37.0])
def test_rotate_is_bilinear(size: tuple[int, int], degrees: float) -> None:
    x = images(2, size)
    expected = [sampled(one, 1, degrees) for one in array(x)]
    found = Rotate((degrees,))(x.double(), keys(2))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(Rotate((degrees,))(x, keys(2)).numpy(), expected, atol=2e-5)


def test_a_quarter_turn_is_counter_clockwise() -> None:
    x = images(2, (9, 9))
    found = Rotate((90.0,))(x, keys(2))
    assert torch.allclose(found, x.rot90(1, (2, 3)), atol=2e-6)


def test_each_row_draws_from_all_choices() -> None:
    many = keys(300)
    x = torch.zeros(300, 3, 1, 9)
    x[..., 4] = 1
    found = Jitter(2)(x, many)[:, 0, 0].argmax(1)
    assert sorted(set(found.tolist())) == [2, 3, 4, 5, 6]
    # A ramp by its slope tells the factor.
    ramp = torch.arange(9.0).expand(300, 3, 1, 9)
    slopes = Scale((0.5, 1.0, 2.0))(ramp, many)[:, 0, 0, 4:6].diff(dim=1)
    assert sorted({round(slope, 3) for slope in slopes[:, 0].tolist()}) == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("size", [(7, 5), (37, 53)])
@pytest.mark.parametrize("transform", ALL, ids=NAMES)
def test_a_row_is_the_same_in_any_company(transform: Transform, size: tuple[int, int]) -> None:
    x, own = images(6, size), keys(6)

    def of(rows: list[int]) -> torch.Tensor:
        theirs = taken(own, rows)
        return with_gradient(lambda images: transform(images, theirs), x[rows])

    same_in_any_company(of, 6)
    assert transform(x, own).shape == x.shape
    assert transform(x[:0], taken(own, [])).shape == (0, 3, *size)


@pytest.mark.parametrize("transform", [*ALL, Pad(2, (0.1, 0.2, 0.3))], ids=[*NAMES, "Pad"])
@pytest.mark.parametrize("size", [(1, 1), (4, 3)])
def test_gradients_are_those_of_the_formula(transform: Transform, size: tuple[int, int]) -> None:
    x, own = images(2, size).double().requires_grad_(), keys(2)
    assert torch.autograd.gradcheck(lambda images: transform(images, own), x)


def test_pad_makes_a_margin_that_a_chain_cuts_off() -> None:
    x, own = images(2, (5, 4)), keys(2)
    wide = Pad(3, (0.1, 0.2, 0.3))(x, own)
    assert wide.shape == (2, 3, 11, 10)
    assert torch.equal(wide[:, :, 3:8, 3:7], x)
    assert torch.equal(wide[:, :, 0, 9], torch.tensor([[0.1, 0.2, 0.3]] * 2))
    assert torch.equal(Compose((Pad(3),))(x, own), x)
    assert torch.equal(Compose(())(x, own), x)
    assert Compose((Pad(1), Compose((Pad(2),))))(x, own).shape == x.shape


def test_two_of_a_kind_in_a_chain_move_apart() -> None:
    x, own = images(40, (16, 16)), keys(40)
    found = Compose((Jitter(4), Jitter(4)))(x, own)
    first, second = offsets(own.within(0), 4), offsets(own.within(1), 4)
    assert first != second
    for row in range(40):
        by = (first[row][0] + second[row][0], first[row][1] + second[row][1])
        assert torch.equal(found[row], x[row].roll(by, (1, 2)))


def test_a_step_later_another_change() -> None:
    x, own = images(20, (8, 8)), keys(20)
    later = Keys(own.seeds, own.steps + 1)
    changed = (Jitter(8)(x, own) != Jitter(8)(x, later)).flatten(1).any(1)
    assert int(changed.sum()) > 15


def test_a_roll_and_back_is_the_identity() -> None:
    x = images(3, (7, 10))
    by = torch.tensor([[3, -4], [0, 0], [-15, 22]])
    there = rolled(x, by)
    assert torch.equal(rolled(there, -by), x)
    assert torch.equal(there[1], x[1])
    moved = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rolled(moved, by), moved, there)
    assert torch.equal(gradient, x)


def test_rolls_by_index_are_rolls() -> None:
    """As a GPU computes them."""
    for size in SIZES:
        x = images(4, size)
        by = torch.tensor([[3, -4], [0, 0], [-15, 22], [1, 1]])
        assert torch.equal(_rolled_by_index(x, by), rolled(x, by))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Jitter(-1), "jitter is -1"),
        (lambda: Shift(1, (0.0, 0.0, 1.5)), "three numbers of 0 to 1"),
        (lambda: Pad(-2), "margin is -2"),
        (lambda: Scale(()), "factors are"),
        (lambda: Scale((1.0, 0.0)), "each above 0"),
        (lambda: Rotate(()), "angles are"),
        (lambda: Rotate((float("inf"),)), "angles are"),
        (lambda: Affine((-1.0,), (0,)), "factors are"),
        (lambda: Affine((1.0,), ()), "angles are"),
        (lambda: Affine((1.0,), (0,), before=-1), "jitter is -1"),
        (lambda: Affine((1.0,), (0,), after=-2), "jitter is -2"),
        (lambda: Affine((1.0,), (0,), colour=(0.0, 2.0, 0.0)), "three numbers of 0 to 1"),
    ],
)
def test_options_out_of_range(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        make()
