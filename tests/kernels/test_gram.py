"""gram against its definition in float64, on the CPU, in Triton's interpreter, and on a GPU."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from closeness import assert_within_twice
from torch import Tensor

from fc7.kernels import backend, gram_plan, gram_torch, gram_triton
from fc7.kernels.gram import gram, gram_reference
from fc7.kernels.symmetrize import symmetrize

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES = (
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (1, 63, 7, 9),
    (2, 65, 3, 13),
    (1, 123, 9, 5),
    (1, 130, 7, 11),
    (2, 64, 8, 32),
    (1, 128, 16, 16),
)


@pytest.fixture(params=["ieee", "tf32"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """How torch may multiply float32 on a GPU."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = request.param
    yield request.param
    torch.backends.cuda.matmul.fp32_precision = before


def draw(shape: tuple[int, ...], dtype: torch.dtype, device: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype).to(device)


def layouts(features: Tensor) -> dict[str, Tensor]:
    """The same numbers, laid out in every way."""
    n, c, h, w = features.shape
    wide = features.new_full((n + 1, c + 1, 2 * h + 1, 3 * w + 2), torch.nan)
    wide[1:, 1:, 1::2, 2::3] = features
    around = features.new_full((n, c, h + 2, w + 3), torch.nan)
    around[:, :, 1:-1, 1:-2] = features
    last = around.to(memory_format=torch.channels_last)
    return {
        "contiguous": features.contiguous(),
        "channels_last": features.to(memory_format=torch.channels_last),
        "stepped": wide[1:, 1:, 1::2, 2::3],
        "cropped": around[:, :, 1:-1, 1:-2],
        "cropped channels_last": last[:, :, 1:-1, 1:-2],
        "transposed": features.transpose(2, 3).contiguous().transpose(2, 3),
        "channels first": features.transpose(0, 1).contiguous().transpose(0, 1),
    }


def torchs(features: Tensor, center: bool = False) -> Tensor:
    flat = features.flatten(2)
    flat = flat - flat.mean(2, keepdim=True) if center else flat
    return torch.bmm(flat, flat.mT) / flat.shape[2]


def check(features: Tensor, center: bool = False) -> None:
    found = gram(features, center)
    expected = torch.from_numpy(gram_reference(features.double().cpu().numpy(), center))
    assert found.dtype == (torch.float64 if features.dtype == torch.float64 else torch.float32)
    assert torch.equal(found, found.mT)
    assert_within_twice(found, torchs(features, center), expected)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_definition(
    shape: tuple[int, ...], dtype: torch.dtype, center: bool, device: str
) -> None:
    check(draw(shape, dtype, device), center)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", layouts(torch.zeros(1, 1, 1, 1)))
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 65, 7, 8), (2, 5, 1, 9), (2, 5, 9, 1)])
def test_reads_every_layout(
    shape: tuple[int, ...], layout: str, dtype: torch.dtype, center: bool, device: str
) -> None:
    check(layouts(draw(shape, dtype, device))[layout], center)


def test_float32_keeps_to_what_torch_allows(precision: str, device: str) -> None:
    check(draw((2, 65, 9, 9), torch.float32, device))
    check(draw((2, 65, 9, 9), torch.float32, device), center=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_expanded_features(dtype: torch.dtype, device: str) -> None:
    one = draw((1, 5, 7, 3), dtype, device)
    check(one.expand(3, 5, 7, 3))
    check(one[:, :, :1].expand(1, 5, 4, 3))


@pytest.mark.parametrize("splits", [1, 3])
def test_every_sum_is_finished(splits: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split or not: on a GPU and in the interpreter, a plan of its own."""
    plan = gram_triton.plan

    def fixed(images: int, channels: int, pixels: int, *rest: int) -> gram_plan.Plan:
        cut = plan(images, channels, pixels, *rest)
        steps = -(-pixels // cut.step)
        each = -(-steps // splits)
        return cut._replace(splits=-(-steps // each), pixels_per_split=each * cut.step)

    monkeypatch.setattr(gram_triton, "plan", fixed)
    for dtype in (torch.float16, torch.float32):
        check(draw((2, 70, 9, 23), dtype, device))
        check(draw((2, 70, 9, 23), dtype, device), center=True)


def test_a_cpu_adds_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last strip is lower than the others: 3 of 7 rows at a time."""
    monkeypatch.setattr(gram_torch, "STRIP", 3 * 66 * 5)
    monkeypatch.setattr(gram_torch, "_mkl_leads", lambda: False)
    monkeypatch.setattr(backend, "uses_triton", lambda *tensors: False)
    for layout in layouts(torch.zeros(1, 1, 1, 1)):
        features = layouts(draw((2, 66, 7, 5), torch.float32, "cpu"))[layout]
        check(features)
        check(features, center=True)


@pytest.mark.parametrize("mkl_leads", [True, False])
@pytest.mark.parametrize("c", [1, 63, 65, 130, 300])
def test_a_cpu_has_two_libraries(c: int, mkl_leads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one block of channels, and with several, the last one smaller."""
    monkeypatch.setattr(gram_torch, "_mkl_leads", lambda: mkl_leads)
    monkeypatch.setattr(backend, "uses_triton", lambda *tensors: False)
    for dtype in DTYPES:
        for features in layouts(draw((2, c, 5, 7), dtype, "cpu")).values():
            check(features)


def test_a_mean_far_above_the_spread_does_not_cancel(device: str) -> None:
    features = draw((2, 66, 17, 19), torch.float32, device) + 1e4
    expected = torch.from_numpy(gram_reference(features.double().cpu().numpy(), center=True))
    # A float32 near 1e4 is exact to 5e-4, and so is the mean: its error enters squared. Uncentred
    # sums would be wrong by 1e8 * 6e-8 = 6.
    error = (gram(features, center=True).double().cpu() - expected).abs().max()
    assert error < (5e-3 if device == "cuda" else 2e-5)


def test_center_is_not_the_default(device: str) -> None:
    features = draw((1, 3, 4, 4), torch.float32, device) + 10
    assert gram(features).min() > 50
    assert gram(features, center=True).max() < 5


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (0, 0, 1, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_gives_nothing(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    for center in (False, True):
        features = torch.empty(shape, dtype=dtype, device=device, requires_grad=True)
        found = gram(features, center)
        assert found.shape == (shape[0], shape[1], shape[1])
        found.sum().backward()
        assert features.grad is not None
        assert features.grad.shape == shape


def test_the_same_bits_every_time(device: str) -> None:
    features = draw((2, 70, 30, 31), torch.float32, device)
    assert torch.equal(gram(features), gram(features))


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy, in the interpreter
def test_nan_and_inf_stay_in_their_channels(device: str) -> None:
    features = draw((2, 40, 6, 7), torch.float32, device)
    features[1, 3, 2, 2], features[1, 7, 0, 0] = torch.nan, torch.inf
    found = gram(features)
    assert found[0].isfinite().all()
    assert found[1, 3].isnan().all()
    assert found[1, :, 3].isnan().all()
    assert found[1, 7, 7] == torch.inf
    others = [i for i in range(40) if i not in (3, 7)]
    assert found[1][others][:, others].isfinite().all()


@pytest.mark.parametrize("center", [False, True])
def test_gradcheck(center: bool, device: str) -> None:
    for shape in ((2, 3, 2, 3), (1, 1, 1, 1)):
        features = draw(shape, torch.float64, device).requires_grad_()
        assert torch.autograd.gradcheck(gram, (features, center))
        assert torch.autograd.gradgradcheck(gram, (features, center), fast_mode=True)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_against_autograd(
    dtype: torch.dtype, layout: str, center: bool, device: str
) -> None:
    features = layouts(draw((2, 33, 7, 5), dtype, device))[layout].detach().requires_grad_()
    weights = draw((2, 33, 33), torch.float32, device, seed=1)  # not symmetric
    (found,) = torch.autograd.grad((gram(features, center) * weights).sum(), features)
    assert found.dtype == dtype
    if layout == "channels_last":
        assert found.is_contiguous(memory_format=torch.channels_last)

    def by_torch(like: torch.dtype) -> Tensor:
        leaf = features.detach().to(like).requires_grad_()
        product = (torchs(leaf, center) * weights.to(like)).sum()
        return torch.autograd.grad(product, leaf)[0]

    assert_within_twice(found, by_torch(dtype), by_torch(torch.float64))


@pytest.mark.parametrize(("scale", "size"), [(1e-2, 1.0), (1e7, 1e-3), (1e-5, 1e4)])
def test_fp16_gradient_within_its_range(scale: float, size: float, device: str) -> None:
    """dG / (H W), or its sum over large features, leaves fp16's range; the gradient does not."""
    features = draw((1, 256, 28, 28), torch.float16, device) * size
    features.requires_grad_()
    weights = draw((1, 256, 256), torch.float32, device, seed=1) * scale
    (found,) = torch.autograd.grad((gram(features) * weights).sum(), features)
    leaf = features.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad((torchs(leaf) * weights.double()).sum(), leaf)
    # fp16 rounds to 5e-4 of a number: the matrix, the product and the result, once each.
    assert (found.double() - expected).abs().max() <= 2e-3 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype: torch.dtype, device: str) -> None:
    features = draw((2, 5, 3, 4), dtype, device).requires_grad_()
    for center in (False, True):
        torch.library.opcheck(torch.ops.fc7.gram, (features, center))
    matrices = draw((2, 5, 5), torch.float32, device).requires_grad_()
    scales = torch.ones(2, device=device)
    torch.library.opcheck(torch.ops.fc7.symmetrize, (matrices, scales, dtype))


def test_compiles_whole(device: str) -> None:
    features = draw((2, 5, 3, 4), torch.float32, device).requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return gram(torch.relu(x), center=True).square().sum()

    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(features)
    (gradient,) = torch.autograd.grad(found, features)
    (expected,) = torch.autograd.grad(loss(features), features)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [1, 31, 33, 65])
def test_symmetrize(c: int, dtype: torch.dtype, device: str) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    matrices = draw((3, c, c), dtype, device)
    scales = torch.tensor([1.0, -0.5, 3.0], dtype=wide, device=device)
    for given in (matrices, matrices.mT, matrices[:, :1].expand(3, c, c)):
        found = symmetrize(given, scales, dtype)
        assert torch.equal(found, found.mT)
        summed = given.double() + given.double().mT
        expected = (summed * scales.double()[:, None, None]).to(dtype)
        # At most the last bit: the sum is rounded to float32 before it is rounded to the dtype.
        torch.testing.assert_close(found, expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_mirror_takes_the_lower_triangle() -> None:
    matrices, found = torch.randn(2, 77, 77), torch.empty(2, 77, 77)
    gram_torch.mirror(matrices, found)
    assert torch.equal(found, matrices.tril() + matrices.tril(-1).mT)
    gram_torch.mirror_in_place(matrices)
    assert torch.equal(found, matrices)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 4, 4), torch.float32), ((1, 3, 0, 4), torch.float32), ((1, 3, 4, 4), torch.int64)],
)
def test_says_what_it_wants(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"expected .*got"):
        gram(torch.zeros(shape, dtype=dtype))


def far_apart(strides: tuple[int, ...], shape: tuple[int, ...], device: str) -> Tensor:
    """Features whose elements lie further apart than 2^31 of them; little of it is touched."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if device == "cuda" and torch.cuda.mem_get_info()[0] < 2 * span + 2**30:
        pytest.skip(f"needs {2 * span} bytes of GPU memory")
    torch.utils.deterministic.fill_uninitialized_memory = False  # 4 GiB and more of it
    try:
        memory = torch.empty(span, dtype=torch.float16, device=device)
    except RuntimeError as error:
        pytest.skip(f"no room for {2 * span} bytes: {error}")
    return memory.as_strided(shape, strides)


@pytest.mark.parametrize(
    "strides",
    [
        (2**30 + 16, 9, 3, 1),
        (9, 2**30 + 16, 3, 1),
        (9, 27, 2**30 + 16, 1),
        (9, 27, 1, 2**30 + 16),
        (3, 1, 3 * 2**28, 2**28),
    ],
)
def test_addresses_beyond_two_billion(strides: tuple[int, ...], device: str) -> None:
    shape = (3, 3, 3, 3)
    features = far_apart(strides, shape, device)
    features.copy_(draw(shape, torch.float16, device))
    found = gram(features)
    assert_within_twice(
        found,
        torchs(features.contiguous()),
        torch.from_numpy(gram_reference(features.double().cpu().numpy())),
    )


def test_numbers_that_can_be_counted(device: str) -> None:
    """Two channels, three pixels, by hand."""
    features = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]], device=device).view(1, 2, 1, 3)
    np.testing.assert_allclose(
        gram(features)[0].cpu(), [[14 / 3, 1 / 3], [1 / 3, 2 / 3]], rtol=1e-6
    )
    centered = gram(features, center=True)[0].cpu()
    np.testing.assert_allclose(centered, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]], rtol=1e-6)
