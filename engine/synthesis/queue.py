"""The ascent queue: tasks stream through one batch of fixed size, each row on its own.

    tasks (row, objective, seed, start) -> slots of a batch -> images, as they are finished

All that a row has (its latent, the optimiser's memory, its steps, its random numbers) is its own,
and a batch always has all of its slots, so that a row's image is the same to the bit at any place
and in any company. A row that is finished leaves its slot to the next.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.passes import images_a_pass
from fc7.engine.synthesis.evaluation import Evaluation, Evaluator
from fc7.engine.synthesis.objectives import Batch, Objective
from fc7.engine.synthesis.randomness import Keys
from fc7.engine.synthesis.recipe import Recipe

Status = Literal["done", "reached", "still", "dead", "diverged"]
"""All steps taken; the score asked for reached; no better for so many steps; out of reach of every
gradient; no longer finite."""

WARM_UP = 16
"""Steps that a target without a gradient may take through ReLUs that are shut."""


@dataclass(frozen=True)
class Task:
    """One image to make.

    Attributes:
        row: its number, by which it is known when it is finished.
        objective: what it ascends.
        seed: of its random numbers.
        start: (3, H, W) in [0, 1]; random if None.
    """

    row: int
    objective: Objective
    seed: int
    start: Tensor | None = None


@dataclass(frozen=True)
class Made:
    """An image that is finished.

    Attributes:
        row: of its task.
        image: (3, H, W) float32 in [0, 1], on the CPU.
        curve: (steps,) float32, what each step's image scored as the network was shown it.
        status: why it ended.
    """

    row: int
    image: Tensor
    curve: Tensor
    status: Status


class AscentQueue:
    """Ascends objectives of one form.

    Args:
        network: the network.
        form: an objective like all that will come, for the layers that it reads.
        recipe: how.
        batch: slots; rounded up so that all go through the network in passes of one size.
        size: height and width of the images in pixels; the network's own if None.

    Attributes:
        batch: how many slots there are.
        together: how many images go through the network at once.
        evaluations: how many images went through the network and back, for tasks.

    Raises:
        LayerError: there is no such layer.
        OptionError: or no such unit; or the batch has no slot.
    """

    def __init__(
        self,
        network: Network,
        form: Objective,
        recipe: Recipe,
        batch: int = 16,
        size: tuple[int, int] | None = None,
    ) -> None:
        if batch < 1:
            raise OptionError(f"a batch of {batch}; write 1 or more")
        form.check(network)
        self._network, self._recipe = network, recipe
        self._size = size or network.input_size
        self.together = images_a_pass(network, batch, self._size)
        self._evaluator = Evaluator(network, form.layers, size=self._size, together=self.together)
        self._redirected = self._evaluator.under("redirected")
        self.batch = -(-batch // self.together) * self.together
        self.evaluations = 0

    def __call__(self, tasks: Iterable[Task]) -> Iterator[list[Made]]:
        """Yield images that are finished after the same step, in no order that is promised.

        Raises:
            OptionError: a start is not finite, or of another size.
            LayerError, OptionError: an objective asks for what the network has not.
        """
        waiting = iter(tasks)
        slots = _Slots(self._network, self._recipe, self.batch, self._size)
        while True:
            for slot in slots.free():
                task = next(waiting, None)
                if task is None:
                    break
                slots.take(slot, task)
            if not any(slots.busy):
                return
            self._step(slots)
            if finished := slots.finished():
                yield [slots.leave(slot) for slot in finished]

    def _step(self, slots: "_Slots") -> None:
        """Take one step with every row."""
        recipe, batch, busy = self._recipe, slots.objectives(), slots.busy
        keys = Keys(slots.seeds, slots.steps)
        with torch.enable_grad():
            latents = slots.latents.detach().requires_grad_()
            images = recipe.parametrisation.images(latents)
            seen = images
            for place, transform in enumerate(recipe.transforms):
                seen = transform(seen, keys.within(place))
        found = self._evaluator(seen.detach(), batch, busy)
        self.evaluations += sum(busy)
        found = self._unreached(slots, seen, batch, found)
        with torch.enable_grad():
            # The network's gradient by what it saw, carried on to the latents by autograd.
            penalties = [-weight * penalty(images).sum() for weight, penalty in recipe.penalties]
            (gradients,) = torch.autograd.grad(
                [seen, *penalties], latents, [found.gradients, *len(penalties) * [None]]
            )
        images, ascent = images.detach(), gradients
        for operation in recipe.on_gradients:
            ascent = operation(ascent)
        slots.record(found.scores, ascent, images)
        recipe.optimiser.step(slots.latents, ascent, slots.memory, slots.steps)
        for change in recipe.on_images:
            slots.latents = change(slots.latents, gradients, slots.steps + 1)
        slots.advance()

    def _unreached(
        self, slots: "_Slots", seen: Tensor, batch: Batch, found: Evaluation
    ) -> Evaluation:
        """Give rows that no gradient reaches one through ReLUs that are shut, for a while."""
        reached = _largest(found.gradients).gt(0).tolist()
        lost = [
            bool(slots.busy[slot] and not reached[slot] and slots.steps[slot] < WARM_UP)
            for slot in range(self.batch)
        ]
        slots.note(reached)
        if not any(lost):
            return found
        through = self._redirected(seen.detach(), batch, lost)
        self.evaluations += sum(lost)
        mask = torch.tensor(lost, device=seen.device)[:, None, None, None]
        return Evaluation(found.scores, torch.where(mask, through.gradients, found.gradients))


class _Slots:
    """The rows that are in the batch, and places for more."""

    def __init__(self, network: Network, recipe: Recipe, batch: int, size: tuple[int, int]) -> None:
        self._network, self._recipe, self._size = network, recipe, size
        self._tasks: list[Task | None] = [None] * batch
        self._status: list[Status | None] = [None] * batch
        self._joined: Batch | None = None
        self.seeds = np.zeros(batch, dtype=np.int64)
        self.steps = np.zeros(batch, dtype=np.int64)
        blank = torch.full((batch, 3, *size), 0.5, device=network.device)
        self.latents = recipe.parametrisation.latent(blank)
        self.memory = recipe.optimiser.state(self.latents)
        self._curves = torch.zeros(batch, recipe.steps)
        self._best = torch.full((batch,), -torch.inf)
        self._best_at = torch.zeros(batch, dtype=torch.int64)
        self._finite = blank

    @property
    def busy(self) -> list[bool]:
        """Which slots hold a row."""
        return [task is not None for task in self._tasks]

    def free(self) -> list[int]:
        """Return the slots that hold none."""
        return [slot for slot, task in enumerate(self._tasks) if task is None]

    def take(self, slot: int, task: Task) -> None:
        """Put a task's row into a slot."""
        task.objective.check(self._network)
        parametrisation, device = self._recipe.parametrisation, self._network.device
        if task.start is None:
            keys = Keys(np.array([task.seed], dtype=np.int64), np.zeros(1, dtype=np.int64))
            latent = parametrisation.noise(keys, self._size)[0]
        else:
            latent = parametrisation.latent(self._checked(task, task.start)[None])[0]
        self._tasks[slot], self._status[slot], self._joined = task, None, None
        self.latents[slot] = latent.to(device)
        for part in self.memory:
            part[slot] = 0
        self.seeds[slot], self.steps[slot] = task.seed, 0
        self._curves[slot] = 0
        self._best[slot], self._best_at[slot] = -torch.inf, 0

    def _checked(self, task: Task, start: Tensor) -> Tensor:
        if tuple(start.shape) != (3, *self._size):
            raise OptionError(
                f"the start of row {task.row} is {tuple(start.shape)}, not {(3, *self._size)}"
            )
        if not bool(torch.isfinite(start).all()):
            raise OptionError(f"the start of row {task.row} is not finite; give pixels in [0, 1]")
        return start.to(self._network.device, torch.float32).clamp(0, 1)

    def objectives(self) -> Batch:
        """Return what all slots ask; those that are free ask what another does, of a blank."""
        if self._joined is None:
            any_task = next(task for task in self._tasks if task is not None)
            asked = [(task or any_task).objective for task in self._tasks]
            self._joined = Batch(asked, self._network.device)
        return self._joined

    def note(self, reached: list[bool]) -> None:
        """Give up rows that no gradient reached in all of the warm-up."""
        for slot, task in enumerate(self._tasks):
            if task is not None and not reached[slot] and self.steps[slot] >= WARM_UP:
                self._status[slot] = "dead"

    def record(self, scores: Tensor, gradients: Tensor, images: Tensor) -> None:
        """Write down what the images of this step scored, and who is to go."""
        recipe = self._recipe
        finite = (scores.isfinite() & _largest(gradients).isfinite()).tolist()
        found = scores.cpu()
        for slot, task in enumerate(self._tasks):
            if task is None:
                continue
            step, score = int(self.steps[slot]), float(found[slot])
            self._curves[slot, step] = score
            if not finite[slot]:
                self._status[slot] = "diverged"
                continue
            self._finite[slot] = images[slot]
            if score > self._best[slot]:
                self._best[slot], self._best_at[slot] = score, step
            if recipe.until is not None and score >= recipe.until:
                self._status[slot] = "reached"
            elif recipe.patience is not None and step - self._best_at[slot] >= recipe.patience:
                self._status[slot] = "still"

    def advance(self) -> None:
        """Count the step; what is not finite by now goes back to what was."""
        self.steps += 1
        for slot, task in enumerate(self._tasks):
            if (
                task is not None
                and self._status[slot] is None
                and (self.steps[slot] >= self._recipe.steps)
            ):
                self._status[slot] = "done"

    def finished(self) -> list[int]:
        """Return the slots whose rows are to leave."""
        return [slot for slot, status in enumerate(self._status) if status is not None]

    def leave(self, slot: int) -> Made:
        """Free a slot and return what became of its row."""
        task, status = self._tasks[slot], self._status[slot]
        assert task is not None
        assert status is not None
        if status == "done":
            image = self._recipe.parametrisation.images(self.latents[slot : slot + 1])[0]
            if not bool(torch.isfinite(image).all()):
                image, status = self._finite[slot], "diverged"
        else:
            image = self._finite[slot]
        curve = self._curves[slot, : int(self.steps[slot])].clone()
        self._tasks[slot], self._status[slot], self._joined = None, None, None
        return Made(task.row, image.detach().float().clamp(0, 1).cpu().clone(), curve, status)


def _largest(gradients: Tensor) -> Tensor:
    """Return the largest absolute value of each row, (N,): not finite if one of them is not."""
    return gradients.flatten(1).abs().amax(1)
