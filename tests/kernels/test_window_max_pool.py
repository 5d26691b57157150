"""window_max_pool against torch's max_pool2d of whole maps, in float64."""

import importlib

import pytest
import torch
from closeness import assert_within_twice
from pixel_cases import draw, output_size, slides, windows
from torch import Tensor

from fc7.kernels import PixelList, Slides, backend, pixel_list, window_max_pool
from fc7.kernels.window_max_pool import window_max_pool_reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# images, channels, height and width, kernel, stride, padding, dilation
CASES = (
    (1, 1, (1, 1), slides(1)),
    (3, 64, (6, 5), slides(2, stride=2)),
    (1, 65, (9, 9), slides(3, stride=2)),
    (3, 3, (13, 11), slides(3, stride=2, padding=1)),
    (1, 63, (7, 8), slides(3, padding=1)),
    (1, 5, (16, 13), slides(5, stride=3, padding=2)),
    (2, 8, (12, 12), slides(3, stride=2, padding=1, dilation=2)),
    (1, 20, (9, 9), slides(7, stride=4, padding=3)),
    (1, 2, (19, 15), Slides((11, 2), (5, 1), (5, 1), (1, 1))),
    (2, 12, (9, 8), Slides((2, 3), (1, 2), (1, 0), (3, 2))),
)


def check(
    differences: Tensor, base: Tensor, source: PixelList, target: PixelList, how: Slides
) -> Tensor:
    found = window_max_pool(differences, base, source, target, how)
    lists = (source, target, how)
    theirs = window_max_pool_reference(differences, base, *lists)
    reference = window_max_pool_reference(differences.double(), base.double(), *lists)
    assert found.dtype == differences.dtype
    assert found.is_contiguous()
    assert_within_twice(found, theirs, reference)
    return found


def drawn(
    images: int,
    channels: int,
    size: tuple[int, int],
    how: Slides,
    dtype: torch.dtype,
    device: str,
) -> tuple[Tensor, Tensor, PixelList, PixelList]:
    source, target = windows(size, device, 0), windows(output_size(size, how), device, 1)
    differences = draw((images, len(source), channels), dtype, device, 2)
    return differences, draw((images, *size, channels), dtype, device, 3), source, target


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}x{case[2][0]}x{case[2][1]}")
def test_equals_the_definition(
    case: tuple[int, int, tuple[int, int], Slides], dtype: torch.dtype, device: str
) -> None:
    images, channels, size, how = case
    differences, base, source, target = drawn(images, channels, size, how, dtype, device)
    # Below zero, so that a zero outside the map would be the largest.
    assert check(3 * differences, base - 5, source, target, how).count_nonzero() > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_last_window_may_end_beyond_the_map(dtype: torch.dtype, device: str) -> None:
    """As with ceil_mode: 6 outputs of 12 pixels, the last of two rows and columns."""
    how = slides(3, stride=2)
    source, target = windows((12, 12), device, 0), windows((6, 6), device, 1)
    differences = draw((1, len(source), 9), dtype, device, 2)
    base = draw((1, 12, 12, 9), dtype, device, 3) - 5
    check(differences, base, source, target, how)


def test_a_maximum_that_stays_passes_its_difference_itself(device: str) -> None:
    """However large the values are: they do not round the difference away."""
    pixels = pixel_list(torch.tensor([[0, 0, 2, 2]], device=device), (2, 2))
    result = pixel_list(torch.tensor([[0, 0, 1, 1]], device=device), (1, 1))
    base = torch.tensor([1e6, 0, 3, 4], device=device).view(1, 2, 2, 1)
    differences = torch.tensor([1e-20, 5, 5, 5], device=device).view(1, 4, 1)
    found = window_max_pool(differences, base, pixels, result, slides(2))
    assert torch.equal(found.flatten(), differences[0, 0])


def test_a_large_window_fills_several_tiles(device: str) -> None:
    how = slides(3, stride=2, padding=1)
    source = pixel_list(torch.tensor([[0, 0, 15, 13], [3, 2, 15, 9]], device=device), (15, 13))
    target = pixel_list(torch.tensor([[0, 0, 8, 7], [2, 1, 8, 5]], device=device), (8, 7))
    differences = draw((1, len(source), 70), torch.float32, device, 0)
    check(differences, draw((1, 15, 13, 70), torch.float32, device, 1), source, target, how)


def test_strides_of_what_is_read(device: str) -> None:
    how = slides(3, stride=2, padding=1)
    differences, base, source, target = drawn(2, 5, (9, 8), how, torch.float32, device)
    expected = check(differences, base, source, target, how)
    turned = base.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    stepped = torch.full((*differences.shape[:2], 11), torch.nan, device=device)
    stepped[:, :, 1::2] = differences
    found = window_max_pool(stepped[:, :, 1::2], turned, source, target, how)
    assert torch.equal(found, expected)


def test_a_cpu_gathers_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("fc7.kernels.window_conv")  # not the function of that name
    how = slides(3, stride=2, padding=1)
    given = drawn(2, 5, (9, 8), how, torch.float32, "cpu")
    whole = window_max_pool(*given, how)
    monkeypatch.setattr(backend, "uses_triton", lambda *tensors: False)
    for gathered in (1, 3 * 2 * 2 * 5 * 9, 10**9):
        monkeypatch.setattr(module, "_GATHERED_CPU", gathered)
        assert torch.equal(window_max_pool(*given, how), whole)


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_gives_nothing(images: int, device: str) -> None:
    none = pixel_list(torch.tensor([[1, 1, 1, 1]], device=device), (3, 3))
    one = pixel_list(torch.tensor([[1, 1, 2, 2]], device=device), (3, 3))
    base = torch.ones(images, 3, 3, 4, device=device)
    found = window_max_pool(torch.ones(images, 1, 4, device=device), base, one, none, slides(1))
    assert found.shape == (images, 0, 4)
    found = window_max_pool(torch.ones(images, 0, 4, device=device), base, none, one, slides(1))
    assert torch.equal(found, torch.zeros(images, 1, 4, device=device))


def test_nan_stays_where_it_reaches(device: str) -> None:
    source = pixel_list(torch.tensor([[0, 0, 6, 6]] * 2, device=device), (6, 6))
    target = pixel_list(torch.tensor([[0, 0, 3, 3]] * 2, device=device), (3, 3))
    differences = draw((1, 72, 4), torch.float32, device, 0)
    differences[0, 36 + 2 * 6 + 3, 2] = torch.nan  # of the second position: under (1, 1) alone
    base = draw((1, 6, 6, 4), torch.float32, device, 1)
    found = target.spread(window_max_pool(differences, base, source, target, slides(2, stride=2)))
    assert found.isnan().nonzero().tolist() == [[0, 1, 1, 1, 2]]


def test_refuses_what_does_not_fit() -> None:
    how = slides(3, stride=2, padding=1)
    differences, base, source, target = drawn(1, 5, (9, 8), how, torch.float32, "cpu")
    fewer = pixel_list(target.boxes[1:], target.size)
    for arguments in (
        (differences[:, 1:], base, source, target),
        (differences, base[:, 1:], source, target),
        (differences, base.double(), source, target),
        (differences.int(), base.int(), source, target),
        (differences, base, source, fewer),
    ):
        with pytest.raises(ValueError, match="expected"):
            window_max_pool(*arguments, how)


@pytest.mark.gpu
def test_beyond_two_to_the_31_elements() -> None:
    """One image's list has more than 2^31 numbers; entries at its end are read and written."""
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs a GPU with 16 GiB")
    positions, side, channels = 2300, 121, 64
    boxes = torch.tensor([[0, 0, side, side]], device="cuda").expand(positions, 4)
    pixels = pixel_list(boxes, (side, side))
    differences = torch.zeros(1, len(pixels), channels, dtype=torch.bfloat16, device="cuda")
    differences[0, -side - 2] = 1
    base = torch.zeros(1, side, side, channels, dtype=torch.bfloat16, device="cuda")
    found = window_max_pool(differences, base, pixels, pixels, slides(3, padding=1))
    last = found[0, -side * side :].view(side, side, channels)
    assert (last[-3:, -3:] == 1).all()
    assert found.count_nonzero() == 9 * channels
