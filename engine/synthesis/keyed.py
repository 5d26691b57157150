"""Random numbers of a row: a function of seed, row and step, and of nothing else.

Philox (Salmon et al., 2011) is a function from a key and a counter to numbers, so that a row's are
the same in any company, at any place of a batch, and after a stop.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def uniform(seed: int, rows: Sequence[int], steps: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return numbers in [0, 1), (len(rows), *shape) float32, on the CPU.

    Args:
        seed: from 0 to 2**64 - 1.
        rows: their numbers.
        steps: of each row.
        shape: of a row's numbers.
    """
    numbers = [
        generator(seed, row, step).random(tuple(shape), dtype=np.float32)
        for row, step in zip(rows, steps, strict=True)
    ]
    return torch.from_numpy(np.stack(numbers))


def normal(seed: int, rows: Sequence[int], steps: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return standard normal numbers; arguments and shape are those of `uniform`."""
    numbers = [
        generator(seed, row, step).standard_normal(tuple(shape), dtype=np.float32)
        for row, step in zip(rows, steps, strict=True)
    ]
    return torch.from_numpy(np.stack(numbers))


def generator(seed: int, row: int, step: int) -> np.random.Generator:
    """Return numpy's generator that starts at a row's step."""
    key = np.array([seed, row], dtype=np.uint64)
    counter = np.array([0, 0, 0, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
