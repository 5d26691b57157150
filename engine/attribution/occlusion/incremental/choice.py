"""Which executor runs a plan: on a GPU the one that is measured to be faster, on these images."""

import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fc7.engine.attribution.occlusion.incremental.base import Base
from fc7.engine.attribution.occlusion.incremental.executor import Executor
from fc7.engine.attribution.occlusion.incremental.lists import ListExecutor
from fc7.engine.attribution.occlusion.incremental.plan import Plan
from fc7.kernels import backend

_ROUNDS = 3
WINDOWS, LISTS = "windows", "lists"  # what the record calls `Executor` and `ListExecutor`


class Choice(NamedTuple):
    """An executor, and why it was taken.

    Attributes:
        executor: the one to use.
        record: {"chosen": "windows" or "lists"} and either {"reason": why nothing was measured} or
            {"seconds": {name: median of three runs, null where the GPU's memory did not hold it},
            "device": the GPU's name}; ready for JSON.
    """

    executor: Executor | ListExecutor
    record: dict[str, Any]


def fastest(plan: Plan, base: Base, fill: Tensor) -> Choice:
    """Return the executor that runs a plan faster.

    On a GPU with Triton both run on the images, if both can; elsewhere nothing is measured, and
    `Executor`, which is made for a CPU's cache, is taken.

    Args:
        plan: what to run.
        base: as many images as will run together, where the network is.
        fill: (3,), what covers.

    Raises:
        torch.OutOfMemoryError: the GPU's memory holds neither.
    """
    reason, images = None, base.output
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
    seconds = seconds_of(both, base, fill)
    done = {name: each for name, each in seconds.items() if each is not None}
    if not done:
        raise torch.OutOfMemoryError(
            f"{base.images} images at once do not fit in the GPU's memory; ask for fewer in a batch"
        )
    chosen = min(done, key=done.__getitem__)
    device = torch.cuda.get_device_name(images.device)
    return Choice(both[chosen], {"chosen": chosen, "seconds": seconds, "device": device})


@torch.inference_mode()
def seconds_of(
    executors: Mapping[str, Executor | ListExecutor], base: Base, fill: Tensor
) -> dict[str, float | None]:
    """Return how long each executor takes for all positions of images: the median of three.

    They take turns, after one run each that is not counted: kernels are compiled in it. None
    stands for one that the memory does not hold.
    """
    taken: dict[str, list[float]] = {name: [] for name in executors}
    failed = set()
    for _ in range(1 + _ROUNDS):
        for name, executor in executors.items():
            if name in failed:
                continue
            try:
                taken[name].append(_seconds(executor, base, fill))
            except torch.OutOfMemoryError:
                failed.add(name)
                torch.cuda.empty_cache()
    return {
        name: None if name in failed else statistics.median(times[1:])
        for name, times in taken.items()
    }


def _seconds(executor: Executor | ListExecutor, base: Base, fill: Tensor) -> float:
    device = base.output.device
    _finish(device)
    start = time.perf_counter()
    for _changes in executor.run(base, fill, range(executor.plan.bands)):
        pass
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
