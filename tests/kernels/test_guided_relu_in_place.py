"""guided_relu_ gives what guided_relu gives, over its argument, with nothing held twice."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fc7.kernels import guided_relu, guided_relu_
from fc7.kernels.guided_relu import Rule

RULES: list[Rule] = ["guided", "plain", "deconv"]
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x * 1,
    "channels last": lambda x: (x * 1).contiguous(memory_format=torch.channels_last),
    "permuted": lambda x: (x * 1).permute(3, 0, 2, 1),
    "a view of more": lambda x: (x * 1)[:, 1:4],
    "every other": lambda x: (x * 1)[..., ::2],
    "flat": lambda x: (x * 1).flatten(1),
    "empty": lambda x: (x * 1)[:0],
}


def values(device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0] = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 1e-30, -1e-30])
    return x.to(device, dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_equals_the_other(rule: Rule, form: str, dtype: torch.dtype, device: str) -> None:
    x = values(device, dtype)
    y, expected = FORMS[form](x), guided_relu(FORMS[form](x), rule)
    address, strides = y.data_ptr(), y.stride()
    assert guided_relu_(y, rule) is y
    assert (y.data_ptr(), y.stride()) == (address, strides)
    assert torch.equal(y, expected)
    assert torch.equal(torch.signbit(y), torch.signbit(expected))
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    assert torch.equal(*(torch.autograd.grad(out, x, g)[0] for out in (y, expected)))


@pytest.mark.parametrize("rule", RULES)
def test_what_shares_its_memory_sees_it(rule: Rule, device: str) -> None:
    x = values(device)
    whole = x * 1
    guided_relu_(whole[:, 1:4], rule)
    before, after = x[:, :1], x[:, 4:]
    expected = torch.cat([before, guided_relu(x[:, 1:4], rule), after], 1)
    assert torch.equal(whole, expected)
    g = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1)).to(device)
    assert torch.equal(*(torch.autograd.grad(out, x, g)[0] for out in (whole, expected)))


def test_keeps_the_mask_alone(device: str) -> None:
    kept: list[Tensor] = []
    y = values(device) * 1
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        guided_relu_(y)
    assert sum(t.numel() * t.itemsize for t in kept) <= y.numel()


def test_without_a_gradient(device: str) -> None:
    x = values(device).detach()
    expected = guided_relu(x)
    assert guided_relu_(x) is x
    assert x.grad_fn is None
    assert torch.equal(x, expected)


def test_no_second_derivative(device: str) -> None:
    x = values(device)
    (gx,) = torch.autograd.grad((guided_relu_(x * 1, "plain") ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gx.sum().backward()


def test_what_cannot_be_written_to(device: str) -> None:
    with pytest.raises(RuntimeError, match="leaf Variable"):
        guided_relu_(values(device))
    with pytest.raises(ValueError, match="expected rule"):
        guided_relu_(values(device) * 1, "soft")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected float16"):
        guided_relu_(torch.ones(3, dtype=torch.int32, device=device))
