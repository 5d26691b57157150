"""What a network costs: multiply-adds of an image, numbers in its weights, images a second.

Multiply-adds are those of convolutions and linear layers, one for each weight that an output
element is made with; sums, normalisations and activations are not counted. AlexNet takes
714,188,480.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fc7.engine.models.dryrun import Observer, dry_run
from fc7.engine.models.network import Network


def multiply_adds(model: nn.Module, size: tuple[int, int]) -> int:
    """Return the multiply-adds of one image.

    Args:
        model: a network in evaluation mode.
        size: height and width of the image in pixels.
    """
    return sum(multiply_adds_by_module(model, size).values())


def multiply_adds_by_module(model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """Return the multiply-adds of one image by the path of the module that takes them.

    Args:
        model: a network in evaluation mode.
        size: height and width of the image in pixels.
    """
    return dry_run(model, size, _Counter).by_module


def parameters(model: nn.Module) -> int:
    """Return how many numbers the weights are; what is shared counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def images_per_second(
    networks: Sequence[Network], batch: int = 32, seconds: float = 0.5
) -> list[float]:
    """Time forward passes with batch normalisation folded; return each network's best rate.

    They take turns, so that what else the machine does meets all of them alike.

    Args:
        networks: whose images have one size.
        batch: images that run together.
        seconds: for each network; three passes are made at least.
    """
    folded = [network.folded([]) for network in networks]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, *networks[0].input_size, generator=generator)
    taken: list[list[float]] = [[] for _ in folded]
    with torch.inference_mode():
        while len(taken[0]) < 4 or sum(map(sum, taken)) < seconds * len(folded):
            for network, times in zip(folded, taken, strict=True):
                pixels = images.to(network.device)
                started = time.perf_counter()
                network(pixels).cpu()  # which waits for a GPU
                times.append(time.perf_counter() - started)
    return [batch / min(times[1:]) for times in taken]  # the first one warms up


class _Counter(Observer):
    """Adds up what the functions of one pass multiply."""

    def __init__(self) -> None:
        super().__init__()
        self.by_module: dict[str, int] = {}
        self._since = 0

    def leave(self, path: str, output: Any) -> None:
        """Charge what was multiplied since to the module that returns first, the innermost."""
        if self._since:
            self.by_module[path] = self.by_module.get(path, 0) + self._since
            self._since = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in ("conv1d", "conv2d", "conv3d", "linear") and isinstance(result, Tensor):
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            # (C', C / groups, ...) or (D', D): each output element takes all but the first axis.
            self._since += result.numel() * math.prod(weight.shape[1:])
        return result
