# ruff: noqa: N803 (Triton's constants are in capitals)
"""The running top-k: the strongest so far, merged with new candidates.

Larger values come first; equal values keep the smaller id first, so the outcome depends on the
candidates alone and not on how they were cut into parts. NaN counts as minus infinity: a broken
image must not become every channel's favourite.

On a GPU one program holds a channel's candidates in registers and takes K times the largest value,
and among its equals the smallest id. That is exact for ids of 63 bits, which leave no room in a
64-bit key for a value, as a sort of keys would need; it costs K passes over registers, where a sort
of M costs log^2 M. On a CPU the K-th largest value is found first, which costs a tenth of a sort;
only what is not below it is sorted.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.backend import tl, triton

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOST_ROUNDS = 64  # the largest K of the Triton kernel: beyond it a sort is the better choice
_AT_ONCE = 4096  # candidates that a Triton program holds, 16 a thread
# Candidates that a CPU looks at together: they fit a cache, and torch, which would have its threads
# wait for each other after every pass, shares out no fewer among them.
_SHARED = 1 << 15
_NO_ID = np.iinfo(np.int64).max  # where an empty place stands in the order of ids


def merge_topk(
    values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Merge the top k of each channel with M new candidates.

    Args:
        values: (C, K) floating, the top so far; minus infinity where there is none.
        ids: (C, K) int64, what each value belongs to; -1 where there is none.
        new_values: (C, M), the same dtype; strides are free, as for all four.
        new_ids: (C, M) int64 of 0 to 2^63 - 3, all different and none of them in `ids`; -1 where
            there is no candidate.

    Returns:
        values (C, K) and ids (C, K), in descending order, ties by ascending id, empty places last.

    Raises:
        ValueError: the shapes do not fit each other.
        TypeError: the dtypes do not.
    """
    if values.shape != ids.shape or new_values.shape != new_ids.shape:
        raise ValueError(
            f"values {tuple(values.shape)} and ids {tuple(ids.shape)}, new values "
            f"{tuple(new_values.shape)} and new ids {tuple(new_ids.shape)} must agree"
        )
    if values.ndim != 2 or new_values.ndim != 2 or values.shape[0] != new_values.shape[0]:
        raise ValueError(f"{tuple(new_values.shape)} cannot be merged into {tuple(values.shape)}")
    if values.dtype not in _DTYPES or new_values.dtype != values.dtype:
        raise TypeError(f"values {values.dtype} and new values {new_values.dtype} must agree")
    if ids.dtype != torch.int64 or new_ids.dtype != torch.int64:
        raise TypeError(f"expected ids in torch.int64, got {ids.dtype} and {new_ids.dtype}")
    result: tuple[Tensor, Tensor] = _merge_topk(values, ids, new_values, new_ids)
    return result


def empty_topk(channels: int, k: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return the top k of nothing: values (C, K) of minus infinity and ids (C, K) of -1."""
    values = torch.full((channels, k), -torch.inf, dtype=dtype)
    return values, torch.full((channels, k), -1, dtype=torch.int64)


@torch.library.custom_op("fc7::merge_topk", mutates_args=())
def _merge_topk(
    values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor
) -> tuple[Tensor, Tensor]:
    candidates = (values.detach(), ids, new_values.detach(), new_ids)
    if values.numel() == 0:
        return torch.empty_like(values), torch.empty_like(ids)
    if backend.uses_triton(*candidates) and values.shape[1] <= _MOST_ROUNDS:
        return _merge_topk_triton(*candidates)
    if values.device.type == "cpu":
        return _merge_topk_cpu(*candidates)
    return _merge_topk_torch(*candidates)


@_merge_topk.register_fake
def _(values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor) -> tuple[Tensor, Tensor]:
    return values.new_empty(values.shape), ids.new_empty(ids.shape)


def _merge_topk_torch(
    values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Where there is no Triton, or K is large: two stable sorts."""
    all_values, all_ids = torch.cat([values, new_values], 1), torch.cat([ids, new_ids], 1)
    all_values = torch.where(all_values.isnan(), -torch.inf, all_values)
    by_id = torch.where(all_ids < 0, _NO_ID, all_ids).argsort(dim=1, stable=True)
    all_values, all_ids = all_values.gather(1, by_id), all_ids.gather(1, by_id)
    best = all_values.argsort(dim=1, descending=True, stable=True)[:, : values.shape[1]]
    return all_values.gather(1, best), all_ids.gather(1, best)


def _merge_topk_cpu(
    values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor
) -> tuple[Tensor, Tensor]:
    few = max(1, _SHARED // (values.shape[1] + new_values.shape[1]))
    parts = zip(*(torch.split(of, few) for of in (values, ids, new_values, new_ids)), strict=True)
    tops, kept = zip(*(_merge_few(*part) for part in parts), strict=True)
    top, top_ids = torch.from_numpy(np.concatenate(tops)), torch.from_numpy(np.concatenate(kept))
    return top.to(values.dtype), top_ids


def _merge_few(
    values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    k = values.shape[1]
    if new_values.shape[1] > k:
        places = torch.from_numpy(_strongest(new_values, new_ids, k))
        new_values, new_ids = new_values.gather(1, places), new_ids.gather(1, places)
    few = _widened(torch.cat([values, new_values], 1))
    few_ids = torch.cat([ids, new_ids], 1).numpy()
    best = np.lexsort((_in_order(few_ids), -few), axis=1)[:, :k]
    return np.take_along_axis(few, best, axis=1), np.take_along_axis(few_ids, best, axis=1)


def _strongest(values: Tensor, ids: Tensor, k: int) -> NDArray[np.int64]:
    """Return the places (C, K) of the K largest of (C, M), M > K, in any order."""
    count = values.shape[1]
    rows = _widened(values)
    threshold = np.partition(rows, count - k, axis=1)[:, count - k, None]
    keep = rows >= threshold
    crowded = np.flatnonzero(np.count_nonzero(keep, axis=1) > k)
    if len(crowded):
        row_ids = ids.numpy()[crowded]
        keep[crowded] = _smallest_ids(rows[crowded], threshold[crowded], row_ids, k)
    return (np.flatnonzero(keep) % count).reshape(-1, k)


def _smallest_ids(
    rows: NDArray[np.floating], threshold: NDArray[np.floating], ids: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Mark k places of each row: all above the threshold, and of those at it the smallest ids."""
    keep = rows > threshold
    order = np.where(rows == threshold, np.minimum(_in_order(ids), _NO_ID - 1), _NO_ID)
    first = np.argpartition(order, k - 1, axis=1)[:, :k]
    by_id = np.argsort(np.take_along_axis(order, first, axis=1), axis=1)
    first = np.take_along_axis(first, by_id, axis=1)
    taken = np.arange(k) < k - np.count_nonzero(keep, axis=1)[:, None]
    keep[np.nonzero(taken)[0], first[taken]] = True
    return keep


def _widened(values: Tensor) -> NDArray[np.floating]:
    """Return a copy that numpy can compare, row by row in memory, with NaN as minus infinity."""
    if values.stride(0) < values.stride(1):
        # Columns of a large matrix: copied as they lie, they are turned in the cache.
        values = values.mT.contiguous().mT
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    rows = values.clone(memory_format=torch.contiguous_format).to(wide)
    return rows.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).numpy()


def _in_order(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(ids < 0, _NO_ID, ids)


def _merge_topk_triton(
    values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor
) -> tuple[Tensor, Tensor]:
    channels, k = values.shape
    count = new_values.shape[1]
    at_once = min(count, _AT_ONCE - k)
    block = max(32, triton.next_power_of_2(k + at_once))
    for start in range(0, max(1, count), max(1, at_once)):
        merged, merged_ids = values.new_empty((channels, k)), ids.new_empty((channels, k))
        part = slice(start, start + at_once)
        _merge_topk_kernel[(channels,)](
            *(values, ids, new_values[:, part], new_ids[:, part], merged, merged_ids),
            *(k, min(at_once, count - start)),
            *(*values.stride(), *ids.stride(), *new_values.stride(), *new_ids.stride()),
            BLOCK=block,
            num_warps=min(8, max(1, block // 256)),
            maxnreg=backend.ALL_REGISTERS,
        )
        values, ids = merged, merged_ids
    return values, ids


@triton.jit
def _merge_topk_kernel(
    values,
    ids,
    new_values,
    new_ids,
    merged,
    merged_ids,
    k,
    count,
    value_channel,
    value_place,
    id_channel,
    id_place,
    new_value_channel,
    new_value_place,
    new_id_channel,
    new_id_place,
    BLOCK: tl.constexpr,
):
    """Merge one channel: the old candidates' lanes come before those of the new."""
    NO_ID: tl.constexpr = 0x7FFFFFFFFFFFFFFF  # noqa: N806
    channel = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK).to(tl.int64)
    place = lane - k
    old, new = place < 0, (place >= 0) & (place < count)
    values += channel * value_channel
    ids += channel * id_channel
    new_values += channel * new_value_channel
    new_ids += channel * new_id_channel
    old_value = tl.load(values + lane * value_place, mask=old, other=float("-inf"))
    new_value = tl.load(new_values + place * new_value_place, mask=new, other=float("-inf"))
    old_id = tl.load(ids + lane * id_place, mask=old, other=-1)
    new_id = tl.load(new_ids + place * new_id_place, mask=new, other=-1)

    value = tl.where(old, _wide(old_value), _wide(new_value))
    value = tl.where(value != value, float("-inf"), value)
    identity = tl.where(old, old_id, new_id)
    identity = tl.where(identity < 0, NO_ID, identity)
    for rank in range(0, k):
        best = tl.max(value, axis=0)
        first = tl.min(tl.where(value == best, identity, NO_ID), axis=0)
        tl.store(merged + channel * k + rank, best)
        tl.store(merged_ids + channel * k + rank, tl.where(first == NO_ID, -1, first))
        # What has been taken becomes an empty place, which loses against every other.
        taken = (value == best) & (identity == first)
        value = tl.where(taken, float("-inf"), value)
        identity = tl.where(taken, NO_ID, identity)


@triton.jit
def _wide(value):
    return value if value.dtype == tl.float64 else value.to(tl.float32)


def topk_reference(
    values: NDArray[np.float64], ids: NDArray[np.int64], k: int
) -> tuple[list[list[float]], list[list[int]]]:
    """The definition: sort all candidates (C, M) of each channel by (-value, id), keep k."""
    kept = []
    for row, row_ids in zip(values.tolist(), ids.tolist(), strict=True):
        numbers = [-np.inf if np.isnan(value) else value for value in row]
        kept.append(sorted(zip(numbers, row_ids, strict=True), key=lambda p: (-p[0], p[1]))[:k])
    return [[v for v, _ in row] for row in kept], [[i for _, i in row] for row in kept]
