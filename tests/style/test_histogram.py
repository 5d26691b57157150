"""Matched histograms beside a slow reference in float64."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.style.histogram import check_histogram, match_channels, match_colours

SIZES = [((1, 1), (1, 1)), ((5, 7), (3, 2)), ((4, 3), (9, 11)), ((8, 8), (4, 4))]


def images(count: int, size: tuple[int, int], seed: int) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *size, generator=drawn) ** 2


def ranked(values: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The definition, one value at a time, of values (P,) and (Q,)."""
    out, goal = np.empty_like(values), np.sort(wanted)
    for rank, place in enumerate(sorted(range(len(values)), key=lambda p: (values[p], p))):
        out[place] = goal[int((rank + 0.5) * len(goal) / len(values))]
    return out


@pytest.mark.parametrize(("size", "of"), SIZES, ids=str)
def test_channels_are_matched_by_rank(size: tuple[int, int], of: tuple[int, int]) -> None:
    x, wanted = images(2, size, 0), images(2, of, 1)
    x[0, 0, 0] = 0.25  # equals keep their order
    found = match_channels(x, wanted)
    for row in range(2):
        for channel in range(3):
            expected = ranked(
                x[row, channel].double().numpy().ravel(),
                wanted[row, channel].double().numpy().ravel(),
            )
            assert np.array_equal(found[row, channel].double().numpy().ravel(), expected)
    assert torch.equal(found[1:], match_channels(x[1:], wanted[1:]))


@pytest.mark.parametrize(
    ("size", "of"), [((8, 8), (4, 4)), ((6, 4), (4, 3)), ((5, 7), (7, 5))], ids=str
)
def test_colours_are_matched_along_their_axes(size: tuple[int, int], of: tuple[int, int]) -> None:
    """Of sizes that divide: an axis turned round ranks in the same way."""
    x, wanted = images(2, size, 2) * 0.6 + 0.2, images(2, of, 3) * 0.2 + 0.4
    found = match_colours(x, wanted)
    for row in range(2):
        goal, given = (t[row].double().numpy().reshape(3, -1) for t in (wanted, x))
        mean = goal.mean(1, keepdims=True)
        axes = np.linalg.svd(goal - mean)[0]
        sides = zip(axes.T @ (given - mean), axes.T @ (goal - mean), strict=True)
        expected = axes @ np.stack([ranked(*pair) for pair in sides]) + mean
        # Rounded to float32 once.
        np.testing.assert_allclose(found[row].double().numpy().reshape(3, -1), expected, atol=1e-6)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="no histogram 'rgb'; there are none, channels, colours"):
        check_histogram("rgb")
