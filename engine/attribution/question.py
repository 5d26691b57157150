"""What is asked of a network about an image partly covered: which score, covered by what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network

Score = Literal["probability", "logit"]


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
