"""The places of a batch of attacks: rows come, and leave when their attack is over."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Attacked:
    """A row whose attack is over.

    Attributes:
        row: its number.
        clean: (3, H, W) float32.
        image: likewise, the adversarial one.
        goal: the class gone for, or to be left.
        evaluations: gradient evaluations used.
    """

    row: int
    clean: Tensor
    image: Tensor
    goal: int
    evaluations: int


@dataclass
class Places:
    """B rows on their way.

    Attributes:
        clean: (B, 3, H, W) float32, channels last, the images as they were.
        images: likewise, what the network is shown next.
        goals: (B,) int64, the classes.
        rows: (B,) int64, on the CPU, the rows' numbers: what random numbers are keyed by.
        passes: (B,) int64, gradient evaluations so far.
    """

    clean: Tensor
    images: Tensor
    goals: Tensor
    rows: Tensor
    passes: Tensor

    @classmethod
    def empty(cls, count: int, size: tuple[int, int], device: torch.device) -> "Places":
        """Return places that hold black images."""
        pixels = torch.zeros(count, 3, *size, device=device).to(memory_format=torch.channels_last)
        numbers = torch.zeros(count, dtype=torch.int64)
        there = numbers.to(device)
        return cls(pixels, pixels.clone(), there, numbers.clone(), there.clone())

    def enter(
        self, at: Tensor, rows: Sequence[int], images: Sequence[Tensor], goals: Sequence[int]
    ) -> None:
        """Put rows into places, (n,) on the CPU."""
        there = at.to(self.goals.device)
        self.rows[at], self.goals[there] = torch.tensor(rows), torch.tensor(goals).to(there.device)
        self.clean[there], self.passes[there] = torch.stack(list(images)), 0

    def leave(self, at: Tensor, images: Tensor) -> Iterator[Attacked]:
        """Yield the rows at places, (n,), with their adversarial images, (n, 3, H, W)."""
        rows = self.rows[at.cpu()].tolist()
        goals, passes = self.goals[at].tolist(), self.passes[at].tolist()
        clean = self.clean[at]  # a copy, for others will take these places
        for n, row in enumerate(rows):
            yield Attacked(row, clean[n], images[n], goals[n], passes[n])
