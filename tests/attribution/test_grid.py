"""Places of the window, and maps spread over pixels, against slow loops."""

from itertools import chain

import pytest
import torch

from fc7.engine.attribution.occlusion.grid import places, to_pixels, window_spans
from fc7.engine.errors import OptionError

GRIDS = [
    ((1, 1), 1, 1),
    ((7, 5), 1, 1),
    ((7, 5), 5, 3),
    ((13, 10), 4, 3),
    ((13, 10), 4, 4),
    ((12, 8), 4, 2),
    ((9, 20), 3, 7),
    ((9, 11), 2, 8),
    ((5, 9), 5, 100),
    ((6, 6), 6, 2),
]


def by_hand(size, window, stride):
    """Return the pixels that each place covers, row by row, by walking over the image."""
    starts = []
    for side in size:
        at = [0]
        # One more place as long as the window has not reached the end of the image.
        while at[-1] + window < side:
            at.append(at[-1] + stride)
        starts.append(at)
    return [[(y, x) for x in starts[1]] for y in starts[0]]


@pytest.mark.parametrize(("size", "window", "stride"), GRIDS)
def test_places(size, window, stride):
    grid = by_hand(size, window, stride)
    found = list(places(size, window, stride))
    assert len(found) == len(grid) * len(grid[0])
    for (top, left, bottom, right), (y, x) in zip(found, chain(*grid), strict=True):
        covered = {
            (py, px)
            for py in range(y, y + window)
            for px in range(x, x + window)
            if py < size[0] and px < size[1]
        }
        assert {(py, px) for py in range(top, bottom) for px in range(left, right)} == covered
        assert 0 <= top <= bottom <= size[0]
        assert 0 <= left <= right <= size[1]


@pytest.mark.parametrize(("size", "window", "stride"), GRIDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_pixels(size, window, stride, dtype):
    grid = by_hand(size, window, stride)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, len(grid), len(grid[0]), generator=generator, dtype=dtype)
    expected = torch.zeros(3, *size, dtype=torch.float64)
    for n in range(3):
        for y in range(size[0]):
            for x in range(size[1]):
                over = [
                    float(maps[n, r, c])
                    for r, row in enumerate(grid)
                    for c, (top, left) in enumerate(row)
                    if top <= y < top + window and left <= x < left + window
                ]
                expected[n, y, x] = sum(over) / len(over) if over else 0
    found = to_pixels(maps, size, window, stride)
    assert found.dtype == dtype
    # A mean of at most 25 numbers of about 1.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=64 * torch.finfo(dtype).eps)


def test_constant_maps_stay_what_they_are():
    """However often a pixel is covered, at the edges too."""
    found = to_pixels(torch.full((1, 5, 7), 2.5), (13, 16), 5, 2)
    assert (found == 2.5).all()


@pytest.mark.parametrize(
    "maps", [torch.zeros(2, 3, 3), torch.zeros(2, 4, 4), torch.zeros(3, 4), torch.zeros(1, 2, 3, 4)]
)
def test_maps_of_another_grid(maps):
    with pytest.raises(ValueError, match=r"expected maps \(N, 3, 4\), got "):
        to_pixels(maps, (10, 13), 4, 3)


@pytest.mark.parametrize(
    ("size", "window", "stride", "said"),
    [
        (10, 0, 1, "window is 0 and stride 1"),
        (10, 3, 0, "stride 0"),
        (10, 3, -1, "stride -1"),
        (10, 11, 1, "the window is 11 pixels, but the image only 10"),
    ],
)
def test_impossible_windows(size, window, stride, said):
    for make in (
        lambda: window_spans(size, window, stride),
        lambda: list(places((size, 20), window, stride)),
        lambda: to_pixels(torch.zeros(1, 1, 1), (20, size), window, stride),
    ):
        with pytest.raises(OptionError) as raised:
            make()
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
