"""The undisturbed images' activations, as far as differences need them."""

import torch
from torch import Tensor

from fc7.engine.attribution.occlusion.incremental.plan import Plan
from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.ops import Op


class Base:
    """What each operation returns for N images, (N, H, W, C); a vector has H = W = 1.

    Args:
        plan: what will be asked for; any other plan of the same network asks for the same.
        images: (N, 3, H, W), as the network takes them.

    Attributes:
        images: N.
        output: (N, classes), the logits.
    """

    def __init__(self, plan: Plan, images: Tensor) -> None:
        graph, kept = plan.graph, _needed(plan)
        self.images = len(images)
        self._maps: dict[Op, Tensor] = {}
        self._bounds: dict[Op, tuple[Tensor, Tensor]] = {}
        for op, value in graph.values(images):
            if op in kept and (len(op.shape) == 3 or value.numel() == self.images * op.shape[0]):
                self._maps[op] = _channels_last(value, op)
            self.output = value

    def map(self, op: Op) -> Tensor:
        """Return what an operation returned, (N, H, W, C), contiguous."""
        return self._maps[op]

    def relu_bounds(self, op: Op) -> tuple[Tensor, Tensor]:
        """Return `relu_bounds_in` of all rows, made once: they take twice what the map takes."""
        if op not in self._bounds:
            self._bounds[op] = self.relu_bounds_in(op, (0, op.grid[0]))
        return self._bounds[op]

    def relu_bounds_in(self, op: Op, rows: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return min(x, 0) and -max(x, 0) of an operation's result, (N, rows, W, C) each.

        A difference d in front of a ReLU becomes max(x + d, 0) - max(x, 0), which is
        max(d + min(x, 0), -max(x, 0)): where the unit is and stays active, d itself, exactly.

        Args:
            op: the operation in front of the ReLU.
            rows: the first row and the one behind the last.
        """
        values = self._maps[op][:, slice(*rows)]
        return values.clamp_max(0), values.clamp_min(0).neg_()


def _needed(plan: Plan) -> set[Op]:
    """Return the operations whose undisturbed results are needed."""
    kept: set[Op] = {plan.graph.input}
    for op in plan.graph.ops:
        if op in plan.in_full:
            kept |= {source for source in op.inputs if source not in plan.in_full}
        elif isinstance(op, o.Relu):
            kept |= set(op.inputs)
        elif isinstance(op, o.MaxPool | o.Pointwise | o.Binary):
            kept |= {op, *op.inputs}
    return kept


def _channels_last(value: Tensor, op: Op) -> Tensor:
    maps = value.reshape(len(value), op.channels, *op.grid)
    return torch.einsum("nchw->nhwc", maps).contiguous()
