"""Random numbers that a row draws for itself: the same wherever and with whomever it is computed.

A row's numbers are a pure function of its seed, its step, what they are for and, within a chain of
transforms, which of them asks. They are Philox4x64-10's (Salmon et al., 2011, "Parallel random
numbers: as easy as 1, 2, 3"), as numpy makes them: the key is (seed, step), the counter's highest
word the purpose and the next the place in the chain, so that no two streams overlap.

numpy promises the raw words of a bit generator for all versions, and not what
`Generator.standard_normal` makes of them (NEP 19). So words become numbers here. Uniform numbers
are exact. Normal ones are Box and Muller's (1958) in float64: log, cos and sin may differ by the
last bit of a float64 between processors, which the rounding to float32 hides but for about one
number in 10^8.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PLACES = 64


class Purpose(IntEnum):
    """What numbers are for. The values are part of what a seed means: never change them."""

    START = 0
    JITTER = 1
    SCALE = 2
    ROTATION = 3
    NOISE = 4
    TARGET = 5


@dataclass(frozen=True, eq=False)
class Keys:
    """What the random numbers of N rows depend on.

    Attributes:
        seeds: (N,) int64.
        steps: (N,) int64, how many steps each row has made.
        place: in a chain of transforms, so that two of a kind draw different numbers.

    Raises:
        ValueError: the arrays have another shape or dtype.
    """

    seeds: NDArray[np.int64]
    steps: NDArray[np.int64]
    place: int = 0

    def __post_init__(self) -> None:
        for name, numbers in (("seeds", self.seeds), ("steps", self.steps)):
            if numbers.dtype != np.int64 or numbers.shape != (len(self.seeds),):
                raise ValueError(
                    f"expected {name} (N,) int64, one a row, not {numbers.dtype} {numbers.shape}"
                )

    def __len__(self) -> int:
        return len(self.seeds)

    def within(self, place: int) -> Self:
        """Return the keys for one of a chain's members, 0 to 62; chains may lie in chains."""
        if not 0 <= place < _PLACES - 1:
            raise ValueError(f"place {place} in a chain; there are 0 to {_PLACES - 2}")
        return replace(self, place=self.place * _PLACES + place + 1)


def uniform(keys: Keys, purpose: Purpose, shape: Sequence[int]) -> Tensor:
    """Return multiples of 2^-24 in [0, 1), (N, *shape) float32, on the CPU."""
    count = int(np.prod(shape, dtype=np.int64))
    rows = np.empty((len(keys), count), dtype=np.float32)
    for row, words in zip(rows, _words(keys, purpose, -(-count // 2)), strict=True):
        # The upper 24 bits of each half of a word: as many as a float32 holds.
        row[:] = words.astype("<u8").view("<u4")[:count] >> 8
    rows *= np.float32(2**-24)
    return torch.from_numpy(rows).view(len(keys), *shape)


def normal(keys: Keys, purpose: Purpose, shape: Sequence[int]) -> Tensor:
    """Return numbers of mean 0 and variance 1, (N, *shape) float32, on the CPU."""
    count = int(np.prod(shape, dtype=np.int64))
    pairs = -(-count // 2)
    rows = np.empty((len(keys), count), dtype=np.float32)
    for row, words in zip(rows, _words(keys, purpose, 2 * pairs), strict=True):
        # In (0, 1], of which the logarithm is finite.
        shares = ((words >> np.uint64(11)) + np.uint64(1)) * 2.0**-53
        radius, angle = np.sqrt(-2 * np.log(shares[0::2])), 2 * np.pi * shares[1::2]
        both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        row[:] = both.reshape(-1)[:count]
    return torch.from_numpy(rows).view(len(keys), *shape)


def integers(keys: Keys, purpose: Purpose, count: int, below: int) -> Tensor:
    """Return whole numbers in [0, below), (N, count) int64, on the CPU; below is at most 2^16."""
    if not 1 <= below <= 2**16:
        raise ValueError(f"whole numbers below {below}; the bound is 1 to 65,536")
    return (uniform(keys, purpose, (count,)).double() * below).long()


def _words(keys: Keys, purpose: Purpose, count: int) -> Iterator[NDArray[np.uint64]]:
    """Yield the first `count` words of each row's stream."""
    philox = np.random.Philox(key=[0, 0])
    # Setting the state of one takes a sixth of the time of making another.
    state = philox.state
    seeds, steps = keys.seeds.view(np.uint64), keys.steps.view(np.uint64)
    for seed, step in zip(seeds, steps, strict=True):
        state["state"]["key"][:] = (seed, step)
        state["state"]["counter"][:] = (0, 0, keys.place, purpose)
        philox.state = state
        yield philox.random_raw(count)
