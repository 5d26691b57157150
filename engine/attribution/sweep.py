"""Covers images at every place of a grid, and says by how much a score falls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fc7.engine.attribution.incremental import Base, Choice, Plan, Spans, fastest
from fc7.engine.attribution.tracing import Graph
from fc7.engine.errors import OptionError
from fc7.engine.models import Network

Score = Literal["probability", "logit"]


@dataclass(frozen=True)
class Maps:
    """Occlusion maps of N images.

    Attributes:
        drops: (N, rows, columns) float32, by how much the score falls with the window there.
        targets: (N,) int64, the class whose score it is.
        scores: (N,) float32, that score of the whole image.
    """

    drops: Tensor
    targets: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Question:
    """What is asked of a network, wherever the window lies.

    Args:
        network: the network.
        fill: what covers, in [0, 1]: a number, or a colour (r, g, b). None is the network's mean
            colour, which it sees as zero.
        score: "probability", the softmax's, or "logit".

    Raises:
        OptionError: an option is out of range.
    """

    network: Network
    fill: float | Sequence[float] | None
    score: Score

    def __post_init__(self) -> None:
        if self.score not in get_args(Score):
            raise OptionError(f"no score {self.score!r}; there are probability and logit")
        colour = self.colour
        if len(colour) not in (1, 3) or not bool(((colour >= 0) & (colour <= 1)).all()):
            raise OptionError(f"fill is {self.fill}; it must be a number or a colour in [0, 1]")

    @property
    def colour(self) -> Tensor:
        """What covers, (3,) or (1,) float32."""
        numbers = self.network.mean if self.fill is None else self.fill
        return torch.as_tensor(numbers, dtype=torch.float32, device=self.network.device).reshape(-1)

    def scores(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the score of each image's target: (N, ..., classes) to (N, ...)."""
        index = targets.reshape(-1, *[1] * (logits.ndim - 1)).expand(*logits.shape[:-1], 1)
        chosen = logits.gather(-1, index)[..., 0]
        return chosen if self.score == "logit" else (chosen - logits.logsumexp(-1)).exp()


class Sweep:
    """A grid of places; made once, it serves any number of images of one size.

    Args:
        question: what is asked.
        graph: the network's operations.
        rows: the pixels that each row of places covers; none of them empty.
        columns: likewise.
        growth: see `Plan`.

    Attributes:
        plan: what is computed for an image.
    """

    def __init__(
        self, question: Question, graph: Graph, rows: Spans, columns: Spans, growth: float = 1.0
    ) -> None:
        self._question = question
        self.plan = Plan(graph, rows, columns, growth)
        self._choice: Choice | None = None

    def choice(self, base: Base) -> Choice:
        """Return what runs the plan; on a GPU it is measured on the first images."""
        if self._choice is None:
            self._choice = fastest(self.plan, base, self._question.colour.expand(3))
        return self._choice

    def alike(self, rows: Spans, columns: Spans) -> "Sweep":
        """Return one of other places, run by what was chosen for this one."""
        other = Sweep(self._question, self.plan.graph, rows, columns)
        if self._choice is not None:
            executor = type(self._choice.executor)(other.plan)
            other._choice = self._choice._replace(executor=executor)
        return other

    def drops(
        self, base: Base, targets: Tensor, rows: range | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return by how much the score falls at each place, and the score.

        Args:
            base: the images.
            targets: (N,) int64, the class.
            rows: which rows of places; all of them if None.

        Returns:
            (N, rows, columns) and (N,), both float64.
        """
        rows = range(self.plan.bands) if rows is None else rows
        # The difference of two scores that are almost one keeps its digits in float64.
        logits = base.output.double()
        undisturbed = self._question.scores(logits, targets)
        colour = self._question.colour.expand(3)
        found = [
            undisturbed[:, None, None]
            - self._question.scores(logits[:, None, None] + changes, targets)
            for changes in self.choice(base).executor.run(base, colour, rows)
        ]
        return torch.cat(found, 1), undisturbed
