"""The kernels and their peers under pytest-benchmark.

    pytest bench/test_kernels.py -k 'gram-512x28-n8 and fp32'

An id names the case and who computes: `gram-512x28-n8-fp32-nchw-torch.bmm`. Every benchmark checks
our answer first, on fresh inputs. It reads the wall clock; `python -m fc7.bench.kernels` measures
the same cases by the clocks to compare by.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fc7.bench.kernel_cases import Case, cases
from fc7.bench.kernels import Drawn, check
from fc7.bench.roofline import matmul_precision

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DRAWN = Drawn(DEVICE)  # the inputs of one case at a time: a tensor of 1 GiB is among them


PARAMETERS = [
    pytest.param(case, who, id=f"{case.name}-{who}")
    for case in cases(DEVICE)
    for who in ("fc7", *case.peers)
]


def _in_turn(calls: list[Callable[[], Any]]) -> Callable[[], Any]:
    """Return a call that takes the next set of inputs each time, and waits for a GPU."""
    turn = 0

    def call() -> Any:
        nonlocal turn
        turn += 1
        answer = calls[turn % len(calls)]()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return answer

    return call


@pytest.mark.parametrize(("case", "who"), PARAMETERS)
def test_kernel(benchmark: Any, case: Case, who: str) -> None:
    """One contestant on one case."""
    with matmul_precision(case.precision):
        sets = DRAWN.sets(case)
        benchmark.extra_info["error"] = check(case, sets[0], DRAWN.seed)
        benchmark.extra_info["bytes"] = case.work.bytes
        benchmark.extra_info["operations"] = case.work.operations
        bind = case.ours if who == "fc7" else case.peers[who]
        benchmark(_in_turn([bind(*inputs) for inputs in sets]))
    gc.collect()
