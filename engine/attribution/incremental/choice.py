"""Which executor runs a plan: on a GPU the one that is measured to be faster, on these images."""

import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fc7.engine.attribution.incremental.executor import Executor
from fc7.engine.attribution.incremental.lists import ListExecutor
from fc7.engine.attribution.incremental.plan import Plan
from fc7.kernels import backend

_ROUNDS = 3
WINDOWS, LISTS = "windows", "lists"  # what the record calls `Executor` and `ListExecutor`


class Choice(NamedTuple):
    """An executor, and why it was taken.

    Attributes:
        executor: the one to use.
        record: {"chosen": "windows" or "lists"} and either {"reason": why nothing was measured} or
            {"seconds": {name: median of three runs}, "device": the GPU's name}; ready for JSON.
    """

    executor: Executor | ListExecutor
    record: dict[str, Any]


def fastest(plan: Plan, images: Tensor, fill: Tensor) -> Choice:
    """Return the executor that runs a plan faster.

    On a GPU with Triton both run on the images, if both can; elsewhere nothing is measured, and
    `Executor`, which is made for a CPU's cache, is taken.

    Args:
        plan: what to run.
        images: (N, 3, H, W), as many as will run together, where the network is.
        fill: (3,), what covers.
    """
    reason = None
    if not images.is_cuda:
        reason = f"lists are for a GPU, and the images are on {images.device.type}"
    elif not backend.uses_triton(images):
        reason = "lists need Triton and a GPU of compute capability 8.0"
    elif not ListExecutor.serves(plan):
        reason = "lists do not serve an operation of this network"
    if reason is not None:
        return Choice(Executor(plan), {"chosen": WINDOWS, "reason": reason})
    both: dict[str, Executor | ListExecutor]
    both = {WINDOWS: Executor(plan), LISTS: ListExecutor(plan)}
    seconds = seconds_of(both, images, fill)
    chosen = min(seconds, key=seconds.__getitem__)
    device = torch.cuda.get_device_name(images.device)
    return Choice(both[chosen], {"chosen": chosen, "seconds": seconds, "device": device})


@torch.inference_mode()
def seconds_of(
    executors: Mapping[str, Executor | ListExecutor], images: Tensor, fill: Tensor
) -> dict[str, float]:
    """Return how long each executor takes for all positions of images: the median of three.

    They take turns, after one run each that is not counted: kernels are compiled in it.
    """
    taken: dict[str, list[float]] = {name: [] for name in executors}
    for _ in range(1 + _ROUNDS):
        for name, executor in executors.items():
            _finish(images.device)
            start = time.perf_counter()
            base = executor.base(images)
            for _changes in executor.run(base, fill, range(executor.plan.bands)):
                pass
            _finish(images.device)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
