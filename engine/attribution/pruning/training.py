"""Fine-tuning: a few epochs that let what is left of a network make up for what is gone.

Stochastic gradient descent with Nesterov's momentum; the learning rate follows half a cosine down
to 0 (Loshchilov and Hutter, ICLR 2017). BatchNorm trains too, by the statistics of each batch,
and keeps running averages: what its layers are fed has changed. Dropout drops.

Every number drawn is a function of the seed and of where it is used: the order of rows of (seed,
epoch), the flip and shift of a row of (seed, epoch, row), dropout of (seed, step). So training that
was stopped and goes on from a checkpoint ends in the same weights, on a CPU to the bit.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fc7.engine.data.batches import as_floats, batches, read_ahead
from fc7.engine.data.source import Source
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.bare import seeded
from fc7.engine.models.network import logits_of
from fc7.engine.models.pruned import Pruned, save_pruned
from fc7.engine.models.targets import LABEL, Targets, class_count
from fc7.engine.store import Checkpoints, Report
from fc7.engine.store.fingerprint import software
from fc7.engine.store.training import train

RESULT = "network.safetensors"
# The options that the result depends on.
_RECORDED = (
    *("epochs", "batch_rows", "learning_rate", "momentum", "weight_decay", "augment", "seed"),
)


@dataclass(frozen=True)
class FineTuneOptions:
    """How to fine-tune.

    Attributes:
        epochs: passes over the labelled rows; a fraction stops within a pass.
        batch_rows: images a step. The last rows of an epoch that are fewer are left out.
        learning_rate: at the start.
        momentum: of the steps.
        weight_decay: of weights; not of biases or of normalisations.
        augment: mirror half of the images, and shift each by up to a tenth of its side.
        seed: of everything drawn.
        threads: decoding threads.
        checkpoint_seconds: from one checkpoint to the next; what a kill costs at most.
    """

    epochs: float = 1.0
    batch_rows: int = 128
    learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True
    seed: int = 0
    threads: int = 2
    checkpoint_seconds: float = 60.0


@dataclass
class FineTune:
    """A stage that trains a network with channels removed.

    The result is `network.safetensors`, which `load_model` takes, and `losses.npy`, (steps,)
    float32.

    Args:
        network: where training starts, on the device that computes; it is not changed.
        pruned: what else its file says.
        source: the training rows; those without a label are left out.
        options: how.
        report: called after each step.

    Raises:
        OptionError: an option is out of range, the labels are not the network's classes, or fewer
            rows have one than a batch takes.
    """

    network: Network
    pruned: Pruned
    source: Source
    options: FineTuneOptions
    report: Report | None = None
    _targets: Targets = field(init=False)
    _rows: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        numbers = (options.epochs, options.batch_rows, options.learning_rate, options.threads)
        if not all(number > 0 and math.isfinite(number) for number in numbers):
            raise OptionError(
                f"epochs is {options.epochs:g}, the batch {options.batch_rows}, the learning rate "
                f"{options.learning_rate:g}, threads {options.threads}; each is above 0"
            )
        if options.seed < 0:
            raise OptionError(f"seed is {options.seed}; it must be at least 0")
        self._targets = Targets(LABEL, self.network, class_count(self.network), self.source)
        rows = np.arange(len(self.source))
        self._rows = rows[self._targets.known(rows)]
        if len(self._rows) < options.batch_rows:
            raise OptionError(
                f"{self.source.spec} has {len(self._rows)} labelled rows, fewer than a batch of "
                f"{options.batch_rows}; ask for a smaller batch"
            )

    @property
    def name(self) -> str:
        """One job for each network that training starts from."""
        return f"finetune-{self.network.digest[:8]}"

    @property
    def steps(self) -> int:
        """Steps in all."""
        return max(1, round(self.options.epochs * (len(self._rows) // self.options.batch_rows)))

    def fingerprint(self) -> Mapping[str, Any]:
        """Where training starts, the rows, and how."""
        options = {name: getattr(self.options, name) for name in _RECORDED}
        start = self.network.describe()
        start.pop("weights")  # the name of a file, which may be any
        return {
            "start": start,
            "made": dict(self.pruned.made),
            "data": self.source.digest(),
            "options": {**options, "device": self.network.device.type},
            "software": software(),
        }

    def resume(self, folder: Path, checkpoints: Checkpoints) -> Mapping[str, Any]:
        """Train from the newest checkpoint on, and write the network."""
        model = copy.deepcopy(self.network.model).requires_grad_().train()
        optimizer = self._optimizer(model)
        losses = torch.full((self.steps,), torch.nan)
        seconds = train(
            self.name,
            model,
            optimizer,
            losses,
            self._batches,
            partial(self._step, model, optimizer),
            checkpoints,
            self.options.checkpoint_seconds,
            self.options.batch_rows,
            self.report,
        )
        save_pruned(folder / RESULT, self.pruned, model.state_dict())
        np.save(folder / "losses.npy", losses.numpy())
        return {
            "steps": self.steps,
            "rows": len(self._rows),
            "first_loss": float(losses[0]),
            "last_loss": float(losses[-1]),
            "seconds": round(seconds, 3),
        }

    def _optimizer(self, model: nn.Module) -> torch.optim.SGD:
        options = self.options
        weights = [one for one in model.parameters() if one.ndim > 1]
        others = [one for one in model.parameters() if one.ndim <= 1]
        return torch.optim.SGD(
            [
                {"params": weights, "weight_decay": options.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
            momentum=options.momentum,
            nesterov=options.momentum > 0,
        )

    def _step(
        self,
        model: nn.Module,
        optimizer: torch.optim.SGD,
        step: int,
        batch: tuple[NDArray[np.int64], Tensor],
    ) -> float:
        """Take one step down the mean loss of a batch, and return that loss."""
        numbers, images = batch
        if not len(numbers):  # not one image of the batch could be used
            return math.nan
        cosine = (1 + math.cos(math.pi * step / self.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = self.options.learning_rate * cosine
        zeros = torch.zeros(len(numbers), dtype=torch.int64, device=images.device)
        optimizer.zero_grad()
        with seeded(_drawn(self.options.seed, step)):
            logits = logits_of(model(self.network.normalise(images))).float()
            loss = cross_entropy(logits, self._targets.of(numbers, zeros))
        if not torch.isfinite(loss):
            raise OptionError(
                f"the loss of step {step + 1} is not a number; start with a learning rate below "
                f"{self.options.learning_rate:g}"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    def _batches(self, start: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield row numbers and images, (B, 3, H, W) in [0, 1], of each step from `start` on."""
        options, device = self.options, self.network.device
        numbers = self._order(start)
        transform = self.network.transform
        stream = read_ahead(self.source, numbers, transform, options.batch_rows, options.threads)
        per_epoch = len(self._rows) // options.batch_rows
        for step, batch in enumerate(batches(iter(stream), options.batch_rows), start=start):
            good = [(row.number, row.image) for row in batch if row.image is not None]
            images = [image for _, image in good]
            if options.augment:
                epoch = step // per_epoch
                images = [flip_and_shift(image, (options.seed, epoch, row)) for row, image in good]
            rows = np.array([row for row, _ in good], dtype=np.int64)
            yield rows, as_floats(images, device).div_(255) if good else torch.empty(0)

    def _order(self, start: int) -> Iterator[int]:
        """Yield the row numbers of all steps from `start` on, batch by batch."""
        size = self.options.batch_rows
        per_epoch = len(self._rows) // size
        for epoch in range(start // per_epoch, math.ceil(self.steps / per_epoch)):
            order = np.random.default_rng([self.options.seed, epoch]).permutation(self._rows)
            first = max(start, epoch * per_epoch) - epoch * per_epoch
            last = min(self.steps, (epoch + 1) * per_epoch) - epoch * per_epoch
            yield from order[first * size : last * size].tolist()


def flip_and_shift(image: Tensor, key: Sequence[int]) -> Tensor:
    """Mirror an image or not, and shift it by up to a tenth of its side: uint8 (3, H, W), likewise.

    What a shift uncovers is filled by reflection.

    Args:
        image: the image.
        key: of what is drawn.
    """
    drawn = np.random.default_rng(list(key))
    height, width = image.shape[-2:]
    down, across = height // 10, width // 10
    lines = np.pad(np.arange(height), down, mode="reflect")
    columns = np.pad(np.arange(width), across, mode="reflect")
    top, left = drawn.integers(0, 2 * down + 1), drawn.integers(0, 2 * across + 1)
    columns = columns[left : left + width]
    if drawn.random() < 0.5:
        columns = columns[::-1]
    rows = torch.from_numpy(lines[top : top + height])
    return image[:, rows][:, :, torch.from_numpy(columns.copy())]


def _drawn(*key: int) -> int:
    """Return a seed for torch that a key stands for."""
    return int(np.random.default_rng(list(key)).integers(2**63))
