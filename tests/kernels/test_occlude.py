"""occlude against a loop over every pixel, exactly: it copies values, cast as torch casts them."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.occlude import _occlude_torch, grid_boxes, occlude, occlude_reference

# The module: by its name in the package stands the function.
module = sys.modules[occlude.__module__]

FLOATING = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
LARGEST = 2**31 - 1

# Inside, beyond every border and every corner, around all of it, outside, empty, inside out.
BOXES = [
    [1, 2, 3, 4],
    [0, 0, 1, 1],
    [-2, 1, 2, 3],
    [2, -3, 4, 2],
    [3, 1, 50, 3],
    [1, 3, 3, 70],
    [-5, -5, 2, 2],
    [2, 3, 200, 200],
    [-9, -9, 999, 999],
    [-9, 0, -1, 5],
    [0, 999, 5, 1200],
    [2, 2, 2, 4],
    [2, 3, 5, 3],
    [4, 4, 1, 1],
    [-LARGEST - 1, -LARGEST - 1, LARGEST, LARGEST],
]


def randn(*shape: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(math.prod(shape))
    return torch.randn(shape, generator=generator).to(dtype).to(device)


def assert_equal(out: Tensor, images: Tensor, boxes: Tensor, fill: float | Tensor = 0.0) -> None:
    """Assert that `out` is the definition bit by bit, the sign of a zero and NaN included."""
    images = images.detach().cpu().to(out.dtype).double()
    fill = torch.as_tensor(fill, dtype=torch.float64 if isinstance(fill, float) else None)
    fill = fill.cpu().to(out.dtype).double()
    fill = fill[:, None, None] if fill.ndim == 1 else fill
    expected = occlude_reference(
        images.numpy(), boxes.cpu().numpy(), fill.expand(images.shape).numpy()
    )
    actual = out.detach().cpu().double().numpy()
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(np.signbit(actual), np.signbit(expected))


@pytest.fixture(params=[1, 3, 64])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set how many positions a Triton program writes: small tests have one otherwise."""
    positions: int = request.param
    monkeypatch.setattr(module, "_positions_per_program", lambda *_, **__: positions)
    return positions


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize(("read", "written"), [*itertools.product(LAYOUTS, LAYOUTS)])
def test_equals_the_definition(
    read: torch.memory_format, written: torch.memory_format, dtype: torch.dtype, device: str
) -> None:
    images = randn(2, 3, 7, 5, device=device, dtype=dtype).contiguous(memory_format=read)
    boxes = torch.tensor(BOXES)
    out = occlude(images, boxes, 0.1, memory_format=written)
    assert out.shape == (2, len(BOXES), 3, 7, 5)
    assert out.dtype == dtype
    assert_equal(out, images, boxes, 0.1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 1, 3, 1), (1, 3, 63, 65), (1, 2, 123, 65), (1, 65, 3, 130)]
)
def test_odd_sizes(
    shape: tuple[int, ...], layout: torch.memory_format, chunk: int, device: str
) -> None:
    images = randn(*shape, device=device)
    h, w = shape[2:]
    boxes = torch.tensor([[0, 0, 1, 1], [h // 2, w // 3, h, w], [1, -2, 2, w + 2], [9, 9, 9, 9]])
    assert_equal(occlude(images, boxes, memory_format=layout), images, boxes)


def test_a_box_may_begin_and_end_on_any_row_of_a_tile(device: str) -> None:
    # One tile of 4 KiB holds 10 rows and two halves of 97 floats: boxes that end in the row above
    # it, begin in its first row, or in its last.
    images = randn(1, 1, 40, 97, device=device)
    boxes = torch.tensor([[row, 90, row + 1, 97] for row in range(40)])
    assert_equal(occlude(images, boxes, torch.nan), images, boxes, torch.nan)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("given", [*FLOATING, torch.uint8])
def test_casts_as_torch_does(
    given: torch.dtype, dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    images = (1000 * randn(1, 3, 5, 7, device=device)).to(given)
    fill = randn(3, 5, 7, device=device).to(given)
    boxes = torch.tensor(BOXES[:4])
    out = occlude(images, boxes, fill, dtype=dtype, memory_format=layout)
    assert out.dtype == dtype
    assert_equal(out, images, boxes, fill)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (3,), (3, 6, 5), (2, 3, 6, 5)])
def test_fills(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    images, boxes = randn(2, 3, 6, 5, device=device, dtype=dtype), torch.tensor(BOXES)
    fill = randn(*shape, device=device, dtype=dtype)
    assert_equal(occlude(images, boxes, fill, memory_format=layout), images, boxes, fill)


@pytest.mark.parametrize("number", [0, -0.0, 1e30, torch.inf, -torch.inf, torch.nan, 1 / 3])
@pytest.mark.parametrize("dtype", FLOATING)
def test_a_number_fills_as_the_dtype_holds_it(
    number: float, dtype: torch.dtype, device: str
) -> None:
    if backend.INTERPRETED and str(number) == "-0.0":
        pytest.skip("the interpreter of Triton 3.6 makes it 0.0")
    images, boxes = randn(1, 1, 6, 5, device=device, dtype=dtype), torch.tensor(BOXES[:5])
    assert_equal(occlude(images, boxes, number), images, boxes, number)


def test_copies_nan_infinity_and_zeros(device: str) -> None:
    images = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 0.0, 1e-45], device=device)
    images, boxes = images.view(1, 1, 2, 3), torch.tensor([[0, 1, 2, 2], [1, 0, 2, 1]])
    fill = images.flip(3)
    assert_equal(occlude(images, boxes, fill), images, boxes, fill)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_any_strides(layout: torch.memory_format, device: str) -> None:
    whole, boxes = randn(4, 6, 12, 10, device=device), torch.tensor(BOXES[:9:2])
    views = {
        "cropped": whole[1:, 2:5, 3:9, 4:9],
        "stepped": whole[::2, ::3, ::2, 1::2],
        "transposed": whole.transpose(2, 3)[:2],
        "batch as channels": whole.transpose(0, 1)[:2],
        "one pixel": whole[:2, :3, :1, :1].expand(2, 3, 6, 5),
        "one image": whole[:1, :3].expand(2, 3, 12, 10),
    }
    for name, view in views.items():
        for fill in (0.0, view.flip(0)):
            out = occlude(view, boxes, fill, memory_format=layout)
            assert out.shape[2:] == view.shape[1:], name
            assert_equal(out, view, boxes, fill)


def test_reads_beyond_two_to_the_31_elements(device: str) -> None:
    # On a CPU zeros take no memory until they are written.
    size = 2**31 + 64
    if device == "cpu":
        base = torch.from_numpy(np.zeros(size, np.float16))
    else:
        base = torch.zeros(size, dtype=torch.float16, device=device)
    base[:64] = torch.arange(64)
    base[-64:] = torch.arange(64, 128)
    boxes = torch.tensor(BOXES[:5])
    # Strides of less than 2^31, for a larger one would be 64 bits wide already.
    for stride in [(2**30, 16, 4, 1), (1, 2**30, 4, 1), (1, 16, 2**30, 4), (1, 16, 4, 2**30)]:
        images = base.as_strided((3, 3, 3, 3), stride)
        assert images.max() >= 64, "the view does not reach the far end"
        assert_equal(occlude(images, boxes, 7.0), images, boxes, 7.0)
        near = images.contiguous()
        assert_equal(occlude(near.flip(0), boxes, images), near.flip(0), boxes, images)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_boxes_of_any_integers_on_either_side(dtype: torch.dtype, device: str) -> None:
    images = randn(1, 2, 6, 20, device=device)
    kept = torch.iinfo(dtype)
    boxes = torch.tensor(BOXES).clamp(kept.min, kept.max).to(dtype)
    boxes[-1, 3] = kept.max
    stepped = torch.stack([boxes, boxes], dim=1)[:, 0]
    for given in (boxes, boxes.to(device), stepped, boxes.T.contiguous().T.to(device)):
        assert_equal(occlude(images, given, 2.0), images, boxes, 2.0)


def test_boxes_beyond_int32(device: str) -> None:
    images = randn(1, 2, 6, 5, device=device)
    boxes = torch.tensor([[-(2**40), 1, 2**40, 3], [2**32, 0, 2**33, 5], [0, 0, 2**32 + 2, 2]])
    assert_equal(occlude(images, boxes, 2.0), images, boxes, 2.0)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 5), (4, 11), (14, 15), (7, 7)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_range_is_that_part_of_the_whole(
    start: int, stop: int | None, layout: torch.memory_format, chunk: int, device: str
) -> None:
    images, boxes = randn(2, 3, 6, 5, device=device), torch.tensor(BOXES)
    part = occlude(images, boxes, 1.0, start=start, stop=stop, memory_format=layout)
    assert part.shape[1] == (len(BOXES) if stop is None else stop) - start
    assert_equal(part, images, boxes[start:stop], 1.0)


@pytest.mark.parametrize("shape", [(0, 3, 6, 5), (2, 0, 6, 5), (2, 3, 0, 5), (2, 3, 6, 0)])
def test_nothing_in_gives_nothing_out(shape: tuple[int, ...], device: str) -> None:
    images, boxes = randn(*shape, device=device), torch.tensor(BOXES)
    assert occlude(images, boxes).shape == (shape[0], len(BOXES), *shape[1:])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_boxes_give_no_images(layout: torch.memory_format, device: str) -> None:
    boxes = torch.empty(0, 4, dtype=torch.int32)
    out = occlude(randn(2, 3, 6, 5, device=device), boxes, memory_format=layout)
    assert out.shape == (2, 0, 3, 6, 5)


@pytest.mark.parametrize("c", [1, 3, 8])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_flattens_to_a_batch_without_a_copy(
    layout: torch.memory_format, c: int, device: str
) -> None:
    images, boxes = randn(2, c, 6, 5, device=device), torch.tensor(BOXES)
    out = occlude(images, boxes, memory_format=layout)
    batch = out.flatten(0, 1)
    assert batch.is_contiguous(memory_format=layout)
    assert batch.data_ptr() == out.data_ptr()
    if c > 1:
        assert batch.stride() == torch.empty(batch.shape, memory_format=layout).stride()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("fill", ["number", "image"])
def test_without_triton_on_another_device(
    fill: str, dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    images, boxes = randn(2, 3, 6, 5, device=device), torch.tensor(BOXES)
    cover = 0.5 if fill == "number" else randn(2, 3, 6, 5, device=device, dtype=dtype)
    last = layout is torch.channels_last
    out = occlude(images, boxes, dtype=dtype, memory_format=layout).fill_(torch.nan)
    _occlude_torch(images, boxes, cover, out, last)
    assert_equal(out, images, boxes, cover)


@pytest.mark.parametrize("threads", [1, 2, 5, 64])
def test_threads_share_the_positions(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend.INTERPRETED:
        pytest.skip("threads are the torch path's")
    monkeypatch.setattr(module, "BYTES_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    images, boxes = randn(2, 3, 6, 5), torch.tensor(BOXES)
    for count in (1, 5, len(boxes)):
        assert_equal(occlude(images, boxes[:count], 1.0), images, boxes[:count], 1.0)


def test_leaves_its_inputs_alone(device: str) -> None:
    images, boxes = randn(1, 3, 6, 5, device=device), torch.tensor(BOXES[:1])
    before = images.clone()
    occlude(images, boxes, 9.0).fill_(0)
    assert torch.equal(images, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_a_custom_operator(layout: torch.memory_format, device: str) -> None:
    images, boxes = randn(1, 3, 6, 5, device=device), torch.tensor(BOXES[:3], device=device)
    operator = torch.ops.fc7.occlude.default
    last = layout is torch.channels_last
    torch.library.opcheck(operator, (images, boxes, None, 0.5, torch.bfloat16, last))
    torch.library.opcheck(operator, (images, boxes, images * 2, 0.0, torch.float32, last))


def test_in_a_compiled_function(device: str) -> None:
    images, boxes = randn(2, 3, 6, 5, device=device), torch.tensor(BOXES, device=device)

    def cover(images: Tensor, colour: Tensor) -> Tensor:
        options = {"dtype": torch.float64, "memory_format": torch.channels_last}
        return occlude(images * 2, boxes, colour, start=2, stop=9, **options).flatten(0, 1) + 1

    compiled = torch.compile(cover, fullgraph=True, backend="aot_eager")
    colour = randn(3, device=device)
    assert torch.equal(compiled(images, colour), cover(images, colour))
    assert_equal(cover(images, colour).unflatten(0, (2, 7)) - 1, images * 2, boxes[2:9], colour)


def test_refuses_a_gradient(device: str) -> None:
    images = randn(1, 3, 6, 5, device=device).requires_grad_()
    boxes = torch.tensor(BOXES)
    out = occlude(images, boxes, images.detach()[0])
    assert_equal(out, images, boxes, images.detach()[0])
    with pytest.raises(NotImplementedError, match="no gradient"):
        out.sum().backward()


IMAGES, SOME = torch.zeros(2, 3, 6, 5), torch.tensor(BOXES)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((IMAGES[0], SOME), {}, r"expected images \(B, C, H, W\).*got \(3, 6, 5\)"),
        ((torch.zeros(1).expand(1, 1, 2**15, 2**15 + 1), SOME), {}, r"<= 2\^30, got"),
        ((IMAGES.int(), SOME), {"dtype": torch.float32}, "expected images of uint8 or.*int32"),
        ((IMAGES.byte(), SOME), {}, r"a dtype of the latter, got torch.uint8 and torch.uint8"),
        ((IMAGES, SOME), {"dtype": torch.int32}, r"got torch.float32 and torch.int32"),
        ((IMAGES, SOME[:, :3]), {}, r"expected boxes \(P, 4\).*got \(15, 3\)"),
        ((IMAGES, SOME[0, 0]), {}, r"expected boxes \(P, 4\).*got \(\)"),
        ((IMAGES, SOME[0]), {}, r"expected boxes \(P, 4\).*got \(4,\)"),
        ((IMAGES, SOME.float()), {}, r"expected boxes.*of torch.float32"),
        ((IMAGES, SOME), {"start": -1}, r"0 <= start <= stop <= 15, got -1 and 15"),
        ((IMAGES, SOME), {"stop": 16}, r"got 0 and 16"),
        ((IMAGES, SOME), {"start": 3, "stop": 2}, r"got 3 and 2"),
        ((IMAGES, SOME), {"memory_format": torch.preserve_format}, "got torch.preserve_format"),
        ((IMAGES, SOME, torch.zeros(5)), {}, r"expected a fill of shape.*\(3,\).*got \(5,\)"),
        ((IMAGES, SOME, torch.zeros(1, 6, 5)), {}, r"got \(1, 6, 5\)"),
        ((IMAGES, SOME, torch.zeros(3).int()), {}, r"expected a fill on cpu.*got torch.int32"),
        ((IMAGES, SOME, torch.zeros(3, device="meta")), {}, r"fill on cpu.*on meta"),
    ],
)
def test_says_what_is_wrong(
    arguments: tuple[Tensor, ...], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        occlude(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("height", "width", "window", "stride"),
    [(224, 224, 16, 8), (7, 9, 3, 2), (7, 9, 3, 5), (5, 5, 5, 1), (10, 6, 1, 1), (10, 6, 4, 20)],
)
def test_the_grid_is_captums(height: int, width: int, window: int, stride: int) -> None:
    rows, columns = (1 + math.ceil((size - window) / stride) for size in (height, width))
    expected = [
        [y, x, min(y + window, height), min(x + window, width)]
        for y in range(0, rows * stride, stride)
        for x in range(0, columns * stride, stride)
    ]
    boxes = grid_boxes(height, width, window, stride)
    assert boxes.dtype == torch.int32
    assert boxes.tolist() == expected


def test_a_grid_without_gaps_covers_every_pixel() -> None:
    boxes = grid_boxes(7, 9, 3, 2)
    assert (occlude(torch.ones(1, 1, 7, 9), boxes).amin((0, 1, 2)) == 0).all()


def test_the_grid_of_729() -> None:
    assert grid_boxes(224, 224, 16, 8).shape == (729, 4)


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (8, 1), (3, 0)])
def test_the_grid_refuses(window: int, stride: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 7 pixels.*got {window} and {stride}"):
        grid_boxes(7, 9, window, stride)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
def test_writes_beyond_two_to_the_31_elements(layout: torch.memory_format) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    boxes = grid_boxes(224, 224, 4, 2)[:7400]  # of two images: 2.2e9 elements, 4.5 GB
    torch.use_deterministic_algorithms(False)  # or the memory would be filled twice
    if torch.cuda.mem_get_info()[0] < 6 * 2**30:
        pytest.skip("less than 6 GiB of the GPU's memory are free")
    images = randn(2, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
    out = occlude(images, boxes, memory_format=layout)
    assert out.numel() > 2**31
    for image, position in [(0, 0), (0, 7399), (1, 0), (1, 6864), (1, 6865), (1, 7399)]:
        top, left, bottom, right = boxes[position].tolist()
        expected = images[image].clone()
        expected[:, top:bottom, left:right] = 0
        assert torch.equal(out[image, position], expected)
    covered = (out == 0).flatten(2).sum(2) - (images == 0).flatten(1).sum(1)[:, None]
    assert covered.max() <= 48, "a box covers more than its 3 * 4 * 4 elements"
