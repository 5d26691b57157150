"""How differences pass through each operation.

A difference d in an input x of f becomes f(x + d) - f(x). For all that is linear that is f(d)
without its constant terms, so that nothing but d is needed: zero outside the windows is zero
padding. Elsewhere x is looked up in the undisturbed activations.

A rule is made once for an operation and a layout, and run for every band.
"""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from fc7.engine.attribution.occlusion.incremental import elementwise, sliding
from fc7.engine.attribution.occlusion.incremental.calls import Call, Rule, result, spreads
from fc7.engine.attribution.occlusion.incremental.layout import Layout
from fc7.engine.attribution.occlusion.incremental.windows import (
    Windows,
    as_block,
    as_maps,
)
from fc7.engine.attribution.tracing import ops as o
from fc7.engine.attribution.tracing.ops import Op
from fc7.kernels import linear


def rule_for(op: Op, layout: Layout, sources: Sequence[Layout]) -> Rule:
    """Return the rule of an operation.

    Args:
        op: the operation.
        layout: of its windows.
        sources: of its inputs' windows.
    """
    for kind, make in _RULES.items():
        if isinstance(op, kind):
            return make(op, layout, sources)
    raise AssertionError(f"no rule for {type(op).__name__}")


def _adaptive_avg_pool(op: Op, layout: Layout, sources: Sequence[Layout]) -> Rule:
    dense = spreads(op.inputs[0], sources[0])

    def run(call: Call) -> Windows:
        maps = functional.adaptive_avg_pool2d(as_maps(dense(call.inputs[0])), op.grid)
        every = as_block(maps, call.base.images)[:, :, call.rows[0] : call.rows[1]]
        blocks = [
            torch.stack(
                [every[:, m, :, s : s + width] for m, s in zip(members, starts, strict=True)], 1
            )
            for width, members, starts in layout.groups
        ]
        return result(call, layout, blocks)

    return run


def _mean(op: Op, layout: Layout, sources: Sequence[Layout]) -> Rule:
    height, width = op.inputs[0].grid

    def run(call: Call) -> Windows:
        (source,) = call.inputs
        like = source.blocks[0]
        out = like.new_empty((len(like), layout.positions, 1, 1, like.shape[4]))
        for group, block in zip(source.layout.groups, source.blocks, strict=True):
            out[:, group.members, 0, 0] = block.sum((2, 3)) / (height * width)
        return result(call, layout, [out])

    return run


def _flatten(op: Op, layout: Layout, sources: Sequence[Layout]) -> Rule:
    dense = spreads(op.inputs[0], sources[0])

    def run(call: Call) -> Windows:
        flat = dense(call.inputs[0]).permute(0, 1, 4, 2, 3).flatten(2)
        return result(call, layout, [flat[:, :, None, None]])

    return run


def _linear(op: o.Linear, layout: Layout, sources: Sequence[Layout]) -> Rule:
    dense = spreads(op.inputs[0], sources[0])
    weight = op.weight.flatten(1)

    def run(call: Call) -> Windows:
        maps = dense(call.inputs[0]).permute(0, 1, 4, 2, 3)
        out = linear(maps.flatten(2), weight)
        return result(call, layout, [out[:, :, None, None]])

    return run


_RULES: dict[type[Op], Callable[..., Rule]] = {
    o.Conv: sliding.conv,
    o.MaxPool: sliding.max_pool,
    o.AvgPool: sliding.avg_pool,
    o.AdaptiveAvgPool: _adaptive_avg_pool,
    o.Mean: _mean,
    o.Relu: elementwise.relu,
    o.Pointwise: elementwise.pointwise,
    o.Scale: elementwise.scale,
    o.Reshape: elementwise.reshape,
    o.Add: elementwise.add,
    o.Binary: elementwise.binary,
    o.Cat: elementwise.cat,
    o.Channels: elementwise.channels,
    o.Pad: elementwise.pad,
    o.Flatten: _flatten,
    o.Linear: _linear,
}
