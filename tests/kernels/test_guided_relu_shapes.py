"""guided_relu on any shape, strides, values and gradient that hypothesis finds."""

import pytest

pytest.importorskip("hypothesis")

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fc7.kernels.guided_relu import Rule, guided_relu, guided_relu_reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
RULES: list[Rule] = ["guided", "plain", "deconv"]


@st.composite
def views(draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of this shape whose axes lie in any order, with any steps and repeats."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.integers(1, 2)) for _ in shape]
    repeats = [draw(st.integers(0, 9)) == 0 for _ in shape]
    whole = [1 if r else n * k for n, k, r in zip(shape, steps, repeats, strict=True)]
    seed = draw(st.integers(0, 2**16))
    values = np.random.default_rng(seed).choice(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 6e-8, -2.5], size=[whole[i] for i in order]
    )
    view = torch.from_numpy(values).to(dtype).permute([order.index(i) for i in range(len(shape))])
    for axis, step in enumerate(steps):
        view = view.movedim(axis, 0)[::step].movedim(0, axis)
    return view.expand(shape)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_is_the_definition(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 6), max_size=4)))
    dtype, rule = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(RULES))
    x, g = data.draw(views(shape, dtype)), data.draw(views(shape, dtype))
    expected = guided_relu_reference(x.double().numpy(), g.double().numpy(), rule)

    x = x.requires_grad_()
    y = guided_relu(x, rule)
    (gx,) = torch.autograd.grad(y, x, g)

    assert y.shape == gx.shape == x.shape
    assert y.stride() == gx.stride() == torch.empty_like(x).stride()
    for actual, wanted in zip((y.detach(), gx), expected, strict=True):
        values, numbers = actual.double().numpy(), ~np.isnan(wanted)
        np.testing.assert_array_equal(values, wanted)
        np.testing.assert_array_equal(np.signbit(values)[numbers], np.signbit(wanted)[numbers])
