"""frozen_conv gives what torch's convolution gives, and keeps nothing of its input."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fc7.kernels import frozen_conv

# Channels in and out, kernel; stride, padding, dilation, groups; height and width.
CASES: dict[str, tuple[tuple[int, int, tuple[int, int]], tuple[Any, ...], tuple[int, int]]] = {
    "VGG": ((4, 6, (3, 3)), (1, 1, 1, 1), (8, 6)),
    "AlexNet": ((3, 5, (11, 11)), (4, 2, 1, 1), (31, 27)),
    "one pixel": ((3, 2, (1, 1)), (1, 0, 1, 1), (1, 1)),
    "depthwise": ((6, 6, (3, 3)), (2, 1, 1, 6), (9, 7)),
    "grouped and dilated": ((6, 4, (3, 2)), ((2, 1), (2, 1), (2, 1), 2), (9, 10)),
    "rows never read": ((3, 4, (2, 2)), (3, 0, 1, 1), (9, 11)),
    "same": ((3, 4, (3, 3)), (1, "same", 1, 1), (6, 5)),
}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_is_torch_s(case: str, dtype: torch.dtype, last: bool, device: str) -> None:
    (inner, outer, kernel), options, size = CASES[case]
    form = torch.channels_last if last else torch.contiguous_format
    x = randn(2, inner, *size).to(device, dtype).contiguous(memory_format=form).requires_grad_()
    weight = randn(outer, inner // options[3], *kernel, seed=1).to(device, dtype)
    for bias in (None, randn(outer, seed=2).to(device, dtype)):
        ours = frozen_conv(x, weight, bias, *options)
        theirs = functional.conv2d(x, weight, bias, *options)
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()
        g = randn(*ours.shape, seed=3).to(device, dtype)
        gx, expected = (torch.autograd.grad(y, x, g)[0] for y in (ours, theirs))
        # The same call with the same numbers; another order of the sum would be another path.
        assert torch.equal(gx, expected)


@pytest.mark.parametrize("case", CASES)
def test_is_the_transpose_of_the_map(case: str) -> None:
    """A convolution is linear: what goes back to a pixel is g times the pixel's own image."""
    (inner, outer, kernel), options, size = CASES[case]
    x, weight = randn(1, inner, *size).requires_grad_(), randn(outer, inner // options[3], *kernel)
    y = frozen_conv(x, weight, None, *options)
    g = randn(*y.shape, seed=3)
    (gx,) = torch.autograd.grad(y, x, g)
    pixels = torch.eye(x.numel(), dtype=torch.float64).view(-1, inner, *size)
    images = functional.conv2d(pixels, weight, None, *options)
    assert torch.allclose(gx.flatten(), (images * g).flatten(1).sum(1), rtol=1e-12, atol=1e-12)


def test_keeps_the_weights_alone(device: str) -> None:
    kept: list[Tensor] = []
    x, weight = randn(1, 2, 8, 8).to(device).requires_grad_(), randn(3, 2, 3, 3).to(device)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        frozen_conv(x, weight)
    assert [t.data_ptr() for t in kept] == [weight.data_ptr()]


def test_weights_that_learn_are_torch_s(device: str) -> None:
    x, weight = randn(1, 2, 8, 8).to(device).requires_grad_(), randn(3, 2, 3, 3).to(device)
    bias = randn(3).to(device).requires_grad_()
    for trained in ((weight.clone().requires_grad_(), None), (weight, bias)):
        leaves = [x, *(tensor for tensor in trained if tensor is not None and tensor.requires_grad)]
        ours = torch.autograd.grad(frozen_conv(x, *trained).square().sum(), leaves)
        theirs = torch.autograd.grad(functional.conv2d(x, *trained).square().sum(), leaves)
        assert all(map(torch.equal, ours, theirs))


def test_without_a_gradient_or_a_batch(device: str) -> None:
    x, weight = randn(2, 2, 5, 5).to(device), randn(3, 2, 3, 3).to(device)
    assert frozen_conv(x, weight).grad_fn is None
    alone = x[0].clone().requires_grad_()
    assert torch.equal(frozen_conv(alone, weight), functional.conv2d(alone, weight))
    with torch.no_grad():
        assert frozen_conv(x.requires_grad_(), weight).grad_fn is None


def test_no_second_derivative() -> None:
    x = randn(1, 1, 4, 4).requires_grad_()
    y = frozen_conv(x, randn(1, 1, 2, 2))
    (gx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gx.sum().backward()
