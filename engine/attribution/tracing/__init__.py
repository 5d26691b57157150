"""A network as a list of operations, however it was written.

`trace` runs the network's Python once, by torch.export, and turns the functions of ATen that it
finds into the few kinds of operation of `ops`.
"""

from fc7.engine.attribution.tracing.ops import Graph, Op
from fc7.engine.attribution.tracing.trace import trace

__all__ = ["Graph", "Op", "trace"]
