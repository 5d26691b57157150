"""Covers images at every place of a grid, and says by how much a score falls."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fc7.engine.attribution.occlusion.incremental import Base, Choice, Plan, Spans, fastest
from fc7.engine.attribution.question import Question
from fc7.engine.attribution.tracing import Graph


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
