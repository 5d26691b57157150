"""Every spelling of a ReLU is found, and under the plain rule nothing changes."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from programs import programs
from torch import Tensor, nn
from torch.nn import functional as F

from fc7.engine.models.rectified import Rectified

SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU, in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu, in place": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "x.relu": lambda x: x.relu(),
    "x.relu_": lambda x: x.relu_(),
    "aten": lambda x: torch.ops.aten.relu(x),
    "aten, in place": lambda x: torch.ops.aten.relu_.default(x),
    "clamp": lambda x: x.clamp(min=0),
    "torch.clamp": lambda x: torch.clamp(x, 0.0),
    "clip_": lambda x: x.clip_(0),
    "clamp_min": lambda x: x.clamp_min(0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "nn.Threshold, in place": nn.Threshold(0, 0, inplace=True),
}
SIXES: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6, in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.hardtanh_": lambda x: F.hardtanh_(x, 0, 6),
    "clamp": lambda x: x.clamp(0, 6),
    "clamp_": lambda x: x.clamp_(max=6, min=0),
}
NO_RELU: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp above": lambda x: x.clamp(max=0),
    "clamp at one": lambda x: x.clamp(min=1),
    "clamp below a tensor": lambda x: x.clamp(min=torch.zeros(())),
    "clamp to nothing": lambda x: x.clamp(0, 0),
    "threshold elsewhere": lambda x: F.threshold(x, 0, -1),
    "hardtanh": nn.Hardtanh(),
    "whole numbers": lambda x: x + torch.tensor([-1, 1, 2, 3]).clamp(min=0),
}
X = torch.tensor([-2.0, 1.0, 3.0, 8.0])
G = torch.tensor([5.0, -4.0, 3.0, 2.0])


def through(function: Callable[[Tensor], Tensor], mode: Rectified) -> tuple[Tensor, Tensor]:
    """Return the output, and the gradient that comes back from G."""
    x = X.clone().requires_grad_()
    with mode:
        y = function(x * 1)
    return y.detach(), torch.autograd.grad(y, x, G)[0]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_guided(spelling: str) -> None:
    mode = Rectified("guided")
    y, gx = through(SPELLINGS[spelling], mode)
    assert y.tolist() == [0, 1, 3, 8]
    assert gx.tolist() == [0, 0, 3, 2]
    assert mode.rewritten == 1


@pytest.mark.parametrize("spelling", SIXES)
def test_relu6_saturates_too(spelling: str) -> None:
    mode = Rectified("guided")
    y, gx = through(SIXES[spelling], mode)
    assert y.tolist() == [0, 1, 3, 6]
    assert gx.tolist() == [0, 0, 3, 0]
    assert mode.rewritten == 1
    assert not mode.others


@pytest.mark.parametrize("spelling", NO_RELU)
def test_what_is_no_relu_is_left_alone(spelling: str) -> None:
    mode = Rectified("guided")
    found = through(NO_RELU[spelling], mode)
    assert mode.rewritten == 0
    x = X.clone().requires_grad_()
    y = NO_RELU[spelling](x * 1)
    assert torch.equal(found[0], y.detach())
    assert torch.equal(found[1], torch.autograd.grad(y, x, G)[0])


def test_the_deconv_rule_looks_at_the_gradient_alone() -> None:
    assert through(F.relu, Rectified("deconv"))[1].tolist() == [5, 0, 3, 2]


def test_other_activations_are_named() -> None:
    mode = Rectified("guided")
    through(lambda x: F.silu(x) + x.sigmoid() + torch.tanh(x) + F.gelu(x) + F.leaky_relu(x), mode)
    assert dict(mode.others) == dict.fromkeys(("silu", "sigmoid", "tanh", "gelu", "leaky_relu"), 1)


def test_indices_of_a_pooling_still_come() -> None:
    x = torch.rand(1, 1, 4, 4)
    with Rectified("plain"):
        y, where = nn.MaxPool2d(2, return_indices=True)(x)
        assert torch.equal(F.max_pool2d(x, 2, return_indices=False), y)
    assert torch.equal(x.flatten()[where], y)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_nothing_changes_under_the_plain_rule(data: st.DataObject) -> None:
    """On random programs, with writes in place through views, the gradient is autograd's own."""
    model = data.draw(programs((9, 7))).double().eval().requires_grad_(False)
    images = torch.rand(2, 3, 9, 7, dtype=torch.float64).requires_grad_()

    try:
        expected = model(images)
        (gradient,) = torch.autograd.grad(expected.sum(), images)
    except RuntimeError:  # autograd has no answer: it writes over what is kept, or is constant
        reject()
    with Rectified("plain"):
        logits = model(images)
    assert torch.equal(logits, expected)
    (found,) = torch.autograd.grad(logits.sum(), images)
    # Windows of a pooling may overlap; their gradients add up in another order.
    assert torch.allclose(found, gradient, rtol=1e-12, atol=1e-14)
