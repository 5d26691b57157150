"""window_conv against torch's convolution of whole maps, in float64."""

import importlib

import pytest
import torch
from closeness import assert_within_twice
from pixel_cases import bounds, draw, output_size, residual, slides, windows
from torch import Tensor

from fc7.kernels import Bounds, PixelList, Residual, Slides, backend, pixel_list, window_conv
from fc7.kernels.window_conv import window_conv_reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NARROW = (torch.float16, torch.bfloat16)

# images, channels in and out, height and width, kernel, stride, padding, dilation
CASES = (
    (1, 1, 1, (1, 1), slides(1)),
    (3, 64, 65, (4, 5), slides(1)),
    (1, 65, 63, (9, 8), slides(1, stride=2)),
    (1, 3, 64, (13, 11), slides(3, padding=1)),
    (2, 64, 3, (7, 9), slides(3, stride=2, padding=1)),
    (1, 63, 66, (6, 7), slides(3, padding=2, dilation=2)),
    (1, 17, 20, (8, 7), slides(5, stride=2, padding=2)),
    (3, 3, 33, (13, 11), slides(7, stride=2, padding=3)),
    (1, 3, 64, (23, 27), slides(11, stride=4, padding=2)),
    (1, 5, 7, (16, 16), slides(3, stride=3, padding=0, dilation=3)),
    (2, 8, 16, (9, 10), Slides((2, 5), (1, 2), (0, 3), (3, 1))),
    (1, 40, 24, (10, 9), Slides((3, 2), (2, 1), (2, 0), (2, 3))),
)


def widened(given: Residual | Bounds | None) -> tuple[Tensor | PixelList, ...] | None:
    """The same in float64."""
    if given is None:
        return None
    return type(given)(*(x.double() if isinstance(x, Tensor) else x for x in given))


def check(
    differences: Tensor,
    weight: Tensor,
    source: PixelList,
    target: PixelList,
    how: Slides,
    groups: int = 1,
    added: Residual | None = None,
    limits: Bounds | None = None,
) -> Tensor:
    found = window_conv(differences, weight, source, target, how, groups, added, limits)
    lists = (source, target, how, groups)
    theirs = window_conv_reference(differences, weight, *lists, added, limits)
    theirs = theirs.to(differences.dtype)
    reference = window_conv_reference(
        differences.double(), weight.double(), *lists, widened(added), widened(limits)
    )
    assert found.dtype == differences.dtype
    assert found.is_contiguous()
    assert_within_twice(found, theirs, reference)
    return found


def drawn(
    images: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    how: Slides,
    dtype: torch.dtype,
    device: str,
    groups: int = 1,
) -> tuple[Tensor, Tensor, PixelList, PixelList]:
    source, target = windows(size, device, 0), windows(output_size(size, how), device, 1)
    c_in, c_out = channels
    differences = draw((images, len(source), c_in), dtype, device, 2)
    scale = (c_in // groups * how.taps) ** -0.5
    weight = draw((c_out, c_in // groups, *how.kernel), torch.float32, device, 3) * scale
    return differences, weight.to(dtype), source, target


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case[1:3])))
def test_equals_the_definition(
    case: tuple[int, int, int, tuple[int, int], Slides], dtype: torch.dtype, device: str
) -> None:
    images, c_in, c_out, size, how = case
    differences, weight, source, target = drawn(images, (c_in, c_out), size, how, dtype, device)
    added = residual(images, c_out, target, dtype, 4)
    limits = bounds(images, c_out, target, dtype, 6)
    check(differences, weight, source, target, how, 1, added, limits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("adds", "limits"), [(False, False), (True, False), (False, True)])
def test_other_endings(adds: bool, limits: bool, dtype: torch.dtype, device: str) -> None:
    how = slides(3, padding=1)
    given = drawn(2, (20, 24), (7, 6), how, dtype, device)
    added = residual(2, 24, given[3], dtype, 4) if adds else None
    check(*given, how, 1, added, bounds(2, 24, given[3], dtype, 6) if limits else None)


@pytest.mark.parametrize("dtype", NARROW)
def test_endings_of_another_dtype(dtype: torch.dtype, device: str) -> None:
    """Half-precision differences on maps of float32."""
    how = slides(3, padding=1)
    given = drawn(1, (20, 24), (7, 6), how, dtype, device)
    added = residual(1, 24, given[3], torch.float32, 4)
    check(*given, how, 1, added, bounds(1, 24, given[3], torch.float32, 6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("groups", "c_in", "c_out"), [(3, 6, 9), (16, 16, 16), (4, 4, 8)])
def test_groups(groups: int, c_in: int, c_out: int, dtype: torch.dtype, device: str) -> None:
    how = slides(3, stride=2, padding=1)
    given = drawn(2, (c_in, c_out), (9, 7), how, dtype, device, groups)
    added = residual(2, c_out, given[3], dtype, 4)
    check(*given, how, groups, added, bounds(2, c_out, given[3], dtype, 6))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_strides_of_what_is_read(layout: torch.memory_format, device: str) -> None:
    how = slides(3, padding=1)
    differences, weight, source, target = drawn(2, (16, 24), (7, 6), how, torch.float32, device)
    weight = weight.to(memory_format=layout)
    expected = check(differences, weight, source, target, how)
    stepped = torch.full((*differences.shape[:2], 33), torch.nan, device=device)
    stepped[:, :, 1::2] = differences
    found = window_conv(stepped[:, :, 1::2], weight, source, target, how)
    assert torch.equal(found, expected)


def test_a_large_window_fills_several_tiles(device: str) -> None:
    """More entries than a tile has, and more channels."""
    how = slides(1)
    size = (19, 17)
    boxes = torch.tensor([[0, 0, 19, 17], [3, 2, 19, 9]], device=device)
    pixels = pixel_list(boxes, size)
    differences = draw((1, len(pixels), 24), torch.float32, device, 0)
    weight = draw((136, 24, 1, 1), torch.float32, device, 1) / 5
    limits = bounds(1, 136, pixels, torch.float32, 2)
    added = Residual(draw((1, len(pixels), 136), torch.float32, device, 3), pixels)
    check(differences, weight, pixels, pixels, how, 1, added, limits)


def test_an_in_place_window_is_one_product(device: str) -> None:
    """A kernel of one pixel, on the list itself."""
    pixels = windows((7, 9), device, 0)
    differences = draw((2, len(pixels), 33), torch.float32, device, 1)
    weight = draw((5, 33, 1, 1), torch.float32, device, 2) / 6
    check(differences, weight, pixels, pixels, slides(1))


def test_a_cpu_gathers_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("fc7.kernels.window_conv")  # not the function of that name
    how = slides(3, padding=1)
    given = drawn(2, (4, 6), (7, 6), how, torch.float32, "cpu")
    whole = window_conv(*given, how)
    monkeypatch.setattr(backend, "uses_triton", lambda *tensors: False)
    for gathered in (1, 3 * 2 * 4 * 9, 10**9):
        monkeypatch.setattr(module, "_GATHERED_CPU", gathered)
        torch.testing.assert_close(window_conv(*given, how), whole)
        check(*given, how)


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_gives_nothing(images: int, device: str) -> None:
    none = pixel_list(torch.tensor([[1, 1, 1, 1]], device=device), (3, 3))
    one = pixel_list(torch.tensor([[1, 1, 2, 2]], device=device), (3, 3))
    weight = torch.ones(2, 3, 1, 1, device=device)
    found = window_conv(torch.ones(images, 1, 3, device=device), weight, one, none, slides(1))
    assert found.shape == (images, 0, 2)
    found = window_conv(torch.ones(images, 0, 3, device=device), weight, none, one, slides(1))
    assert torch.equal(found, torch.zeros(images, 1, 2, device=device))


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy, in the interpreter
@pytest.mark.parametrize("channels", [4, 20])
def test_nan_stays_where_it_reaches(channels: int, device: str) -> None:
    boxes = torch.tensor([[0, 0, 5, 5], [0, 0, 5, 5]], device=device)
    pixels = pixel_list(boxes, (5, 5))
    differences = draw((1, 50, channels), torch.float32, device, 0)
    differences[0, 25 + 12, 2] = torch.nan  # the middle of the second position
    limits = bounds(1, 3, pixels, torch.float32, 1)
    weight = draw((3, channels, 3, 3), torch.float32, device, 2)
    how = slides(3, padding=1)
    found = pixels.spread(window_conv(differences, weight, pixels, pixels, how, bounds=limits))
    reached = torch.zeros(2, 5, 5, dtype=torch.bool)
    reached[1, 1:4, 1:4] = True
    assert torch.equal(found[0].isnan().all(-1).cpu(), reached)
    assert torch.equal(found[0].isnan().any(-1).cpu(), reached)


def test_a_relu_that_stays_active_passes_the_difference_itself(device: str) -> None:
    """However large the activation: it does not enter, and so cannot round the difference away."""
    pixels = pixel_list(torch.tensor([[0, 0, 2, 2]], device=device), (2, 2))
    tiny = torch.full((1, 4, 1), 1e-20, device=device)
    before = torch.tensor([1e6, -1e6, 1e6, -1e6], device=device).view(1, 2, 2, 1)
    limits = Bounds(before.clamp_max(0), before.clamp_min(0).neg())
    one = torch.ones(1, 1, 1, 1, device=device)
    found = window_conv(tiny, one, pixels, pixels, slides(1), bounds=limits)
    wanted = torch.tensor([1e-20, 0, 1e-20, 0], device=device).view(1, 4, 1)
    assert torch.equal(found, wanted)


def test_float32_keeps_to_what_torch_allows(device: str) -> None:
    before = torch.backends.cudnn.conv.fp32_precision
    how = slides(3, padding=1)
    given = drawn(1, (33, 33), (6, 7), how, torch.float32, device)
    try:
        for precision in ("ieee", "tf32"):
            torch.backends.cudnn.conv.fp32_precision = precision
            check(*given, how)
            check(*given, how, 1, residual(1, 33, given[3], torch.float32, 4))
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


def test_refuses_what_does_not_fit() -> None:
    how = slides(3, padding=1)
    differences, weight, source, target = drawn(1, (4, 6), (7, 6), how, torch.float32, "cpu")
    fewer = pixel_list(source.boxes[1:], source.size)
    elsewhere = windows((9, 9), "cpu", 0)
    added = residual(1, 6, target, torch.float32, 4)
    limits = bounds(1, 6, target, torch.float32, 5)
    wrong = [
        (differences[:, 1:], weight, source, target, how),
        (differences[0], weight, source, target, how),
        (differences.int(), weight.int(), source, target, how),
        (differences, weight.double(), source, target, how),
        (differences, weight[:, 1:], source, target, how),
        (differences, weight, source, target, slides(5)),
        (differences, weight, source, target, how, 3),
        (differences, weight, source, fewer, how),
        (differences, weight, source, target, how, 1, Residual(added[0][:, 1:], added[1])),
        (differences, weight, source, target, how, 1, Residual(added[0][..., 1:], added[1])),
        (
            *(differences, weight, source, target, how, 1),
            Residual(torch.zeros(1, len(elsewhere), 6), elsewhere),
        ),
        (differences, weight, source, target, how, 1, None, Bounds(limits[0], limits[1][:, 1:])),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"expected|but the weight|not \("):
            window_conv(*arguments)


@pytest.mark.gpu
def test_beyond_two_to_the_31_elements() -> None:
    """One image's list has more than 2^31 numbers; entries at its end are read and written."""
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs a GPU with 16 GiB")
    positions, side, channels = 2300, 121, 64
    boxes = torch.tensor([[0, 0, side, side]], device="cuda").expand(positions, 4)
    pixels = pixel_list(boxes, (side, side))
    assert len(pixels) * channels > 2**31
    differences = torch.zeros(1, len(pixels), channels, dtype=torch.bfloat16, device="cuda")
    differences[0, -side - 2] = 1
    weight = torch.ones(channels, channels, 3, 3, dtype=torch.bfloat16, device="cuda")
    found = window_conv(differences, weight, pixels, pixels, slides(3, padding=1))
    last = found[0, -side * side :].view(side, side, channels)
    assert (last[-3:, -3:] == channels).all()
    assert last.sum(dtype=torch.float64) == 9 * channels * channels
    assert not found[0, : -side * side].any()
