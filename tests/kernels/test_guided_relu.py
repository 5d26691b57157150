"""guided_relu against a loop over elements, bit for bit: it moves values and computes none."""

import gc
import math
import sys
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fc7.kernels import backend
from fc7.kernels.guided_relu import Rule, guided_relu, guided_relu_reference
from fc7.kernels.guided_relu_triton import _BYTES_A_PROGRAM

# The module: by its name in the package stands the function.
module = sys.modules[guided_relu.__module__]

FLOATING = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
RULES: list[Rule] = ["guided", "plain", "deconv"]
# -nan is what an x86 processor makes of 0 / 0; 1e-45 and 6e-8 are among the smallest float32 and
# float16, whose exponent is zero.
SPECIAL = [math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-45, 6e-8, -6e-8, 2, -3]


def randn(
    *shape: int, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype).to(device)


def through(x: Tensor, g: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Return y and gx."""
    x = x.detach().requires_grad_()
    y = guided_relu(x, rule)
    (gx,) = torch.autograd.grad(y, x, g)
    return y.detach(), gx


def assert_same(actual: Tensor, expected: np.ndarray) -> None:
    """Assert that both are the same bit by bit, but for the bits of a NaN."""
    values = actual.double().cpu().numpy()
    np.testing.assert_array_equal(values, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(values)[numbers], np.signbit(expected)[numbers])


def assert_is_the_definition(x: Tensor, g: Tensor, rule: Rule) -> None:
    y, gx = through(x, g, rule)
    assert y.dtype == gx.dtype == x.dtype
    expected = guided_relu_reference(x.double().cpu().numpy(), g.double().cpu().numpy(), rule)
    assert_same(y, expected[0])
    assert_same(gx, expected[1])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", FLOATING)
def test_every_pair_of_special_values(dtype: torch.dtype, rule: Rule, device: str) -> None:
    values = torch.tensor(SPECIAL, dtype=torch.float64).to(dtype).to(device)
    x, g = torch.meshgrid(values, values, indexing="ij")
    assert_is_the_definition(x, g, rule)
    assert_is_the_definition(x.contiguous(), g.contiguous(), rule)
    # Without a gradient, nothing is recorded and another operator is taken.
    expected = guided_relu_reference(x.double().cpu().numpy(), g.double().cpu().numpy(), rule)
    assert_same(guided_relu(x, rule), expected[0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("size", [1, 3, 7, 8, 9, 63, 65, 123, 130])
def test_any_size(size: int, dtype: torch.dtype, rule: Rule, device: str) -> None:
    x = randn(size, dtype=dtype, device=device)
    assert_is_the_definition(x, randn(size, seed=1, dtype=dtype, device=device), rule)


@pytest.mark.parametrize("rule", ["guided", "plain"])
@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("beyond", [-1, 0, 1, 8, 13])
def test_several_programs(beyond: int, dtype: torch.dtype, rule: Rule, device: str) -> None:
    size = 2 * _BYTES_A_PROGRAM // dtype.itemsize + beyond
    x, g = (randn(size, seed=seed, dtype=dtype, device=device) for seed in (0, 1))
    assert_is_the_definition(x, g, rule)


@pytest.mark.parametrize("rule", ["guided", "plain"])
@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("size", [1, 64, 65, 123, 128, 130])
def test_chunk_follows_chunk(
    size: int, dtype: torch.dtype, rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend.INTERPRETED:
        pytest.skip("chunks are the torch path's")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(module, "_ELEMENTS_A_THREAD", 32)
    x, g = randn(size, dtype=dtype), randn(size, seed=1, dtype=dtype)
    assert_is_the_definition(x, g, rule)
    with torch.inference_mode():
        y, mask = torch.ops.fc7.guided_relu(x, rule)
        gx = torch.ops.fc7.guided_relu_backward(g, mask, x.stride(), rule)
    expected = guided_relu_reference(x.double().numpy(), g.double().numpy(), rule)
    assert_same(y, expected[0])
    assert_same(gx, expected[1])


def test_large_enough_for_several_chunks() -> None:
    if backend.INTERPRETED:
        pytest.skip("chunks are the torch path's")
    size = 2 * module._ELEMENTS_A_THREAD * torch.get_num_threads() + 5
    x, g = randn(size), randn(size, seed=1)
    y, gx = through(x, g, "guided")
    assert torch.equal(y, x.relu())
    assert torch.equal(gx, g.relu() * (x > 0))


@pytest.mark.parametrize("rule", RULES)
def test_memory_that_begins_anywhere(rule: Rule, device: str) -> None:
    for start in (1, 2, 4, 5):
        x, g = (randn(99, seed=seed, device=device)[start:] for seed in (0, 1))
        assert_is_the_definition(x, g, rule)


WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 3),
    "permuted": lambda t: t.permute(2, 0, 3, 1),
    "one channel": lambda t: t[:, :1].contiguous(memory_format=torch.channels_last),
    "one pixel": lambda t: t[:, :, :1, :1].contiguous(memory_format=torch.channels_last),
}
PARTIAL: dict[str, Callable[[Tensor], Tensor]] = {
    "cropped": lambda t: t[:, 1:4, 2:6, 1:3],
    "cropped channels last": lambda t: WHOLE["channels last"](t)[:, 1:4, 2:6, 1:3],
    "stepped": lambda t: t[:, ::2, 1::3, ::2],
    "transposed and cropped": lambda t: t.transpose(1, 3)[:, :3, 2:6],
    "expanded": lambda t: t[:, :1, :, :1].expand(-1, 3, -1, 5),
    "one value": lambda t: t[:1, :1, :1, :1].expand(2, 3, 4, 5),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", WHOLE)
def test_keeps_the_strides_of_whole_memory(name: str, rule: Rule, device: str) -> None:
    x, g = (WHOLE[name](randn(2, 5, 7, 6, seed=seed, device=device)) for seed in (0, 1))
    y, gx = through(x, g, rule)
    assert y.stride() == gx.stride() == x.stride()
    assert_is_the_definition(x, g, rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PARTIAL)
def test_leaves_no_gaps_in_memory(name: str, rule: Rule, device: str) -> None:
    x, g = (PARTIAL[name](randn(2, 5, 7, 6, seed=seed, device=device)) for seed in (0, 1))
    y, gx = through(x, g, rule)
    assert y.stride() == gx.stride() == torch.empty_like(x).stride()
    assert guided_relu(x, rule).stride() == y.stride()
    assert_is_the_definition(x, g, rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mine", [*WHOLE][:2])
@pytest.mark.parametrize("theirs", [*WHOLE][:2])
def test_a_gradient_in_another_layout(mine: str, theirs: str, rule: Rule, device: str) -> None:
    x = WHOLE[mine](randn(2, 5, 7, 6, device=device))
    g = WHOLE[theirs](randn(2, 5, 7, 6, seed=1, device=device))
    assert_is_the_definition(x, g, rule)
    assert_is_the_definition(x, g[:1, :, :, :1].expand(x.shape), rule)
    assert_is_the_definition(x, g.transpose(0, 0)[..., [3] * 6], rule)
    assert_is_the_definition(x, torch.ones((), device=device).expand(x.shape), rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), ()])
def test_nothing_and_a_single_number(shape: tuple[int, ...], rule: Rule, device: str) -> None:
    x, g = randn(*shape, device=device), randn(*shape, seed=1, device=device)
    assert_is_the_definition(x, g, rule)
    assert_is_the_definition(x.abs(), g.abs(), rule)


def test_leaves_its_inputs_alone(device: str) -> None:
    x, g = randn(65, device=device), randn(65, seed=1, device=device)
    before = x.clone(), g.clone()
    y, gx = through(x, g, "guided")
    y.fill_(9)
    gx.fill_(9)
    assert torch.equal(x, before[0])
    assert torch.equal(g, before[1])


def saved(x: Tensor, rule: Rule) -> list[Tensor]:
    """Return the tensors that are kept for the backward pass."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        guided_relu(x, rule)
    return kept


@pytest.mark.parametrize("rule", ["guided", "plain"])
@pytest.mark.parametrize("dtype", FLOATING)
def test_keeps_a_bit_an_element_on_a_gpu_and_a_byte_on_a_cpu(
    dtype: torch.dtype, rule: Rule, device: str
) -> None:
    for size in (1, 8, 65, 4096):
        x = randn(size, dtype=dtype, device=device).requires_grad_()
        (mask,) = saved(x, rule)
        bits = backend.uses_triton(x)
        assert mask.untyped_storage().nbytes() == (math.ceil(size / 8) if bits else size)
        flags = mask.cpu().numpy()
        if bits:
            flags = np.unpackbits(flags, count=size, bitorder="little")
        np.testing.assert_array_equal(flags, (x > 0).cpu().numpy())


def test_deconv_and_what_needs_no_gradient_keep_nothing(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = randn(65, device=device)
    assert saved(x.clone().requires_grad_(), "deconv") == []
    monkeypatch.delattr(module, "_guided_relu")  # no mask is even computed
    for rule in RULES:
        assert saved(x, rule) == []
        assert not guided_relu(x, rule).requires_grad
        with torch.no_grad():
            assert saved(x.clone().requires_grad_(), rule) == []
        with torch.inference_mode():
            assert torch.equal(guided_relu(x, rule), x.relu())


@pytest.mark.parametrize("rule", RULES)
def test_does_not_keep_its_input_or_output_alive(rule: Rule, device: str) -> None:
    leaf = randn(65, device=device).requires_grad_()
    x = leaf + 0
    y = guided_relu(x, rule)
    z = y.sum()
    references = weakref.ref(x), weakref.ref(y)
    del x, y
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    z.backward()
    assert torch.equal(leaf.grad, (leaf > 0).float() if rule != "deconv" else torch.ones_like(leaf))


class Swallow(torch.autograd.Function):
    """Hands nothing back."""

    @staticmethod
    def forward(ctx: object, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> None:
        return None


def test_no_gradient_gives_none(device: str) -> None:
    x = randn(65, device=device).requires_grad_()
    Swallow.apply(guided_relu(x)).sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inside_a_network(layout: torch.memory_format, rule: Rule, device: str) -> None:
    double = {"dtype": torch.float64, "device": device}
    weights = [randn(5, 3, 3, 3, **double), randn(4, 5, 3, 3, seed=1, **double)]
    images = randn(2, 3, 9, 7, seed=2, **double).contiguous(memory_format=layout)
    g = randn(2, 4, 5, 3, seed=3, **double)

    images.requires_grad_()
    out = functional.conv2d(guided_relu(functional.conv2d(images, weights[0]), rule), weights[1])
    out.backward(g)

    before = functional.conv2d(images.detach(), weights[0])
    back = functional.conv_transpose2d(g, weights[1])
    y, gx = guided_relu_reference(before.numpy(force=True), back.numpy(force=True), rule)
    expected = functional.conv2d(torch.from_numpy(y).to(device), weights[1])
    gradient = functional.conv_transpose2d(torch.from_numpy(gx).to(device), weights[0])
    # Float64 sums of at most 45 products of order 1, whose order may differ.
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(images.grad, gradient, rtol=0, atol=1e-12)
    assert guided_relu(before.contiguous(memory_format=layout)).is_contiguous(memory_format=layout)


def test_within_a_module_that_computes_in_place(device: str) -> None:
    # The ReLU keeps neither its input nor its output, so both may be written to.
    x = randn(65, device=device).requires_grad_()
    y = guided_relu(x * 2).mul_(3)
    y.sum().backward()
    assert torch.equal(x.grad, (x > 0) * 6.0)


@pytest.mark.parametrize("rule", RULES)
def test_autocast_changes_no_dtype(rule: Rule, device: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast(device, torch.bfloat16):
            x = randn(4, 4, dtype=dtype, device=device).requires_grad_()
            y = guided_relu(x, rule)
            (y.float() ** 2).sum().backward()
        assert y.dtype == x.grad.dtype == dtype
    with torch.autocast(device, torch.bfloat16):
        assert guided_relu(functional.linear(x.float(), x.float()), rule).dtype == torch.bfloat16


def test_the_plain_rule_is_the_derivative(device: str) -> None:
    x = randn(2, 3, 2, 2, dtype=torch.float64, device=device).requires_grad_()
    assert x.abs().min() > 1e-3, "too near the kink for finite differences"
    assert torch.autograd.gradcheck(lambda x: guided_relu(x, "plain"), (x,))
    # The second derivative is zero; squaring makes one of it that is not.
    assert torch.autograd.gradgradcheck(lambda x: guided_relu(x, "plain") ** 2, (x,))
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: guided_relu(x, "plain") ** 2, (last,))


@pytest.mark.parametrize("rule", ["guided", "deconv"])
def test_the_other_rules_have_no_derivative(rule: Rule, device: str) -> None:
    x = randn(65, device=device).requires_grad_()
    (gx,) = torch.autograd.grad((guided_relu(x, rule) ** 2).sum(), x, create_graph=True)
    assert torch.equal(gx, 2 * x.detach().relu())
    with pytest.raises(NotImplementedError, match=f"rule '{rule}' is no derivative"):
        torch.autograd.grad(gx.sum(), x)


@pytest.mark.parametrize("rule", RULES)
def test_as_custom_operators(rule: Rule, device: str) -> None:
    x, g = randn(2, 3, 5, device=device).transpose(0, 2), randn(5, 3, 2, seed=1, device=device)
    forward = torch.ops.fc7.guided_relu.default
    torch.library.opcheck(forward, (x.detach().requires_grad_(), rule))
    mask = None if rule == "deconv" else forward(x, rule)[1]
    # Only the plain rule promises a gradient of its gradient.
    backward = torch.ops.fc7.guided_relu_backward.default
    g.requires_grad_(rule == "plain")
    torch.library.opcheck(backward, (g, mask, x.stride(), rule))


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("guided", "permuted"),
        ("guided", "channels last"),
        ("plain", "cropped"),
        ("deconv", "one pixel"),
    ],
)
def test_in_a_compiled_function(rule: Rule, name: str, device: str) -> None:
    def network(x: Tensor) -> Tensor:
        return guided_relu(x * 2, rule).permute(0, 2, 3, 1) + 1

    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    x = (WHOLE | PARTIAL)[name](randn(2, 5, 7, 6, device=device)).requires_grad_()
    g = network(x).detach() - 2
    (expected,) = torch.autograd.grad(network(x), x, g)
    (actual,) = torch.autograd.grad(compiled(x), x, g)
    assert torch.equal(compiled(x), network(x))
    assert torch.equal(actual, expected)
    assert actual.stride() == expected.stride()
    assert torch.equal(compiled(x.detach()), network(x))


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ["guided", "plain"])
def test_more_than_two_to_the_31_elements(rule: Rule) -> None:
    size = 2**31 + 4099
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 5 * 2 * size:
        pytest.skip("needs a GPU with 22 GB free")
    x = torch.full((size,), -1.0, dtype=torch.bfloat16, device="cuda")
    g = torch.ones_like(x)
    for start in (0, 2**31 - 70, size - 65):
        x[start : start + 65] = randn(65, seed=start % 97, device="cuda")
        g[start : start + 65] = randn(65, seed=1 + start % 97, device="cuda")
    y, gx = through(x, g, rule)
    for start in (0, 2**31 - 70, size - 65):
        part = slice(start, start + 65)
        expected = guided_relu_reference(
            x[part].double().numpy(force=True), g[part].double().numpy(force=True), rule
        )
        assert_same(y[part], expected[0])
        assert_same(gx[part], expected[1])
    assert y.count_nonzero() <= 3 * 65
    assert gx.count_nonzero() <= 3 * 65


def test_says_what_is_wrong(device: str) -> None:
    x = randn(3, device=device)
    with pytest.raises(ValueError, match="expected rule 'guided', 'plain' or 'deconv', got 'relu'"):
        guided_relu(x, "relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected float16.*got torch\.int32"):
        guided_relu(x.int())
