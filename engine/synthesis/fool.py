"""Adversarial examples: images changed so little that people see the same, and a network another.

found = fool_images(network, images, "random")
found.images[found.success]                     what the network takes for something else

The rows of a batch are attacked independently; see `fc7.engine.synthesis.attacks` for the methods.
Whether an attack succeeded is judged by a plain forward pass, not by the pass that made it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.passes import images_a_pass
from fc7.engine.models.targets import class_count, class_numbers
from fc7.engine.synthesis.attack_options import AttackOptions
from fc7.engine.synthesis.attacks import Attack, probabilities
from fc7.engine.synthesis.evaluation import Evaluator
from fc7.engine.synthesis.goals import RANDOM, Given, Goals
from fc7.engine.synthesis.objectives import Outputs
from fc7.engine.synthesis.places import Attacked, Places
from fc7.engine.synthesis.terms import LOGITS

BATCH_ROWS = 16

# An attack stops at a probability that its own pass finds; the one that judges rounds otherwise.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Verdict:
    """What a network says of N images, and whether that is what an attack was to bring about.

    Attributes:
        success: (N,) bool, whether the goal is the predicted class; untargeted, whether it is not;
            and whether that class has the probability that was asked for.
        predicted: (N,) int64.
        probability: (N,) float32, of the predicted class.
        of_goal: (N,) float32, the goal's probability.
    """

    success: Tensor
    predicted: Tensor
    probability: Tensor
    of_goal: Tensor


@dataclass(frozen=True)
class Fooled:
    """What attacks on N images came to.

    Attributes:
        images: (N, 3, H, W) float32 in [0, 1], the adversarial images; where there was no success,
            the last that were tried.
        goals: (N,) int64, the classes gone for; untargeted, those to be left.
        before: of the images as they were.
        after: of the adversarial ones; `after.success` is the attack's.
        l2: (N,) float32, the Euclidean norm of the change of pixels in [0, 1].
        linf: (N,) float32, the largest change of a pixel.
        evaluations: (N,) int64, gradient evaluations used.
    """

    images: Tensor
    goals: Tensor
    before: Verdict
    after: Verdict
    l2: Tensor
    linf: Tensor
    evaluations: Tensor

    @property
    def success(self) -> Tensor:
        """Whether each attack succeeded, (N,) bool."""
        return self.after.success

    @property
    def predicted(self) -> Tensor:
        """The class that the network predicts afterwards, (N,) int64."""
        return self.after.predicted

    @property
    def probability(self) -> Tensor:
        """Its probability, (N,) float32."""
        return self.after.probability


def fool_images(
    network: Network,
    images: Tensor,
    targets: str | int | Tensor | Sequence[int] = RANDOM,
    options: AttackOptions | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Fooled:
    """Change each image a little, so that the network takes it for something else.

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1], of any one size that the network takes.
        targets: N class numbers; or for all "random", "least-likely", "next", "untargeted", or a
            class by number or name; see `Goals`.
        options: how.
        batch_rows: images attacked together. It changes results by rounding alone.

    Raises:
        OptionError: an option is out of range, or a class is none of the network's.
        QuestionError: nothing flows back to the pixels.
        ValueError: the images have another shape or dtype, or values beyond [0, 1].
    """
    options = options or AttackOptions()
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"expected float images (N, 3, H, W) in [0, 1], not {images.dtype} "
            f"{tuple(images.shape)}; divide uint8 images by 255"
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images have values beyond [0, 1]; divide by 255, or clamp them")
    classes = class_count(network)
    goals: Goals | Given
    if isinstance(targets, str | int):
        goals = Goals(targets, network, classes, options.seed)
    else:
        goals = Given(class_numbers(targets, len(images)), network, classes)
    size = int(images.shape[2]), int(images.shape[3])
    fooling = Fooling(network, goals, options, batch_rows, size)
    clean = images.detach().to(network.device, torch.float32)
    attacked = sorted(fooling.attack(enumerate(clean)), key=lambda one: one.row)
    adversarial = torch.stack([one.image for one in attacked]) if attacked else clean.clone()
    chosen = torch.tensor([one.goal for one in attacked], dtype=torch.int64)
    return Fooled(
        adversarial,
        chosen.to(network.device),
        fooling.judge(clean, chosen),
        fooling.judge(adversarial, chosen),
        *sizes(adversarial - clean),
        torch.tensor([one.evaluations for one in attacked], dtype=torch.int64),
    )


def sizes(changes: Tensor) -> tuple[Tensor, Tensor]:
    """Return Euclidean norm and largest absolute entry of each row, (N, ...) -> (N,) twice."""
    flat = changes.flatten(1)
    return flat.norm(dim=1), flat.abs().amax(1)


class Fooling:
    """Attacks on images of one size, as many at a time as a batch holds.

    A row that is done makes room for the next, and every pass takes the same number of images,
    so that a row's result depends neither on its batch-mates nor on its place.

    Args:
        network: the network.
        goals: which classes to go for.
        options: how.
        batch_rows: images attacked together.
        size: of the images, height and width in pixels.

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        network: Network,
        goals: Goals | Given,
        options: AttackOptions,
        batch_rows: int,
        size: tuple[int, int],
    ) -> None:
        if batch_rows < 1:
            raise OptionError(f"batch_rows is {batch_rows}; it must be 1 or more")
        self._network, self._goals, self._options = network, goals, options
        self._size, self._batch = size, batch_rows
        most = images_a_pass(network, batch_rows, size)
        self._together = next(n for n in range(most, 0, -1) if batch_rows % n == 0)
        self._evaluate = Evaluator(network, [LOGITS], [LOGITS], size=size, together=self._together)

    def check(self) -> None:
        """Raise QuestionError where nothing flows back to the pixels."""
        black = torch.zeros(1, 3, *self._size, device=self._network.device)
        self._evaluate(black, lambda outputs, _rows: outputs[LOGITS].sum(1))

    def attack(self, starts: Iterable[tuple[int, Tensor]]) -> Iterator[Attacked]:
        """Yield rows as their attacks end, in the order of their ends.

        Args:
            starts: row numbers with their images, (3, H, W) float32 in [0, 1] on the device.
        """
        waiting = self._with_goals(iter(starts))
        attack = self._options.attack(self._goals.untargeted)
        places = Places.empty(self._batch, self._size, self._network.device)
        busy: list[int] = []
        while True:
            free = [place for place in range(self._batch) if place not in busy]
            entering = list(islice(waiting, len(free)))
            if entering:
                at = torch.tensor(free[: len(entering)])
                places.enter(at, *(list(each) for each in zip(*entering, strict=True)))
                attack.enter(places, at.to(places.goals.device))
                busy = sorted(busy + at.tolist())
            if not busy:
                return
            logits, gradient = self._pass(attack, places, busy)
            places.passes += 1
            done = attack.step(places, logits, gradient).tolist()
            over = torch.tensor([place for place in busy if done[place]], dtype=torch.int64)
            if len(over):
                there = over.to(places.goals.device)
                yield from places.leave(there, attack.result(places, there))
                busy = [place for place in busy if not done[place]]

    def judge(self, images: Tensor, goals: Tensor) -> Verdict:
        """Return what the network, as it was loaded, says of images, (N, 3, H, W).

        Args:
            images: float in [0, 1].
            goals: (N,), the classes gone for; untargeted, those to be left.
        """
        logits = torch.cat(
            [self._logits(images[rows]) for rows in _slices(len(images), self._batch)]
        )
        predicted, goals = logits.argmax(1), goals.to(logits.device)
        reached = predicted == goals
        certainty = probabilities(logits, predicted).float()
        success = ~reached if self._goals.untargeted else reached
        return Verdict(
            success & (certainty >= self._options.probability - _ROUNDING),
            predicted,
            certainty,
            probabilities(logits, goals).float(),
        )

    def _with_goals(
        self, starts: Iterator[tuple[int, Tensor]]
    ) -> Iterator[tuple[int, Tensor, int]]:
        while batch := list(islice(starts, self._batch)):
            rows = [row for row, _ in batch]
            logits = self._logits(torch.stack([image for _, image in batch]))
            for (row, image), goal in zip(
                batch, self._goals.of(rows, logits).tolist(), strict=True
            ):
                yield row, image, goal

    @torch.inference_mode()
    def _logits(self, images: Tensor) -> Tensor:
        """Return the logits of at most a batch of images, from a pass of a whole batch."""
        filled = images.new_zeros(self._batch, *images.shape[1:], device=self._network.device)
        filled = filled.to(memory_format=torch.channels_last)
        filled[: len(images)] = images
        parts = [self._network(filled[rows]) for rows in _slices(self._batch, self._together)]
        return torch.cat(parts)[: len(images)].clone()

    def _pass(self, attack: Attack, places: Places, busy: list[int]) -> tuple[Tensor, Tensor]:
        """Pass the busy places, filled up to what goes together, and return a whole batch's."""
        if len(busy) == self._batch:
            return self._pass_of(attack, places.images, places.goals)
        count = -(-len(busy) // self._together) * self._together
        idle = [place for place in range(self._batch) if place not in busy]
        at = torch.tensor(busy + idle[: count - len(busy)], device=places.goals.device)
        logits, gradient = self._pass_of(attack, places.images[at], places.goals[at])
        whole = logits.new_zeros(self._batch, logits.shape[1])
        gradients = torch.zeros_like(places.images)
        whole[at], gradients[at] = logits, gradient
        return whole, gradients

    def _pass_of(self, attack: Attack, images: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
        def score(outputs: Outputs, rows: slice) -> Tensor:
            logits = outputs[LOGITS]
            weights = attack.weights(logits.detach(), goals[rows])
            return (logits * weights).sum(1)

        found = self._evaluate(images, score)
        return found.outputs[LOGITS], found.gradients


def _slices(count: int, together: int) -> Iterator[slice]:
    for start in range(0, max(1, count), together):
        yield slice(start, start + together)
