"""spatial_max against a loop over every element: exact, for it copies values and never computes."""

import importlib
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fc7.kernels import backend, spatial_max
from fc7.kernels.spatial_max import _spatial_max, spatial_max_reference
from fc7.kernels.spatial_max_triton import plan_of

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
SPECIAL = torch.tensor([-1.0, -0.0, 0.0, 2.0, torch.inf, -torch.inf, torch.nan, -torch.nan])


def check(activations: Tensor) -> None:
    values, positions = spatial_max(activations)
    expected, places = spatial_max_reference(activations.double().cpu().numpy())
    assert values.dtype == activations.dtype
    assert positions.dtype == torch.int32
    np.testing.assert_array_equal(values.double().cpu().numpy(), expected)
    np.testing.assert_array_equal(positions.cpu().numpy(), places)


def draw(shape: tuple[int, ...], device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(device, dtype)


def draw_special(shape: tuple[int, ...], device: str) -> Tensor:
    """Ties, both zeros, infinities and NaN of both signs everywhere."""
    generator = torch.Generator().manual_seed(1)
    return SPECIAL[torch.randint(len(SPECIAL), shape, generator=generator)].to(device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 5), (3, 65, 13, 13), (1, 4, 1, 9)])
def test_equals_the_definition(
    shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype, device: str
) -> None:
    check(draw(shape, device, dtype).to(memory_format=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("side", [1, 3, 63, 65, 123, 130])
def test_awkward_sizes(side: int, layout: torch.memory_format, device: str) -> None:
    check(draw((1, 2, side, 3), device).to(memory_format=layout))
    check(draw((1, 2, 3, side), device).to(memory_format=layout))
    check(draw((1, side, 2, 3), device).to(memory_format=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_infinities_and_ties(
    dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    for shape in [(40, 3, 1, 3), (20, 5, 2, 2), (2, 3, 7, 5)]:
        check(draw_special(shape, device).to(dtype).to(memory_format=layout))
    check(torch.full((1, 2, 5, 7), -torch.inf, device=device, dtype=dtype))
    low = torch.full((1, 1, 70, 100), -torch.inf, device=device, dtype=dtype)
    check(low.to(memory_format=layout))
    low[0, 0, -1, -1] = -1e4
    check(low.to(memory_format=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("first", "second"),
    [(-0.0, 0.0), (0.0, -0.0), (torch.nan, -torch.nan), (-torch.nan, torch.inf)],
)
def test_values_are_the_elements_themselves(
    first: float, second: float, layout: torch.memory_format, device: str
) -> None:
    activations = torch.full((1, 2, 4, 5), -1.0, device=device).to(memory_format=layout)
    activations[:, :, 1, 2], activations[:, :, 3, 0] = first, second
    values, positions = spatial_max(activations)
    assert (positions == 7).all()
    assert torch.equal(values.view(torch.int32), activations[:, :, 1, 2].view(torch.int32))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "cropped": lambda x: x[:, :, 1:, 3:],
    "cropped to a line": lambda x: x[:, :, 2:3, 1:],
    "cropped to a column": lambda x: x[:, :, :, 2:3],
    "cropped to a part of a line": lambda x: x[:, :, :1, :5],
    "fewer channels": lambda x: x[:, 1:3],
    "fewer images": lambda x: x[1:],
    "stepped": lambda x: x[:, :, ::2, 1::2],
    "every other channel": lambda x: x[:, ::2],
    "transposed": lambda x: x.transpose(2, 3),
    "channels as images": lambda x: x.transpose(0, 1),
    "expanded images": lambda x: x[:1].expand(3, -1, -1, -1),
    "expanded channels": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "expanded columns": lambda x: x[:, :, :, :1].expand(-1, -1, -1, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_strides_are_read_in_place(
    view: Callable[[Tensor], Tensor], layout: torch.memory_format, device: str
) -> None:
    for special in (draw_special((2, 4, 6, 8), device), draw((2, 4, 6, 8), device)):
        check(view(special.to(memory_format=layout)))
        check(view(special.to(torch.bfloat16).to(memory_format=layout)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_maps_larger_than_a_tile(
    dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    """Large enough to be cut among programs, in several steps each; the maximum in every part."""
    whole = draw((2, 2, 128, 160), device, dtype).to(memory_format=layout)
    if backend.uses_triton(whole):
        plan = plan_of(whole)
        assert plan.parts > 1
        assert plan.steps > 1
    check(whole)
    check(-whole.abs() - 1)
    counted = torch.arange(128 * 160, device=device).view(128, 160)
    for place in (0, 4096, 14000, 128 * 160 - 1):
        activations = whole.clone(memory_format=torch.preserve_format)
        activations[1, 0] = torch.where(counted < place, 1, 100)  # all after it tie
        activations[1, 1, place // 160, place % 160] = torch.nan
        values, positions = spatial_max(activations)
        assert positions[1].tolist() == [place, place]
        assert values[1, 0] == 100
        assert values[1, 1].isnan()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cpus_parts_and_threads(
    dtype: torch.dtype, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where maps are large, but with small ones: every map is cut, and images among threads."""
    module = importlib.import_module("fc7.kernels.spatial_max")  # not the function of that name
    monkeypatch.setattr(module, "_ELEMENTS_A_THREAD", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for shared in (7, 60, 500):
        monkeypatch.setattr(module, "_SHARED", shared)
        for activations in (draw_special((5, 4, 6, 8), "cpu"), draw((5, 4, 6, 8), "cpu")):
            check(activations.to(dtype).to(memory_format=layout))
            check(activations.to(dtype).to(memory_format=layout)[:, :, 1:, ::2])


@pytest.mark.parametrize("shape", [(0, 5, 3, 3), (2, 0, 3, 3)])
def test_nothing_gives_no_values(shape: tuple[int, ...], device: str) -> None:
    values, positions = spatial_max(torch.empty(shape, device=device))
    assert values.shape == positions.shape == shape[:2]


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 0, 4), (1, 1, 2**16, 2**15)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        spatial_max(torch.zeros(1).expand(shape))


def test_refuses_integers() -> None:
    with pytest.raises(TypeError, match=r"got torch\.int64"):
        spatial_max(torch.zeros(1, 1, 2, 2, dtype=torch.int64))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_go_to_the_positions(layout: torch.memory_format, device: str) -> None:
    def values(activations: Tensor) -> Tensor:
        return spatial_max(activations)[0]

    activations = draw((2, 3, 4, 5), device, torch.float64).to(memory_format=layout)
    activations.requires_grad_()
    assert torch.autograd.gradcheck(values, (activations,))
    assert torch.autograd.gradgradcheck(values, (activations,))
    assert not spatial_max(activations)[1].requires_grad


def test_gradients_equal_torchs_in_ties(device: str) -> None:
    ours = draw_special((5, 3, 2, 4), device).requires_grad_()
    torchs = ours.detach().clone().requires_grad_()
    weights = draw((5, 3), device)
    (spatial_max(ours)[0].nan_to_num() * weights).sum().backward()
    (torchs.flatten(2).max(2).values.nan_to_num() * weights).sum().backward()
    assert torch.equal(ours.grad, torchs.grad)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_operator_is_sound(layout: torch.memory_format, device: str) -> None:
    activations = draw((2, 3, 4, 5), device).to(memory_format=layout).requires_grad_()
    torch.library.opcheck(_spatial_max, (activations,))
    torch.library.opcheck(_spatial_max, (activations.detach().bfloat16(),))


def test_compiles_without_a_break(device: str) -> None:
    def doubled(activations: Tensor) -> tuple[Tensor, Tensor]:
        values, positions = spatial_max(activations * 2)
        return values + 1, positions

    activations = draw((2, 3, 4, 5), device)
    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(compiled(activations), doubled(activations), strict=True):
        assert torch.equal(ours, eager)


FAR = {
    "images": ((3, 2, 2, 2), (2**30, 2**9, 2**5, 1)),
    "images, channels last": ((3, 2, 2, 2), (2**30, 1, 2**5, 2**9)),
    "channels": ((2, 3, 2, 2), (2**9, 2**30, 2**5, 1)),
    "lines": ((2, 2, 3, 2), (2**9, 2**5, 2**30, 1)),
    "lines, channels last": ((2, 2, 3, 2), (2**9, 1, 2**30, 2**5)),
    "columns": ((2, 2, 2, 3), (2**9, 2**5, 1, 2**30)),
    "columns of one line": ((2, 2, 1, 3), (2**9, 1, 1, 2**30)),
    "columns of two tiles": ((1, 1, 1, 2050), (1, 1, 1, 2**20)),
}


@pytest.mark.parametrize(("shape", "strides"), FAR.values(), ids=FAR.keys())
def test_addresses_beyond_two_to_the_31(
    shape: tuple[int, ...], strides: tuple[int, ...], tmp_path: Path
) -> None:
    """On a CPU: a file of holes, of which a view reaches a few places."""
    path = tmp_path / "holes"
    with path.open("w+b") as file:
        file.truncate(2 * (2**31 + 2**21))
        holes = mmap.mmap(file.fileno(), 0)
    holes.madvise(mmap.MADV_RANDOM)  # nothing but what is asked for is read
    whole = torch.frombuffer(holes, dtype=torch.float16)
    view = whole.as_strided(shape, strides)
    view[-1, -1, -1, -1] = 1  # at the far end
    check(view)
    assert spatial_max(view)[1][-1, -1] == shape[2] * shape[3] - 1


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
def test_beyond_two_to_the_31_elements(layout: torch.memory_format) -> None:
    shape = (3, 64, 3500, 3500)
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 6 * 2**30:
        pytest.skip("needs a GPU with 6 GiB")
    activations = torch.empty(shape, device="cuda", dtype=torch.bfloat16, memory_format=layout)
    activations.fill_(-1)
    places = torch.arange(3 * 64).view(3, 64) * 60_000 + 123
    for image in range(3):
        for channel in range(64):
            place = int(places[image, channel])
            activations[image, channel, place // 3500, place % 3500] = image * 64 + channel + 1
    values, positions = spatial_max(activations)
    assert torch.equal(positions.cpu().long(), places)
    assert torch.equal(values.cpu().float(), (torch.arange(192.0) + 1).view(3, 64))
