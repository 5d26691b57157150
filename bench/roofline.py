"""How fast this machine could be at best: the floor below which no kernel's time can go.

A kernel must move some bytes (each input read once, each output written once) and do some
floating-point operations. Bytes over the rate of a large copy, and operations over the rate of a
large matrix product, are two times; the larger is the floor. Both rates are measured here, in the
same run and by the same clock as the kernels, on random data: zeros multiply faster.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fc7.bench.timing import events
from fc7.kernels.linear import linear

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
}
_MIB = 2**20


@dataclass(frozen=True)
class Work:
    """What a kernel cannot do without.

    Attributes:
        bytes: to be read and written at least.
        operations: floating-point additions and multiplications at least.
    """

    bytes: int
    operations: int = 0


@dataclass(frozen=True)
class Roofline:
    """What the machine was seen to do.

    Attributes:
        bytes_per_second: read and written by a large copy.
        operations_per_second: by a large matrix product, for each precision.
    """

    bytes_per_second: float
    operations_per_second: Mapping[str, float]

    def floor(self, work: Work, precision: str) -> float:
        """Return the fewest seconds that the work can take."""
        moving = work.bytes / self.bytes_per_second
        if not work.operations:
            return moving
        return max(moving, work.operations / self.operations_per_second[precision])


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Within it, float32 matrix products may use tf32 if that is the precision, else not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def measure_roofline(
    device: torch.device, precisions: Sequence[str], quick: bool = False
) -> Roofline:
    """Measure the copy and the matrix products.

    Args:
        device: of the kernels.
        precisions: among fp32, tf32 and bf16.
        quick: smaller ones; on a GPU they are too small to be the ceiling.
    """
    on_gpu = device.type == "cuda"
    size = (2048 if on_gpu else 256) * _MIB // (8 if quick else 1)
    side = (8192 if on_gpu else 2048) // (4 if quick else 1)
    copied = 2 * size / _best_seconds(device, _copy(torch.randn(size // 4, device=device)))
    rates = {}
    for precision in precisions:
        left, right = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in "ab")
        with matmul_precision(precision):
            seconds = min(_best_seconds(device, call) for call in _products(left, right))
        rates[precision] = 2 * side**3 / seconds
    return Roofline(copied, rates)


def _copy(source: Tensor) -> Callable[[], Tensor]:
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _products(left: Tensor, right: Tensor) -> list[Callable[[], Tensor]]:
    """Both libraries that torch has on a CPU: which is faster depends on the maker."""
    return [lambda: left @ right, lambda: linear(left, right)]


def _best_seconds(device: torch.device, call: Callable[[], Tensor], samples: int = 5) -> float:
    """Seconds of a call at best: CPU-seconds, or the GPU's own; several calls to a sample."""
    call()
    if device.type != "cuda":
        found = []
        for _ in range(samples):
            begin = time.process_time()
            call()
            found.append(time.process_time() - begin)
        return min(found)
    start, end = events()
    found = []
    for _ in range(samples):
        start.record()
        for _ in range(10):
            call()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 10_000)
    return min(found)
