"""max_pool against the definition, one window at a time, and against torch's own."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fc7.kernels import max_pool
from fc7.kernels.max_pool import max_pool_reference

# Kernel, stride, padding, dilation, ceil_mode; height and width.
CASES: dict[str, tuple[tuple[Any, ...], tuple[int, int]]] = {
    "VGG": ((2, 2, 0, 1, False), (8, 6)),
    "AlexNet": ((3, 2, 0, 1, False), (13, 15)),
    "ResNet": ((3, 2, 1, 1, False), (9, 7)),
    "GoogLeNet": ((3, 2, 0, 1, True), (8, 10)),
    "inception branch": ((3, 1, 1, 1, True), (5, 4)),
    "gaps": ((1, 3, 0, 1, False), (7, 8)),
    "two of each": (((3, 2), (1, 2), (1, 0), (2, 1), False), (9, 7)),
    "one pixel": ((1, 1, 0, 1, False), (1, 1)),
    "whole map": (((5, 4), 1, 0, 1, False), (5, 4)),
}


def maps(height: int, width: int, seed: int = 0) -> Tensor:
    """Few different values, so that windows hold equals, in both orders of memory."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, (2, 3, height, width), generator=generator).double()


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", CASES)
def test_is_the_definition(case: str, last: bool, device: str) -> None:
    options, size = CASES[case]
    form = torch.channels_last if last else torch.contiguous_format
    x = maps(*size).to(device).contiguous(memory_format=form).requires_grad_()
    y = max_pool(x, *options)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).double().to(device)
    (gx,) = torch.autograd.grad(y, x, g)
    pairs = [(n, n) if isinstance(n, int) else n for n in options[:4]]
    expected = max_pool_reference(x.detach().cpu().numpy(), g.cpu().numpy(), *pairs)
    np.testing.assert_array_equal(y.detach().cpu().numpy(), expected[0])
    # Gradients of windows that overlap are added in an order of torch's own.
    np.testing.assert_allclose(gx.cpu().numpy(), expected[1], rtol=0, atol=1e-14)
    assert gx.is_contiguous(memory_format=form)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_torch_with_nan_and_infinity(dtype: torch.dtype, device: str) -> None:
    x = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    x[0, 0, 2, 2], x[0, 1, 4, 4], x[1, 0] = float("nan"), float("inf"), float("-inf")
    x.requires_grad_()
    g = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    ours, theirs = max_pool(x, 3, 2), functional.max_pool2d(x, 3, 2)
    assert torch.equal(ours.nan_to_num(7), theirs.nan_to_num(7))
    assert torch.equal(*(torch.autograd.grad(y, x, g)[0] for y in (ours, theirs)))


def test_keeps_four_bytes_an_output(device: str) -> None:
    kept: list[Tensor] = []
    x = torch.randn(1, 2, 8, 8, device=device).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = max_pool(x, 2)
    assert sum(t.numel() * t.itemsize for t in kept) == 4 * y.numel()


def test_without_a_gradient_nothing_is_kept(device: str) -> None:
    x = torch.randn(1, 2, 8, 8, device=device)
    assert max_pool(x, 2).grad_fn is None
    with torch.no_grad():
        assert max_pool(x.requires_grad_(), 2).grad_fn is None
    assert torch.equal(max_pool(x[0], [2, 2], []), functional.max_pool2d(x[0], 2))


def test_no_second_derivative() -> None:
    x = torch.randn(1, 1, 4, 4).requires_grad_()
    (gx,) = torch.autograd.grad((max_pool(x, 2) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gx.sum().backward()


def test_sizes_that_make_no_sense() -> None:
    with pytest.raises(RuntimeError, match="pad should be at most half"):
        max_pool(torch.randn(1, 1, 4, 4).requires_grad_(), 2, 2, 2)
