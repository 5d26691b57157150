"""How latents go down: many rows at once, each by itself, for at most so many evaluations."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fc7.engine.synthesis.adam import Adam
from fc7.engine.synthesis.lbfgs import LbfgsOptions, ValueAndGradient, Watch, minimise


@dataclass(frozen=True)
class Descended:
    """Where a descent ends.

    Attributes:
        latents: (N, ...), the best of each row.
        losses: (N,), there.
        evaluations: (N,) int64.
        curve: (E, N), the best loss of each row after each evaluation, E at most what was asked.
    """

    latents: Tensor
    losses: Tensor
    evaluations: Tensor
    curve: Tensor


Descend = Callable[[ValueAndGradient, Tensor, int], Descended]
"""From a function, latents to start from and a count of evaluations to where it ends."""


def by_lbfgs(function: ValueAndGradient, start: Tensor, evaluations: int) -> Descended:
    """Descend by L-BFGS, each row with its own curvature; see `fc7.engine.synthesis.lbfgs`."""
    found = minimise(function, start, LbfgsOptions(evaluations))
    return Descended(found.x, found.losses, found.evaluations, found.curve)


def by_adam(
    function: ValueAndGradient,
    start: Tensor,
    evaluations: int,
    rate: float = 0.05,
    watch: Watch | None = None,
) -> Descended:
    """Descend by Adam, with steps that shorten from `rate` to nothing along half a cosine."""
    latents = start.clone()
    best, losses = start.clone(), start.new_full((len(start),), torch.inf)
    state, curve = Adam().state(latents), []
    for step in range(evaluations):
        values, gradients = function(latents)
        better = values < losses  # False of NaN
        losses = torch.where(better, values, losses)
        best = torch.where(better.reshape(-1, *(1,) * (start.ndim - 1)), latents, best)
        curve.append(losses)
        shortened = rate * (1 + math.cos(math.pi * step / evaluations)) / 2
        taken = np.full(len(start), step, np.int64)
        Adam(shortened).step(latents, -gradients, state, taken)
        if watch is not None:
            watch(better)
    counts = torch.full((len(start),), evaluations, dtype=torch.int64, device=start.device)
    return Descended(best, losses, counts, torch.stack(curve))
