"""What stands beside images that an ascent made: what they score as stored, and how they came."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.models import Network
from fc7.engine.synthesis.evaluation import Evaluator
from fc7.engine.synthesis.objectives import Batch, Objective
from fc7.engine.synthesis.queue import Made, Status
from fc7.engine.synthesis.terms import LOGITS

STATUSES: tuple[str, ...] = get_args(Status)


class Judge:
    """Scores finished images by their own objectives.

    Args:
        network: the network.
        form: an objective like all that will come.
        size: height and width of the images in pixels.
        together: how many always go through the network at once, so that a row's numbers do not
            hang on its company.
    """

    def __init__(
        self, network: Network, form: Objective, size: tuple[int, int], together: int
    ) -> None:
        self._device, self._together = network.device, together
        self._evaluator = Evaluator(network, form.layers, size=size, together=together)

    def __call__(
        self, images: Tensor, objectives: Sequence[Objective]
    ) -> tuple[Tensor, Tensor | None]:
        """Return the objective of each image, (n,), and the logits if it asks for them, on the CPU.

        Args:
            images: (n, 3, H, W) in [0, 1].
            objectives: n of them.
        """
        count = len(images)
        padded = torch.cat([images, images[:1].expand(-count % self._together, -1, -1, -1)])
        outputs = self._evaluator.outputs(padded)
        asked = [*objectives, *[objectives[0]] * (len(padded) - count)]
        scores = Batch(asked, self._device)(outputs, slice(0, len(padded)))[:count].cpu()
        logits = outputs.get(LOGITS)
        return scores, None if logits is None else logits[:count].cpu()


def as_stored(group: Sequence[Made]) -> Tensor:
    """Return images as a run stores them, (n, 3, H, W) uint8."""
    return torch.stack([made.image for made in group]).mul(255).round().byte()


def course(group: Sequence[Made], steps: int) -> dict[str, NDArray[Any]]:
    """Return the columns curve, steps and status of images that took `steps` steps at most."""
    curves = np.full((len(group), steps), np.nan, dtype=np.float32)
    for curve, made in zip(curves, group, strict=True):
        curve[: len(made.curve)] = made.curve.numpy()
    return {
        "curve": curves,
        "steps": np.array([len(made.curve) for made in group], dtype=np.int64),
        "status": np.array([STATUSES.index(made.status) for made in group], dtype=np.uint8),
    }
