"""Training as a stage: steps, a checkpoint now and then, and on from the newest after a stop.

Not among the store's public names, since it needs torch.
"""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from fc7.engine.models.training_state import load_training, save_training
from fc7.engine.store.checkpoints import Checkpoints
from fc7.engine.store.runner import Progress, Report

Batch = TypeVar("Batch")


def train(
    name: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Tensor,
    batches: Callable[[int], Iterable[Batch]],
    step: Callable[[int, Batch], Tensor | float],
    checkpoints: Checkpoints,
    checkpoint_seconds: float,
    batch_rows: int,
    report: Report | None = None,
) -> float:
    """Train from the newest checkpoint to the last step; return the seconds of all sittings.

    Args:
        name: the stage's, for progress.
        model: changed in place.
        optimizer: over its parameters.
        losses: (steps, ...), what steps return; filled in place.
        batches: from a step to its batch and all later ones.
        step: from a step's number and batch to its loss.
        checkpoints: the stage's.
        checkpoint_seconds: from one to the next.
        batch_rows: of a step, for progress.
        report: called after each step.

    Raises:
        ModelError: the newest checkpoint is damaged.
        OSError: the disk is full; the newest checkpoint is kept.
    """
    steps, done, before = len(losses), 0, 0.0
    latest = checkpoints.latest()
    if latest is not None:
        progress = load_training(latest, model, optimizer)
        done, before = int(progress["steps"]), float(progress["seconds"])
        losses[:done] = progress["losses"][:done]
    started = saved = time.monotonic()
    for number, batch in enumerate(batches(done), start=done):
        losses[number] = step(number, batch)
        now = time.monotonic()
        if number + 1 < steps and now - saved >= checkpoint_seconds:
            progress = {
                "steps": torch.tensor(number + 1),
                "losses": losses,
                "seconds": torch.tensor(before + now - started, dtype=torch.float64),
            }
            with checkpoints.write() as newest:
                save_training(newest, model, optimizer, progress)
            saved = time.monotonic()
        if report:
            report(Progress(name, (number + 1) * batch_rows, steps * batch_rows))
    return before + time.monotonic() - started
