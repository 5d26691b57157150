"""Pictures that come down to their targets: many at once, each by itself.

    min over z of  judge(x(z)) + v V(x(z)),    V(x) = sum (dx^2 + dy^2) / (H W)

x comes from z through a parametrisation. By default it is a sigmoid, which keeps pixels in [0, 1]
without a clamp: that would break the curvature that L-BFGS learns.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.style.perceptual import Judge, Judgement, Targets
from fc7.engine.synthesis.adam import Adam
from fc7.engine.synthesis.lbfgs import BatchedLbfgs, LbfgsOptions
from fc7.engine.synthesis.parametrisation import Parametrisation, SigmoidPixels
from fc7.engine.synthesis.penalties import TotalVariation

OPTIMISERS = ("lbfgs", "adam")
VARIATION = "variation"
"""The term of neighbours' differences."""


@dataclass(frozen=True)
class DescentOptions:
    """How pictures come down.

    Attributes:
        evaluations: passes through the network and back, of each picture.
        optimiser: "lbfgs" or "adam".
        variation: v, the weight of the squared differences between neighbours.
        rate: of Adam's first step, in latents; steps shorten to nothing along half a cosine.
        pairs: that L-BFGS remembers; each takes two pictures' memory.
    """

    evaluations: int = 300
    optimiser: str = "lbfgs"
    variation: float = 1e-3
    rate: float = 0.05
    pairs: int = 10

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        if self.evaluations < 1 or self.pairs < 1:
            raise OptionError(
                f"evaluations is {self.evaluations} and pairs {self.pairs}; each is 1 or more"
            )
        if self.optimiser not in OPTIMISERS:
            raise OptionError(f"no optimiser {self.optimiser!r}; there are {', '.join(OPTIMISERS)}")
        if not 0 <= self.variation < math.inf or not 0 < self.rate < math.inf:
            raise OptionError(
                f"variation is {self.variation} and rate {self.rate}; variation is 0 or more, "
                "rate above 0"
            )


@dataclass(frozen=True)
class Pictures:
    """Where N pictures end.

    Attributes:
        images: (N, 3, H, W) float32, the best of each row.
        totals: (N,) float32, there, variation included.
        curves: by term, and "variation", each without its weight: (N, E) float32, at the best
            picture after each evaluation, E at most what was asked.
        evaluations: (N,) int64, until the row stopped.
    """

    images: Tensor
    totals: Tensor
    curves: Mapping[str, Tensor]
    evaluations: Tensor


def descend(
    judge: Judge,
    targets: Targets,
    start: Tensor,
    options: DescentOptions | None = None,
    way: Parametrisation | None = None,
    report: Callable[[int], None] | None = None,
) -> Pictures:
    """Bring pictures down to their targets.

    Args:
        judge: says how far they are.
        targets: of N rows.
        start: (N, 3, H, W), float in [0, 1].
        options: how.
        way: from latents to pictures; a sigmoid if None.
        report: called with the evaluations so far, after each.

    Raises:
        OptionError: an option is out of range.
        QuestionError: nothing flows back to the pixels.
    """
    options = options or DescentOptions()
    options.check()
    problem = _Problem(judge, targets, options.variation, way or SigmoidPixels())
    return (_by_adam if options.optimiser == "adam" else _by_lbfgs)(
        problem, start, options, report or (lambda done: None)
    )


@dataclass
class _Problem:
    judge: Judge
    targets: Targets
    variation: float
    way: Parametrisation
    losses: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return values, (N,), and gradients by latents; remember the terms."""
        with torch.inference_mode(False), torch.enable_grad():
            latents = latents.detach().clone().requires_grad_()
            images = self.way.images(latents)
            found: Judgement = self.judge(images.detach(), self.targets)
            variation = _VARIATION(images) / math.prod(images.shape[2:])
            through = (images * found.gradients).flatten(1).sum(1) + self.variation * variation
            (gradient,) = torch.autograd.grad(through.sum(), latents)
        variation = variation.detach()
        self.losses = {**found.losses, VARIATION: variation}
        return found.total + self.variation * variation, gradient


_VARIATION = TotalVariation(2.0)


class _Curves:
    """The terms of each row's best picture, evaluation by evaluation."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Tensor]] = {}

    def add(self, better: Tensor, losses: Mapping[str, Tensor]) -> None:
        for term, values in losses.items():
            curve = self._rows.setdefault(term, [])
            curve.append(torch.where(better, values, curve[-1]) if curve else values)

    def done(self) -> dict[str, Tensor]:
        return {term: torch.stack(rows, 1) for term, rows in self._rows.items()}


def _by_lbfgs(
    problem: _Problem, start: Tensor, options: DescentOptions, report: Callable[[int], None]
) -> Pictures:
    # Of many pixels each one's gradient is small long before the picture is done.
    how = LbfgsOptions(options.evaluations, options.pairs, 0.0, 0.0)
    search, curves = BatchedLbfgs(problem.way.latent(start), how), _Curves()
    done = 0
    while bool(search.running.any()):
        before = search.losses
        search.step(*problem(search.trial))
        curves.add(search.losses < before, problem.losses)
        report(done := done + 1)
    images = problem.way.images(search.x).detach()
    return Pictures(images, search.losses, curves.done(), search.evaluations)


def _by_adam(
    problem: _Problem, start: Tensor, options: DescentOptions, report: Callable[[int], None]
) -> Pictures:
    latents = problem.way.latent(start)
    best, losses = latents.clone(), latents.new_full((len(start),), math.inf)
    state, curves, total = Adam().state(latents), _Curves(), options.evaluations
    for step in range(total):
        values, gradients = problem(latents)
        better = values < losses  # False of NaN
        losses = torch.where(better, values, losses)
        best = torch.where(better[:, None, None, None], latents, best)
        curves.add(better, problem.losses)
        rate = options.rate * (1 + math.cos(math.pi * step / total)) / 2
        Adam(rate).step(latents, -gradients, state, np.full(len(start), step, np.int64))
        report(step + 1)
    counts = torch.full((len(start),), total, dtype=torch.int64, device=start.device)
    return Pictures(problem.way.images(best).detach(), losses, curves.done(), counts)
