"""Lists of pixels against loops over boxes."""

import pytest
import torch
from pixel_cases import draw, windows

from fc7.kernels import PixelList, pixel_list

SIZE = (7, 9)


def listed(pixels: PixelList) -> list[tuple[int, int, int]]:
    columns = (pixels.owners, pixels.rows, pixels.columns)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def expected(pixels: PixelList) -> list[tuple[int, int, int]]:
    return [
        (owner, row, column)
        for owner, (top, left, bottom, right) in enumerate(pixels.boxes.tolist())
        for row in range(top, bottom)
        for column in range(left, right)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_lists_every_pixel_in_order(seed: int, device: str) -> None:
    pixels = windows(SIZE, device, seed, positions=8)
    every = expected(pixels)
    assert len(pixels) == len(every)
    assert pixels.positions == 12
    assert listed(pixels) == every
    starts = [sum(owner < position for owner, _, _ in every) for position in range(12)]
    assert pixels.starts.tolist() == starts
    assert pixels.on_map.tolist() == [row * SIZE[1] + column for _, row, column in every]


def test_finds_pixels_of_another_list(device: str) -> None:
    source, target = windows(SIZE, device, 0, 8), windows(SIZE, device, 1, 8)
    number = {pixel: entry for entry, pixel in enumerate(expected(source))}
    wanted = [number.get(pixel, len(source)) for pixel in expected(target)]
    assert source.places_of(target).tolist() == wanted
    assert len(set(wanted)) > 5
    assert len(source) in wanted


def test_finds_nothing_beyond_the_map(device: str) -> None:
    whole = pixel_list(torch.tensor([[0, 0, *SIZE]], device=device), SIZE)
    rows = torch.arange(-2, 9, device=device)[:, None]
    columns = torch.arange(-2, 11, device=device)
    places = whole.places(torch.zeros(1, dtype=torch.int64, device=device), rows, columns)
    for row in range(-2, 9):
        for column in range(-2, 11):
            inside = 0 <= row < 7 and 0 <= column < 9
            assert places[row + 2, column + 2] == (row * 9 + column if inside else 63)


def test_spreads_and_gathers(device: str) -> None:
    pixels = windows(SIZE, device, 0)
    differences = draw((2, len(pixels), 3), torch.float32, device, 0)
    maps = pixels.spread(differences)
    assert maps.shape == (2, pixels.positions, *SIZE, 3)
    for entry, (owner, row, column) in enumerate(expected(pixels)):
        assert torch.equal(maps[:, owner, row, column], differences[:, entry])
    assert maps.count_nonzero() == differences.numel()
    assert torch.equal(pixels.gather(maps), differences)


def test_the_largest_map_fits(device: str) -> None:
    last = torch.tensor([[32766, 32766, 32767, 32767]], device=device)
    assert listed(pixel_list(last, (32767, 32767))) == [(0, 32766, 32766)]


@pytest.mark.parametrize(
    ("boxes", "size"),
    [
        ([[0, 0, 8, 1]], SIZE),
        ([[0, 0, 1, 10]], SIZE),
        ([[-1, 0, 1, 1]], SIZE),
        ([[2, 0, 1, 1]], SIZE),
        ([[0, 0, 1]], SIZE),
        ([[0.0, 0.0, 1.0, 1.0]], SIZE),
        ([[0, 0, 1, 1]], (1, 2**15)),
        ([[0, 0, 0, 0]], (0, 3)),
        ([[0, 0, 32767, 32767]] * 2 + [[0, 0, 5, 32767]], (32767, 32767)),
    ],
)
def test_refuses_other_boxes(boxes: list[list[int]], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        pixel_list(torch.tensor(boxes), size)


def test_no_positions_have_no_pixels(device: str) -> None:
    empty = pixel_list(torch.empty(0, 4, dtype=torch.int32, device=device), SIZE)
    assert len(empty) == empty.positions == 0
    assert empty.spread(torch.empty(2, 0, 3, device=device)).shape == (2, 0, *SIZE, 3)
