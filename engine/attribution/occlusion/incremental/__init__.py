"""Exact inference on images that differ from one another in a small window.

Covering a few pixels changes a few activations of each layer. A network is a list of operations
(`fc7.engine.attribution.tracing`); a `Plan` says, from geometry alone, what each of them can change
for every place of the window; an executor, the `fastest` one, carries the differences through, and
computes nothing else.

Others recompute the changed part of each layer, with its surroundings as input (Nakandala et al.,
"Krypton", SIGMOD 2019). What is carried here are the differences themselves, as through DeltaCNN
(Parger et al., CVPR 2022): a linear layer then needs no surroundings, a small effect keeps all its
digits, and half-precision arithmetic loses a share of the effect instead of one of the activation.
"""

from fc7.engine.attribution.occlusion.incremental.base import Base
from fc7.engine.attribution.occlusion.incremental.choice import Choice, fastest
from fc7.engine.attribution.occlusion.incremental.plan import Plan
from fc7.engine.attribution.occlusion.incremental.spans import Spans

__all__ = ["Base", "Choice", "Plan", "Spans", "fastest"]
