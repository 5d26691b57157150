"""The running top-k: the strongest so far, merged with new candidates.

Larger values come first; equal values keep the smaller id first, so the outcome depends on the
candidates alone and not on how they were cut into parts. NaN counts as minus infinity: a broken
image must not become every channel's favourite.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def merge_topk(
    values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Merge the top k of each channel with M new candidates.

    Args:
        values: (C, K) floating, the top so far in order; minus infinity where there is none.
        ids: (C, K) int64, what each value belongs to; -1 where there is none.
        new_values: (C, M), the same dtype.
        new_ids: (C, M) int64, none of them in `ids`.

    Returns:
        values (C, K) and ids (C, K), in descending order, ties by ascending id.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if values.shape != ids.shape or new_values.shape != new_ids.shape:
        raise ValueError(
            f"values {tuple(values.shape)} and ids {tuple(ids.shape)}, new values "
            f"{tuple(new_values.shape)} and new ids {tuple(new_ids.shape)} must agree"
        )
    if values.ndim != 2 or values.shape[0] != new_values.shape[0]:
        raise ValueError(f"{tuple(new_values.shape)} cannot be merged into {tuple(values.shape)}")
    all_values = torch.cat([values, new_values], 1)
    all_ids = torch.cat([ids, new_ids], 1)
    all_values = torch.where(all_values.isnan(), -torch.inf, all_values)
    # An empty place, id -1, must lose against a real one that is minus infinity too.
    by_id = torch.where(all_ids < 0, torch.iinfo(torch.int64).max, all_ids).argsort(
        dim=1, stable=True
    )
    all_values, all_ids = all_values.gather(1, by_id), all_ids.gather(1, by_id)
    best = all_values.argsort(dim=1, descending=True, stable=True)[:, : values.shape[1]]
    return all_values.gather(1, best), all_ids.gather(1, best)


def empty_topk(channels: int, k: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return the top k of nothing: values (C, K) of minus infinity and ids (C, K) of -1."""
    values = torch.full((channels, k), -torch.inf, dtype=dtype)
    return values, torch.full((channels, k), -1, dtype=torch.int64)


def topk_reference(
    values: NDArray[np.float64], ids: NDArray[np.int64], k: int
) -> tuple[list[list[float]], list[list[int]]]:
    """The definition: sort all candidates (C, M) of each channel by (-value, id), keep k."""
    kept = []
    for row, row_ids in zip(values.tolist(), ids.tolist(), strict=True):
        numbers = [-np.inf if np.isnan(value) else value for value in row]
        kept.append(sorted(zip(numbers, row_ids, strict=True), key=lambda p: (-p[0], p[1]))[:k])
    return [[v for v, _ in row] for row in kept], [[i for _, i in row] for row in kept]
