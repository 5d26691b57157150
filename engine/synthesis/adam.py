"""How a gradient becomes a step, with a memory for each row of its own.

An optimiser holds no numbers: its state is a tuple of tensors with one entry a row, so that a row
can leave a batch and another take its place.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

State = tuple[Tensor, ...]


class Optimiser(Protocol):
    """Ascends: what it changes grows the score."""

    def state(self, latents: Tensor) -> State:
        """Return the memory of rows that have taken no step, each (N, ...)."""

    def step(
        self, latents: Tensor, gradients: Tensor, state: State, steps: NDArray[np.int64]
    ) -> None:
        """Change latents (N, ...) and state in place.

        Args:
            latents: what is changed, (N, ...).
            gradients: of the score, in their shape.
            state: as the last step left it.
            steps: (N,) int64, how many steps each row has taken before this one.
        """

    def describe(self) -> dict[str, Any]:
        """Return all of it as JSON."""


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba, 2015, arXiv:1412.6980; each row counts its own steps.

    Attributes:
        rate: of a step, in units of the latents.
        memory: by how much of themselves the mean gradient and the mean square go on.
        epsilon: added to the root of the mean square.
    """

    rate: float = 0.05
    memory: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def state(self, latents: Tensor) -> State:
        """See `Optimiser`."""
        return torch.zeros_like(latents), torch.zeros_like(latents)

    def step(
        self, latents: Tensor, gradients: Tensor, state: State, steps: NDArray[np.int64]
    ) -> None:
        """See `Optimiser`."""
        (mean, square), (first, second) = state, self.memory
        mean.mul_(first).add_(gradients, alpha=1 - first)
        square.mul_(second).addcmul_(gradients, gradients, value=1 - second)
        taken = torch.from_numpy(steps).double() + 1
        shape = (-1, *(1,) * (latents.ndim - 1))
        rate, root = (
            each.to(latents.device, latents.dtype).reshape(shape)
            for each in (self.rate / (1 - first**taken), (1 - second**taken).sqrt())
        )
        change = square.sqrt().div_(root).add_(self.epsilon)
        latents.add_(torch.div(mean, change, out=change).mul_(rate))

    def describe(self) -> dict[str, Any]:
        """See `Optimiser`."""
        return {"optimiser": "adam", "rate": self.rate, "memory": list(self.memory)}


@dataclass(frozen=True)
class Ascent:
    """A step along the gradient as it is.

    Attributes:
        rate: by what the gradient is multiplied.
    """

    rate: float = 1.0

    def state(self, latents: Tensor) -> State:
        """See `Optimiser`."""
        return ()

    def step(
        self, latents: Tensor, gradients: Tensor, state: State, steps: NDArray[np.int64]
    ) -> None:
        """See `Optimiser`."""
        latents.add_(gradients, alpha=self.rate)

    def describe(self) -> dict[str, Any]:
        """See `Optimiser`."""
        return {"optimiser": "ascent", "rate": self.rate}
