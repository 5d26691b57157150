"""What a network does, as the few kinds of operation that differences are carried through.

`trace` turns a network into a list of these. Each knows how to run in full, as the network runs
it, on the values of its inputs; how a local difference passes through it is in `rules`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Slide(NamedTuple):
    """How a kernel slides along one axis, in elements."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def reach(self) -> int:
        """Elements from the first to the last that one output reads."""
        return (self.kernel - 1) * self.dilation + 1


@dataclass(frozen=True, eq=False)
class Op:
    """One operation of a network.

    Attributes:
        name: unique in the network.
        inputs: the operations whose results it reads, in the order `full` takes them, each once.
        shape: of one image's result.
        full: the inputs' values, (N, *shape) each, to its own.
    """

    name: str
    inputs: tuple["Op", ...]
    shape: tuple[int, ...]
    full: Callable[..., Tensor]

    @property
    def channels(self) -> int:
        """C of (C, H, W); of a vector all its elements."""
        return self.shape[0]

    @property
    def grid(self) -> tuple[int, int]:
        """H and W; (1, 1) of a vector."""
        return (self.shape[1], self.shape[2]) if len(self.shape) == 3 else (1, 1)


class Input(Op):
    """The images."""


class Other(Op):
    """An operation without a rule, or one behind such: it runs in full."""


@dataclass(frozen=True, eq=False)
class Reshape(Op):
    """The same elements of the same channels: (C, 1, 1) as (C,), another dtype, nothing at all."""

    dtype: torch.dtype | None


@dataclass(frozen=True, eq=False)
class Scale(Op):
    """y = x scale + shift by channel, of which a difference keeps the scale; None is 1."""

    scale: Tensor | None


@dataclass(frozen=True, eq=False)
class Sliding(Op):
    """What slides over the image: its slides down and across."""

    slides: tuple[Slide, Slide]


@dataclass(frozen=True, eq=False)
class Conv(Sliding):
    """A convolution; the weight is (C', C / groups, kernel, kernel)."""

    weight: Tensor
    groups: int

    @property
    def stays_in_place(self) -> bool:
        """Whether pixel (y, x) depends on pixel (y, x) alone."""
        return all(slide[:3] == (1, 1, 0) for slide in self.slides)


class MaxPool(Sliding):
    """The maximum under the kernel, minus infinity outside the image."""


@dataclass(frozen=True, eq=False)
class AvgPool(Sliding):
    """The sum under the kernel over a divisor, (H', W'), that depends on the place alone."""

    divisor: Tensor


class AdaptiveAvgPool(Op):
    """Averages under kernels that differ from place to place."""


class Mean(Op):
    """The average of each channel over the image."""


@dataclass(frozen=True, eq=False)
class Pointwise(Op):
    """A function of each element: `function` maps (N, C, ...) to the same shape."""

    function: Callable[[Tensor], Tensor]


class Relu(Pointwise):
    """max(x, 0)."""


@dataclass(frozen=True, eq=False)
class Add(Op):
    """x + alpha y, of one shape."""

    alpha: float


class Binary(Op):
    """Any other function of the elements of two results, one of which may be (C, 1, 1)."""


class Cat(Op):
    """Channels behind channels."""


@dataclass(frozen=True, eq=False)
class Channels(Op):
    """Some channels, or all of them in another order: a slice, or (C,) of int64."""

    index: Any


@dataclass(frozen=True, eq=False)
class Pad(Op):
    """Constant lines around the image: before the first row and before the first column."""

    top: int
    left: int


class Flatten(Op):
    """(C, H, W) as a vector."""


@dataclass(frozen=True, eq=False)
class Linear(Op):
    """A linear layer over all of a map or a vector: the weight is (D', C, H, W)."""

    weight: Tensor


@dataclass(frozen=True)
class Graph:
    """A network's operations in an order in which they can run.

    Attributes:
        ops: the input first; all of them lead to the output.
        output: the logits, (D,).
        unknown: names of the functions without a rule.
        paths: of the module that calls each operation, by the operation's name, where known.
    """

    ops: tuple[Op, ...]
    output: Op
    unknown: tuple[str, ...]
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def input(self) -> Input:
        """The images."""
        (found,) = (op for op in self.ops if isinstance(op, Input))
        return found

    def values(self, images: Tensor) -> Iterator[tuple[Op, Tensor]]:
        """Run on images, (N, 3, H, W): yield each operation and its value, the output last.

        A value is forgotten once all that read it have run.
        """
        readers = Counter[Op](source for op in self.ops for source in set(op.inputs))
        values: dict[Op, Tensor] = {}
        for op in self.ops:
            sources = tuple(dict.fromkeys(op.inputs))
            values[op] = op.full(*(values[source] for source in sources)) if sources else images
            yield op, values[op]
            readers.subtract(sources)
            for source in sources:
                if not readers[source]:
                    del values[source]
