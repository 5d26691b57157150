"""Ascents one after another: each stage begins with the images of the one before.

    tasks -> queue of stage 1 -> images -> queue of stage 2 -> ... -> images

A row goes on as soon as it is finished, and in each stage it is computed as if alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.synthesis.classes import seed_of
from fc7.engine.synthesis.objectives import Objective
from fc7.engine.synthesis.queue import AscentQueue, Made, Task
from fc7.engine.synthesis.recipe import Recipe


class Stages:
    """Ascends objectives of one form by several recipes in turn.

    Args:
        network: the network.
        form: an objective like all that will come.
        recipes: of the stages, at least one.
        batch: slots of each stage.
        size: height and width of the images in pixels; the network's own if None.

    Attributes:
        together: how many images go through the network at once.
        steps: the most that a row takes, over all stages.

    Raises:
        LayerError: there is no such layer.
        OptionError: or no such unit; or no stage; or the batch has no slot.
    """

    def __init__(
        self,
        network: Network,
        form: Objective,
        recipes: Sequence[Recipe],
        batch: int = 16,
        size: tuple[int, int] | None = None,
    ) -> None:
        if not recipes:
            raise OptionError("no stage; give one recipe at least")
        self._queues = [AscentQueue(network, form, recipe, batch, size) for recipe in recipes]
        self.together = self._queues[0].together
        self.steps = sum(recipe.steps for recipe in recipes)

    def __call__(self, tasks: Iterable[Task]) -> Iterator[list[Made]]:
        """Yield images that have been through all stages; their curves are of all steps.

        A row's status is that of its last stage. Errors are those of `AscentQueue`.
        """
        known: dict[int, Task] = {}
        curves: dict[int, list[Tensor]] = {}
        made = self._queues[0](_noted(tasks, known))
        for stage, queue in enumerate(self._queues[1:], 1):
            made = queue(_onward(made, known, curves, stage))
        for group in made:
            for one in group:
                del known[one.row]
            yield [_whole(one, curves.pop(one.row, [])) for one in group]


def _noted(tasks: Iterable[Task], known: dict[int, Task]) -> Iterator[Task]:
    for task in tasks:
        known[task.row] = task
        yield task


def _onward(
    made: Iterable[list[Made]], known: dict[int, Task], curves: dict[int, list[Tensor]], stage: int
) -> Iterator[Task]:
    """Yield the tasks of a stage, with random numbers of their own."""
    for group in made:
        for one in group:
            curves.setdefault(one.row, []).append(one.curve)
            task = known[one.row]
            yield replace(task, seed=seed_of(task.seed, None, 0, stage), start=one.image)


def _whole(made: Made, curves: list[Tensor]) -> Made:
    return replace(made, curve=torch.cat([*curves, made.curve]))
