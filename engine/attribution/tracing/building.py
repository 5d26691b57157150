"""What builders have in common: what they are given, and how they say no."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.ops import Op

Arguments = Mapping[str, Any]
"""A call's arguments by name."""


class UnknownCallError(Exception):
    """A call that the operation does not serve."""


class Made(Protocol):
    """What an operation is made with: see `trace`."""

    name: str
    function: str
    shape: tuple[int, ...] | None
    new_dtype: torch.dtype | None

    def reads(self, number: int) -> bool:
        """Say whether anything reads that one of several results."""

    def full(self) -> tuple[Callable[..., Tensor], tuple[Op, ...]]:
        """Return the call itself, as a function of the values of the inputs, and those."""

    def as_op(self) -> Op:
        """Return the call as an operation without a rule."""


class Part:
    """A result between two functions that are one operation together, such as a channel shuffle.

    Args:
        op: what it was made from.
        as_op: makes an operation of it after all, where the other function does not follow.
    """

    def __init__(self, op: Op, as_op: Callable[[], Op]) -> None:
        self.op, self._make = op, as_op
        self._made: Op | None = None

    def as_op(self) -> Op:
        """Return this result as an operation without a rule."""
        if self._made is None:
            self._made = self._make()
        return self._made


class Selected(Part):
    """One channel without its axis, (N, H, W)."""

    index: int


class Grouped(Part):
    """Channels in groups, (N, g, C / g, H, W), or the other way round."""

    groups: int
    turned: bool


@dataclass(frozen=True)
class Builder:
    """A builder, and whether it knows what to do with a `Part`."""

    build: Callable[[Any, Arguments], Any]
    takes_parts: bool = False


def op_of(value: Any) -> Op:
    """Return an operation that has a rule, on a map or a vector."""
    require(isinstance(value, Op) and not isinstance(value, o.Other))
    require(len(value.shape) == 3 or value.shape[0] == math.prod(value.shape))
    assert isinstance(value, Op)
    return value


def map_of(value: Any) -> Op:
    """Return an operation that has a rule, on a map."""
    require(len(op_of(value).shape) == 3)
    return op_of(value)


def require(condition: bool) -> None:
    """Raise UnknownCallError unless a condition holds."""
    if not condition:
        raise UnknownCallError


def common(made: Made) -> tuple[str, tuple[Op, ...], tuple[int, ...], Callable[..., Tensor]]:
    """Return name, inputs, shape and call of an operation that is the call as it stands."""
    full, inputs = made.full()
    require(made.shape is not None)
    assert made.shape is not None
    return made.name, inputs, made.shape, full


def pair(value: Any) -> tuple[int, int]:
    """Return what is given for both axes, or for each."""
    numbers = [value, value] if isinstance(value, int) else list(value)
    return (numbers * 2)[0], (numbers * 2)[1]
