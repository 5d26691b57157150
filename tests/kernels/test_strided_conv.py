"""strided_conv against the definition, one product at a time, and against torch's own."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fc7.kernels.strided_conv import _serves, strided_conv, strided_conv_reference

# Channels, kernel, stride, padding; height and width.
CASES: dict[str, tuple[tuple[int, tuple[int, int], int, tuple[int, int]], tuple[int, int]]] = {
    "AlexNet": ((3, (11, 11), 4, (2, 2)), (23, 31)),
    "ResNet": ((3, (7, 7), 2, (3, 3)), (13, 10)),
    "pixels behind the last window": ((3, (8, 8), 4, (0, 0)), (19, 14)),
    "one window": ((3, (8, 6), 3, (0, 0)), (8, 6)),
    "one pixel": ((3, (7, 7), 2, (3, 3)), (1, 1)),
    "grey": ((1, (12, 8), 4, (5, 1)), (9, 20)),
    "four channels, two paddings": ((4, (5, 7), 2, (0, 3)), (11, 12)),
    "patches": ((3, (4, 4), 4, (0, 0)), (12, 17)),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", CASES)
def test_is_the_definition(case: str, last: bool) -> None:
    (channels, kernel, stride, padding), size = CASES[case]
    form = torch.channels_last if last else torch.contiguous_format
    x = draw(2, channels, *size).contiguous(memory_format=form).requires_grad_()
    weight, bias = draw(5, channels, *kernel, seed=1), draw(5, seed=2)
    assert _serves(x, weight, bias, stride, padding, 1, 1)
    y = strided_conv(x, weight, bias, stride, padding)
    assert torch.equal(y, functional.conv2d(x, weight, bias, stride, padding))
    g = draw(*y.shape, seed=3)
    (gx,) = torch.autograd.grad(y, x, g)
    numbers = (tensor.detach().double().numpy() for tensor in (x, weight, g))
    without, expected = strided_conv_reference(*numbers, stride, padding)
    # Sums of up to 5 x 9 products near 1 forwards and back to a pixel, rounded to 6e-8 each;
    # forwards of up to 363.
    np.testing.assert_allclose(gx, expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose((y - bias[:, None, None]).detach(), without, rtol=0, atol=1e-4)
    assert float(np.abs(expected).max()) > 1


def test_its_gradient_has_a_gradient() -> None:
    x, weight = draw(1, 3, 9, 9).requires_grad_(), draw(4, 3, 7, 7, seed=1)
    results = []
    for conv in (strided_conv, functional.conv2d):
        y = conv(x, weight, None, 2, 3)
        (gx,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
        results.append(torch.autograd.grad((gx**2).sum(), x)[0])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-2)  # numbers of the order of 1e5
    assert float(results[0].abs().max()) > 1e3


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 1}, {"stride": (2, 4)}, {"padding": "valid"}, {"dilation": 2}, {"groups": 3},
        {"kernel": 3}, {"channels": 6}, {"dtype": torch.float64}, {"weighs": True},
    ],
    ids=str,
)  # fmt: skip
def test_the_rest_is_as_torch_has_it(options: dict[str, Any]) -> None:
    wanted = {"stride": 2, "padding": 3, "dilation": 1, "groups": 1} | {
        key: options[key] for key in options if key in ("stride", "padding", "dilation", "groups")
    }
    channels, kernel = options.get("channels", 3), options.get("kernel", 7)
    dtype = options.get("dtype", torch.float32)
    x = draw(2, channels, 15, 17).to(dtype).requires_grad_()
    weight = draw(6, channels // wanted["groups"], kernel, kernel, seed=1).to(dtype)
    weight.requires_grad_(options.get("weighs", False))
    assert not _serves(x, weight, None, *wanted.values())
    found, expected = strided_conv(x, weight, **wanted), functional.conv2d(x, weight, **wanted)
    assert torch.equal(found, expected)
    g = draw(*expected.shape, seed=2).to(dtype)
    assert torch.equal(*(torch.autograd.grad(y, x, g)[0] for y in (found, expected)))


def test_nothing_is_recorded_that_nobody_asks_for() -> None:
    x, weight = draw(1, 3, 9, 9), draw(4, 3, 7, 7, seed=1)
    assert not strided_conv(x, weight, None, 2, 3).requires_grad
    with torch.no_grad():
        assert not strided_conv(x.requires_grad_(), weight, None, 2, 3).requires_grad
    assert strided_conv(x[:0], weight, None, 2, 3).shape == (0, 4, 5, 5)
