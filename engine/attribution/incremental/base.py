"""The undisturbed images' activations, as far as differences need them."""

from collections import Counter
from collections.abc import Collection

import torch
from torch import Tensor

from fc7.engine.attribution.tracing.ops import Graph, Op


class Base:
    """What each operation returns for N images, (N, H, W, C); a vector has H = W = 1.

    Args:
        graph: the network.
        images: (N, 3, H, W), as the network takes them.
        kept: the operations whose results are asked for later.
        bounds: the operations in front of a ReLU; see `relu_bounds`.
    """

    def __init__(
        self, graph: Graph, images: Tensor, kept: Collection[Op], bounds: Collection[Op]
    ) -> None:
        self.images = len(images)
        self._maps: dict[Op, Tensor] = {}
        self._values: dict[Op, Tensor] = {}
        self._bounds: dict[Op, tuple[Tensor, Tensor]] = {}
        readers = Counter(source for op in graph.ops for source in dict.fromkeys(op.inputs))
        values: dict[Op, Tensor] = {graph.input: images}
        for op in graph.ops:
            sources = tuple(dict.fromkeys(op.inputs))
            if sources:
                values[op] = op.full(*(values[source] for source in sources))
            if op in kept:
                self._values[op] = values[op]
                if len(op.shape) == 3 or values[op].numel() == self.images * op.shape[0]:
                    self._maps[op] = _channels_last(values[op], op)
            if op in bounds:
                before = _channels_last(values[op], op)
                self._bounds[op] = before.clamp_max(0), before.clamp_min(0).neg_()
            readers.subtract(sources)
            for source in sources:
                if not readers[source]:
                    del values[source]
        self.output = values[graph.output]

    def map(self, op: Op) -> Tensor:
        """Return what an operation returned, (N, H, W, C), contiguous."""
        return self._maps[op]

    def value(self, op: Op) -> Tensor:
        """Return what an operation returned, (N, *shape), as the network has it."""
        return self._values[op]

    def relu_bounds(self, op: Op) -> tuple[Tensor, Tensor]:
        """Return min(x, 0) and -max(x, 0) of what an operation returned, (N, H, W, C) each.

        A difference d in front of a ReLU becomes max(x + d, 0) - max(x, 0), which is
        max(d + min(x, 0), -max(x, 0)): where the unit is and stays active, d itself, exactly.
        """
        return self._bounds[op]


def _channels_last(value: Tensor, op: Op) -> Tensor:
    maps = value.reshape(len(value), op.channels, *op.grid)
    return torch.einsum("nchw->nhwc", maps).contiguous()
