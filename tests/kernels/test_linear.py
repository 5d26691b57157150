"""linear and FastLinear against a float64 loop, and against torch where torch must do the work."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from fc7.kernels import FastLinear, linear
from fc7.kernels.linear import _takes, linear_reference


def draw(n: int, i: int, o: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(n * 1000 + i)
    shapes = ((n, i), (o, i), (o,))
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("n", "i", "o"), [(1, 1, 1), (2, 7, 5), (3, 65, 13), (32, 300, 17)])
def test_equals_the_definition(n: int, i: int, o: int, with_bias: bool) -> None:
    x, weight, bias = draw(n, i, o)
    found = linear(x, weight, bias if with_bias else None)
    expected = linear_reference(
        x.double().numpy(), weight.double().numpy(), bias.double().numpy() if with_bias else None
    )
    # A sum of i products of numbers near 1, in any order: its error grows as i times the unit
    # roundoff 6e-8, and is measured against sums as large as sqrt(i).
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=(i + 1) * 2.4e-7)
    assert found.dtype == torch.float32
    assert found.shape == (n, o)


def test_strided_inputs_are_taken_as_they_are() -> None:
    x, weight, bias = draw(6, 40, 9)
    wide = torch.zeros(6, 80)
    wide[:, ::2] = x
    tall = weight.T.contiguous().T
    torch.testing.assert_close(linear(wide[:, ::2], tall, bias), linear(x, weight, bias))


def test_leading_dimensions_are_kept() -> None:
    x, weight, bias = draw(6, 8, 5)
    assert torch.equal(linear(x.view(2, 3, 8), weight, bias), linear(x, weight, bias).view(2, 3, 5))
    assert linear(x[0], weight, bias).shape == (5,)
    assert linear(x[:0], weight, bias).shape == (0, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_torchs(dtype: torch.dtype) -> None:
    x, weight, bias = draw(4, 16, 3, dtype)
    assert not _takes(x, weight, bias)
    assert torch.equal(linear(x, weight, bias), nn.functional.linear(x, weight, bias))


def test_gradients_flow_where_they_are_recorded() -> None:
    x, weight, bias = draw(4, 16, 3)
    weight.requires_grad_()
    assert not _takes(x, weight, bias)
    linear(x, weight, bias).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(3, 16))


def test_a_network_computes_the_same_within_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(24, 11), nn.ReLU(inplace=True), nn.Linear(11, 3)).eval()
    x = torch.randn(5, 24)
    calls: list[bool] = []

    def spy(*tensors: torch.Tensor | None) -> bool:
        calls.append(_takes(*tensors))
        return calls[-1]

    # The package's own `linear` is the function, so the module is found by its full name.
    monkeypatch.setattr(sys.modules["fc7.kernels.linear"], "_takes", spy)
    with torch.inference_mode():
        expected = network(x)
        assert calls == []  # outside the mode nothing is redirected
        with FastLinear():
            found = network(x)
    available = torch.backends.mkldnn.is_available()
    assert calls == [available, available]
    # Two layers of at most 24 products near 1.
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


def test_without_onednn_torch_does_it() -> None:
    x, weight, bias = draw(4, 16, 3)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not _takes(x, weight, bias)
        assert torch.equal(linear(x, weight, bias), nn.functional.linear(x, weight, bias))


def test_the_inputs_gradient_is_the_definitions() -> None:
    x, weight, bias = draw(5, 40, 9)
    x.requires_grad_()
    assert _takes(x, weight, bias)
    y = linear(x, weight, bias)
    assert torch.equal(y.detach(), linear(x.detach(), weight, bias))
    g = torch.randn(5, 9, generator=torch.Generator().manual_seed(1))
    (gx,) = torch.autograd.grad(y, x, g, create_graph=True)
    expected = g.double().numpy() @ weight.double().numpy()
    # Sums of 9 products near 1.
    np.testing.assert_allclose(gx.detach().numpy(), expected, rtol=0, atol=1e-5)
    assert linear(x.view(5, 1, 40), weight).grad_fn is not None
