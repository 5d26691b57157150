"""What a network costs: multiply-adds of an image, numbers in its weights, images a second.

Multiply-adds are those of convolutions and linear layers, one for each weight that an output
element is made with; sums, normalisations and activations are not counted. AlexNet takes
714,188,480.
"""

import math
import time
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


def images_per_second(network: Network, batch: int = 32, seconds: float = 1.0) -> float:
    """Time forward passes with batch normalisation folded; return the median's rate.

    Args:
        network: the network.
        batch: images that run together.
        seconds: after which no further pass is begun; there are three at least.
    """
    folded = network.folded([])
    images = torch.rand(
        batch, 3, *network.input_size, generator=torch.Generator().manual_seed(0)
    ).to(network.device)
    taken: list[float] = []
    with torch.inference_mode():
        folded(images)
        while len(taken) < 3 or sum(taken) < seconds:
            started = time.perf_counter()
            folded(images).cpu()  # waits for a GPU
            taken.append(time.perf_counter() - started)
    return batch / sorted(taken)[len(taken) // 2]


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
