"""Builders of what is done to each element."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.building import Arguments, Made, common, op_of, require
from fc7.engine.attribution.tracing.ops import Op


def pointwise(made: Made, a: Arguments) -> Op:
    """Build a function of each element."""
    _, value = next(iter(a.items()))
    op_of(value)
    name, inputs, shape, full = common(made)
    require(len(inputs) == 1 and shape == inputs[0].shape)
    if made.function != "prelu":  # whose weight, (C,), is one number a channel by definition
        for other in list(a.values())[1:]:
            if isinstance(other, Tensor):
                _by_channel(other, shape)
    return o.Pointwise(name, inputs, shape, full, full)


def relu(made: Made, a: Arguments) -> Op:
    """Build max(x, 0)."""
    op_of(a["self"])
    name, inputs, shape, full = common(made)
    return o.Relu(name, inputs, shape, full, full)


def _by_channel(value: Any, shape: Sequence[int]) -> Tensor:
    """Return a constant as one number, or one a channel: what it is anywhere on the map."""
    if not isinstance(value, Tensor):
        return torch.tensor(float(value), dtype=torch.float64)
    if value.numel() == 1:
        return value.detach().reshape(())
    full = [1] * (len(shape) + 1 - value.ndim) + list(value.shape)
    require(full == [1, shape[0], *[1] * (len(shape) - 1)])
    return value.detach().reshape(-1)


def arithmetic(made: Made, a: Arguments) -> Op:
    """Build a sum, a difference, a product or a quotient."""
    left, right, alpha = a["self"], a["other"], float(a.get("alpha", 1))
    name, inputs, shape, full = common(made)
    if isinstance(left, Op) and isinstance(right, Op):
        same = op_of(left).shape == op_of(right).shape and left is not right
        if same and made.function in ("add", "sub"):
            return o.Add(name, inputs, shape, full, alpha if made.function == "add" else -alpha)
        require(all(op.shape in (shape, (shape[0], 1, 1)) for op in inputs))
        return o.Binary(name, inputs, shape, full)
    source, constant = (left, right) if isinstance(left, Op) else (right, left)
    require(op_of(source).shape == shape and a.get("rounding_mode") is None)
    require(isinstance(constant, Tensor | int | float))
    factor = _by_channel(constant, shape)
    if made.function == "div":
        require(source is left)
        return o.Scale(name, inputs, shape, full, 1 / factor)
    if made.function == "mul":
        return o.Scale(name, inputs, shape, full, factor)
    # left + alpha right, left - alpha right, right - alpha left: what stands before the source.
    signs = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[made.function]
    sign = float(signs[0] if source is left else signs[1])
    return o.Scale(name, inputs, shape, full, None if sign == 1 else torch.tensor(sign))


def same(made: Made, a: Arguments) -> Op:
    """The same elements: a copy, a cast, dropout where it drops nothing."""
    source = op_of(next(iter(a.values())))
    require(not a.get("train", False) and not a.get("training", False))
    require(made.shape == source.shape)
    if made.new_dtype is None:
        return source
    require(made.new_dtype.is_floating_point)  # others round, which no difference survives
    return o.Reshape(*common(made), made.new_dtype)
