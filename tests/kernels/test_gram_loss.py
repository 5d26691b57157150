"""gram_loss against its definition, its gradients against autograd's, and the memory it takes."""

from typing import Any

import pytest
import torch
from closeness import assert_within_twice
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from fc7.kernels import backend, gram_plan, gram_triton
from fc7.kernels.gram_loss import gram_loss, gram_loss_reference

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def draw(shape: tuple[int, ...], dtype: torch.dtype, device: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype).to(device)


def torchs(features: Tensor, target: Tensor) -> Tensor:
    flat = features.flatten(2)
    return (torch.bmm(flat, flat.mT) / flat.shape[2] - target).square().mean((1, 2))


def targets(n: int, c: int, device: str) -> dict[str, Tensor]:
    """None of them symmetric."""
    each = draw((n, c, c), torch.float32, device, seed=1)
    wide = torch.full((n, 2 * c + 1, c + 3), torch.nan, device=device)
    wide[:, 1::2, 2:-1] = each
    return {
        "one": each[0],
        "each": each,
        "float64": each.double(),
        "transposed": each.mT.contiguous().mT,
        "stepped": wide[:, 1::2, 2:-1],
    }


def check(features: Tensor, target: Tensor) -> None:
    found = gram_loss(features, target)
    assert found.dtype == (torch.float64 if features.dtype == torch.float64 else torch.float32)
    reference = gram_loss_reference(features.double().cpu().numpy(), target.double().cpu().numpy())
    theirs = torchs(features, target.to(features.dtype))
    assert_within_twice(found, theirs, torch.from_numpy(reference))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (2, 3, 5, 7), (2, 63, 7, 9), (1, 65, 3, 13), (1, 123, 9, 5), (2, 130, 7, 11)],
)
def test_equals_the_definition(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    features, target = draw(shape, dtype, device), targets(*shape[:2], device)["each"]
    check(features, target)
    check(features.to(memory_format=torch.channels_last), target)


@pytest.mark.parametrize("kind", targets(1, 1, "cpu"))
def test_targets(kind: str, device: str) -> None:
    target = targets(2, 37, device)[kind]
    for dtype in (torch.float16, torch.float32, torch.float64):
        check(draw((2, 37, 5, 9), dtype, device), target)


@pytest.mark.parametrize("splits", [1, 3])
def test_split_or_not(splits: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = gram_triton.plan

    def fixed(images: int, channels: int, pixels: int, *rest: Any) -> gram_plan.Plan:
        cut = plan(images, channels, pixels, *rest)
        each = -(-pixels // (splits * cut.step))
        count = -(-pixels // (each * cut.step))
        return cut._replace(splits=count, pixels_per_split=each * cut.step)

    monkeypatch.setattr(gram_triton, "plan", fixed)
    target = targets(2, 70, device)["each"]
    for dtype in (torch.bfloat16, torch.float32):
        features = draw((2, 70, 9, 23), dtype, device)
        check(features, target)
        check_gradient(features, target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["one", "each"])
def test_gradient_against_autograd(
    kind: str, layout: torch.memory_format, dtype: torch.dtype, device: str
) -> None:
    features = draw((2, 33, 7, 5), dtype, device).to(memory_format=layout)
    check_gradient(features, targets(2, 33, device)[kind])


def check_gradient(features: Tensor, target: Tensor) -> None:
    weights = torch.arange(1, len(features) + 1, device=features.device)

    def gradient(loss: Any, dtype: torch.dtype) -> Tensor:
        leaf = features.detach().to(dtype).requires_grad_()
        total = (loss(leaf, target) * weights).sum()
        return torch.autograd.grad(total, leaf)[0]

    found = gradient(gram_loss, features.dtype)
    assert found.dtype == features.dtype
    assert found.stride() == features.stride()

    def like(x: Tensor, goal: Tensor) -> Tensor:
        return torchs(x, goal.to(x.dtype))

    assert_within_twice(found, gradient(like, features.dtype), gradient(like, torch.float64))


def test_gradient_near_the_target_is_not_rounded_away(device: str) -> None:
    """A difference far smaller than G, as at the end of an optimisation, from 16-bit features."""
    features = draw((1, 32, 16, 16), torch.bfloat16, device)
    flat = features.double().flatten(2)
    gram = torch.bmm(flat, flat.mT) / flat.shape[2]
    target = gram + 1e-3 * draw((1, 32, 32), torch.float64, device, seed=2)
    torch.testing.assert_close(
        gram_loss(features, target).double(), torchs(features.double(), target), rtol=1e-2, atol=0
    )


def test_gradcheck(device: str) -> None:
    features = draw((2, 2, 1, 3), torch.float64, device).requires_grad_()
    for shape in ((2, 2), (2, 2, 2)):
        target = draw(shape, torch.float64, device, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(gram_loss, (features, target))
        assert torch.autograd.gradgradcheck(gram_loss, (features, target), fast_mode=True)


def test_opcheck(device: str) -> None:
    features = draw((2, 5, 3, 4), torch.float32, device).requires_grad_()
    target = draw((2, 5, 5), torch.float32, device)
    torch.library.opcheck(torch.ops.fc7.gram_loss, (features, target))
    torch.library.opcheck(torch.ops.fc7.gram_loss, (features, target.requires_grad_()))


def test_compiles_whole(device: str) -> None:
    features = draw((2, 5, 3, 4), torch.float32, device).requires_grad_()
    target = draw((5, 5), torch.float32, device)

    def loss(x: Tensor) -> Tensor:
        return gram_loss(torch.relu(x), target).sum()

    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(features)
    (gradient,) = torch.autograd.grad(found, features)
    (expected,) = torch.autograd.grad(loss(features), features)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_one_matrix_an_image_is_all_there_is(dtype: torch.dtype) -> None:
    """Forward and backward make one (N, C, C) array, and nothing else of half its size."""
    n, c = 4, 160  # the maps are far smaller than G
    features = draw((n, c, 2, 2), dtype, "cpu").requires_grad_()
    target = draw((c, c), torch.float32, "cpu")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        gram_loss(features, target).sum().backward()
    bytes_of_matrices = n * c * c * min(dtype.itemsize, 4)
    taken = [event.self_cpu_memory_usage for event in profiled.events()]
    assert len([taken for taken in taken if taken > bytes_of_matrices / 2]) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_one_matrix_an_image_on_a_gpu(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    n, c = 64, 512
    features = draw((n, c, 4, 4), dtype, "cuda").requires_grad_()
    target = draw((c, c), torch.float32, "cuda")
    gram_loss(features, target).sum().backward()  # cuBLAS takes its own workspace
    features.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gram_loss(features, target).sum().backward()
    matrices = n * c * c * dtype.itemsize
    maps = 3 * features.numel() * features.itemsize
    assert torch.cuda.max_memory_allocated() - before < 1.1 * matrices + maps


def test_products_of_cublas_are_finished(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uses_triton = backend.uses_triton(torch.empty(0, device=device))
    monkeypatch.setattr(backend, "INTERPRETED", False)  # so that tf32 is up to torch
    monkeypatch.setattr(backend, "uses_triton", lambda *tensors: uses_triton)
    features, target = draw((2, 70, 5, 6), torch.float32, device), targets(2, 70, device)["each"]
    check(features, target)
    check_gradient(features, target)


def test_no_images(device: str) -> None:
    features = torch.empty((0, 5, 2, 2), device=device, requires_grad=True)
    losses = gram_loss(features, torch.zeros(5, 5, device=device))
    assert losses.shape == (0,)
    losses.sum().backward()
    assert features.grad is not None


@pytest.mark.parametrize(
    ("features", "target"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(4, 4)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 3)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, dtype=torch.float16)),
        (torch.zeros(2, 0, 4, 4), torch.zeros(0, 0)),
        (torch.zeros(2, 3, 4), torch.zeros(3, 3)),
    ],
)
def test_says_what_it_wants(features: Tensor, target: Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        gram_loss(features, target)


def test_devices_must_agree() -> None:
    with pytest.raises(ValueError, match=r"features on cpu, but target on meta"):
        gram_loss(torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, device="meta"))
