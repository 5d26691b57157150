"""Pictures that come down to their targets: many at once, each by itself.

    min over z of  judge(x(z)) + v V(x(z)),    V(x) = sum (dx^2 + dy^2) / (H W)

x comes from z through a parametrisation. By default it is a sigmoid, which keeps pixels in [0, 1]
without a clamp: that would break the curvature that L-BFGS learns.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.style.perceptual import Judge, Judgement, Targets
from fc7.engine.synthesis.descent import Descended, by_adam
from fc7.engine.synthesis.lbfgs import LbfgsOptions, LbfgsResult, minimise
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
    problem = _Problem(judge, targets, options.variation, way or SigmoidPixels(), report)
    latents, count = problem.way.latent(start), options.evaluations
    ended: Descended | LbfgsResult
    if options.optimiser == "adam":
        ended = by_adam(problem, latents, count, options.rate, problem.note)
        best = ended.latents
    else:
        # Of many pixels each one's gradient is small long before the picture is done.
        how = LbfgsOptions(count, options.pairs, 0.0, 0.0)
        ended = minimise(problem, latents, how, problem.note)
        best = ended.x
    curves = {term: torch.stack(rows, 1) for term, rows in problem.curves.items()}
    images = problem.way.images(best).detach()
    return Pictures(images, ended.losses, curves, ended.evaluations)


def after(report: Callable[[int], None] | None, done: int) -> Callable[[int], None] | None:
    """Return a report of evaluations that come after so many."""
    return None if report is None else lambda more: report(done + more)


def over_all(curves: Tensor, evaluations: int) -> Tensor:
    """Return curves (..., E) over all evaluations: where a search ended sooner, it stays."""
    rest = curves[..., -1:].expand(*curves.shape[:-1], evaluations - curves.shape[-1])
    return torch.cat([curves, rest], -1)


@dataclass
class _Problem:
    judge: Judge
    targets: Targets
    variation: float
    way: Parametrisation
    report: Callable[[int], None] | None
    losses: dict[str, Tensor] = field(default_factory=dict)
    curves: dict[str, list[Tensor]] = field(default_factory=dict)

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

    def note(self, better: Tensor) -> None:
        """Keep the terms of each row's best picture after an evaluation."""
        for term, values in self.losses.items():
            curve = self.curves.setdefault(term, [])
            curve.append(torch.where(better, values, curve[-1]) if curve else values)
        if self.report is not None:
            self.report(len(self.curves[VARIATION]))


_VARIATION = TotalVariation(2.0)
