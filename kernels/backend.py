"""Which path a call takes: Triton on an NVIDIA GPU, and in Triton's interpreter; else torch.

Kernels import `tl` and `triton` from here, so that they can be defined where Triton is not
installed: there every call takes the torch path.

With `TRITON_INTERPRET=1` in the environment, before the first import, Triton runs its kernels on
the CPU, element by element. That is how the tests prove them where there is no GPU.
"""

import os
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "ALL_REGISTERS",
    "HAS_TRITON",
    "INTERPRETED",
    "IN_INTERPRETER",
    "OLDEST_CAPABILITY",
    "multiprocessors",
    "tl",
    "triton",
    "uses_triton",
]

try:
    import triton
    import triton.language as tl
except ImportError:  # a CPU build of torch, or an operating system that Triton does not serve
    triton = SimpleNamespace(jit=lambda function: function)
    tl = SimpleNamespace(constexpr=Any)
    HAS_TRITON = False
else:
    HAS_TRITON = True

INTERPRETED = HAS_TRITON and os.environ.get("TRITON_INTERPRET", "0") == "1"
OLDEST_CAPABILITY = (8, 0)  # sm_80: asynchronous copies, and bf16 and tf32 on tensor cores

# Of a thread: left to itself, ptxas spills one or two to fit another block on a multiprocessor.
ALL_REGISTERS = 255

# The same as a Triton constant: numpy, which the interpreter computes with, has no bf16, so a
# kernel widens what it loads before it computes.
IN_INTERPRETER = tl.constexpr(INTERPRETED) if HAS_TRITON else INTERPRETED


def uses_triton(*tensors: Tensor) -> bool:
    """Say whether a call on these tensors takes the Triton path."""
    if not HAS_TRITON:
        return False
    if INTERPRETED:
        return all(tensor.device.type == "cpu" for tensor in tensors)
    if torch.version.cuda is None or not all(tensor.is_cuda for tensor in tensors):
        return False
    return all(_capability(tensor.device.index) >= OLDEST_CAPABILITY for tensor in tensors)


@cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors the GPU has; an H100's 132 where there is none to ask."""
    return _multiprocessors(device.index) if device.type == "cuda" else 132


@cache
def _multiprocessors(index: int) -> int:
    return int(torch.cuda.get_device_properties(index).multi_processor_count)
