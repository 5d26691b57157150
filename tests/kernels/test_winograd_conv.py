"""winograd_conv is torch's convolution in fewer products, for its outputs and its gradient."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fc7.kernels import frozen_conv, winograd_conv
from fc7.kernels.winograd_conv import winograd_conv_reference, winograd_pays

# Images, channels in and out, height and width, padding.
CASES = {
    "tiles that do not fit": (2, 3, 5, 9, 7, (1, 1)),
    "one pixel": (1, 4, 2, 1, 1, (1, 1)),
    "no padding": (3, 2, 3, 4, 9, (0, 0)),
    "one output": (2, 2, 3, 3, 3, (0, 0)),
    "one side padded": (2, 3, 2, 8, 5, (0, 1)),
    "all that a kernel reaches": (2, 5, 4, 13, 6, (2, 2)),
    "rows alone": (1, 2, 2, 30, 5, (2, 0)),
}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(y: Tensor, x: Tensor, g: Tensor) -> Tensor:
    return torch.autograd.grad(y, x, g)[0]


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", CASES)
def test_is_the_definition(case: str, last: bool) -> None:
    images, inner, outer, height, width, padding = CASES[case]
    form = torch.channels_last if last else torch.contiguous_format
    x = randn(images, inner, height, width).contiguous(memory_format=form).requires_grad_()
    weight, bias = randn(outer, inner, 3, 3, seed=1), randn(outer, seed=2)
    y = winograd_conv(x, weight, bias, padding)
    expected = winograd_conv_reference(x.detach().numpy(), weight.numpy(), bias.numpy(), padding)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=0, atol=1e-12)
    assert y.is_contiguous(memory_format=torch.channels_last)
    g = randn(*y.shape, seed=3)
    theirs = gradient(functional.conv2d(x, weight, bias, 1, padding), x, g)
    torch.testing.assert_close(gradient(y, x, g), theirs, rtol=0, atol=1e-12)


def test_images_that_do_not_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = randn(5, 3, 10, 6).requires_grad_(), randn(4, 3, 3, 3, seed=1)
    whole = winograd_conv(x, weight)
    g = randn(*whole.shape, seed=2)
    bytes_an_image = 6 * 3 * 6 * 4 * x.element_size()  # points, tiles, width, the more channels
    module = sys.modules["fc7.kernels.winograd_conv"]  # whose name the function has as well
    monkeypatch.setattr(module, "_MOST_BYTES", 2 * bytes_an_image)
    parts = winograd_conv(x, weight)
    assert torch.equal(parts, whole)
    assert torch.equal(gradient(parts, x, g), gradient(whole, x, g))


SIZES = [(64, 128, 40), (256, 256, 28), (512, 512, 27)]


@pytest.mark.parametrize(("inner", "outer", "side"), SIZES)
def test_rounding_is_a_few_times_a_plain_sum_s(inner: int, outer: int, side: int) -> None:
    """oneDNN adds up in many partial sums, so that its error is a few roundings of one sum.

    The transforms' largest factors, 5 and 8, leave ours below ten times that; 2 to 3 are found.
    """
    x = randn(1, inner, side, side).relu()
    weight = randn(outer, inner, 3, 3, seed=1) / (3 * inner**0.5)
    g = randn(1, outer, side, side, seed=2)

    def rounded(tensor: Tensor) -> Tensor:
        return tensor.float().contiguous(memory_format=torch.channels_last)

    def both_ways(conv: Callable[..., Tensor], *numbers: Tensor) -> tuple[Tensor, Tensor]:
        image = numbers[0].clone().requires_grad_()
        y = conv(image, numbers[1], None, padding=(1, 1))
        return y.detach(), gradient(y, image, numbers[2])

    exact = both_ways(functional.conv2d, x, weight, g)
    few = [rounded(each) for each in (x, weight, g)]
    ours, theirs = both_ways(winograd_conv, *few), both_ways(functional.conv2d, *few)
    for our, their, right in zip(ours, theirs, exact, strict=True):
        assert (our - right).norm() < 5 * (their - right).norm()
        assert (our - right).abs().max() < 2e-5 * right.abs().max()


def test_a_row_does_not_hang_on_its_company() -> None:
    """Large enough that the number of images decides nothing but how many are taken together."""
    x, weight = randn(7, 128, 28, 28, dtype=torch.float32), randn(128, 128, 3, 3, seed=1).float()
    for count in (1, 2, 7):
        assert winograd_pays(x[:count], weight, (1, 1))
    assert not winograd_pays(x[..., :26, :26], weight, (1, 1))
    assert not winograd_pays(x.double(), weight, (1, 1))
    assert not winograd_pays(x, weight[:16], (1, 1))
    assert not winograd_pays(x, weight, (3, 1))


def test_frozen_conv_takes_it_and_keeps_the_weights_alone() -> None:
    kept: list[Tensor] = []
    x = randn(1, 128, 28, 28, dtype=torch.float32).requires_grad_()
    weight, bias = randn(128, 128, 3, 3, seed=1).float(), randn(128, seed=2).float()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = frozen_conv(x, weight, bias, padding=1)
    assert [t.data_ptr() for t in kept] == [weight.data_ptr()]
    assert torch.equal(y, winograd_conv(x, weight, bias))
    # Another stride is another convolution.
    strided = frozen_conv(x, weight, bias, stride=2, padding=1)
    assert torch.equal(strided, functional.conv2d(x, weight, bias, 2, 1))
    # What follows may write over it, as a ReLU in place does.
    g = randn(*y.shape, seed=3).float()
    expected = gradient(winograd_conv(x, weight, bias).relu(), x, g)
    assert torch.equal(gradient(y.relu_(), x, g), expected)


def test_what_is_not_finite_stays_within_its_tile() -> None:
    """Of sums of rows an infinite one makes NaN: of the outputs of its tiles, and of no others."""
    x, weight = randn(1, 2, 16, 5), randn(3, 2, 3, 3, seed=1)
    x[0, 0, 6, 2] = float("inf")
    y = winograd_conv(x, weight)
    lost = ~torch.isfinite(y).all(1)[0]
    assert lost[4:8].any()
    assert not lost[:3].any()
    assert not lost[9:].any()
