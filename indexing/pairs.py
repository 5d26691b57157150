"""Exact distances of given pairs, computed from the stored values in float64."""

from __future__ import annotations

import numpy as np
import torch

from fc7.indexing import arrays
from fc7.indexing.arrays import ArrayLike, Float32, Int64, as_tensor

# Cosine distances below the rounding of float64 itself: parallel vectors.
PARALLEL = 1e-14
# What a core's second-level cache holds: pairs are worked on in pieces of this size.
CACHE_BYTES = 1 << 20

Pairs = tuple[Int64, Int64, Float32]
"""Query numbers, row numbers and distances, each (P,)."""


def pair_distances(x: torch.Tensor, y: torch.Tensor, cosine: bool) -> torch.Tensor:
    """Distances between matching rows in float64, broadcasting, (..., D) -> (...).

    The cosine distance is half the squared distance of the unit vectors, which keeps its digits
    where 1 - cos would lose them. A zero vector has no direction: its cosine with anything is 0.
    """
    if not cosine:
        distances: torch.Tensor = torch.linalg.vector_norm(x - y, dim=-1)
        return distances
    x_norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    y_norm = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    x_scale = 1 / torch.where(x_norm > 0, x_norm, 1)
    y_scale = 1 / torch.where(y_norm > 0, y_norm, 1)
    unit = torch.sub(x * x_scale, y * y_scale)
    half = torch.linalg.vector_norm(unit, dim=-1).square() / 2
    half = torch.where(half < PARALLEL, 0.0, half)
    return torch.where((x_norm * y_norm)[..., 0] > 0, half, 1.0)


def exact_distances(vectors: ArrayLike, queries: Float32, ids: Int64, cosine: bool) -> Float32:
    """Distances of the rows `ids` (Q, m) to their queries (Q, D): (Q, m) float32."""
    if type(vectors) is not np.ndarray:
        query = np.repeat(np.arange(len(ids)), ids.shape[1])
        return distances_of_pairs(vectors, queries, query, ids.ravel(), cosine).reshape(ids.shape)
    out = np.empty(ids.shape, np.float32)
    step = max(1, CACHE_BYTES // (8 * queries.shape[1] * ids.shape[1]))
    rows, x = as_tensor(vectors), as_tensor(queries)
    for start, stop in arrays.spans(len(ids), step):
        y = rows[as_tensor(ids[start:stop])].double()
        out[start:stop] = pair_distances(x[start:stop, None].double(), y, cosine).numpy()
    return out


def distances_of_pairs(
    vectors: ArrayLike, queries: Float32, query: Int64, ids: Int64, cosine: bool
) -> Float32:
    """Distances (P,) of queries[query] to rows `ids`, read in ascending row order.

    A file is so crossed once from front to back, whatever the order of the pairs.
    """
    out = np.empty(len(ids), np.float32)
    order = np.argsort(ids, kind="stable")
    for start, stop in arrays.spans(len(ids), max(1, CACHE_BYTES // (2 * queries.shape[1]))):
        pairs = order[start:stop]
        x = torch.from_numpy(queries[query[pairs]]).double()
        y = as_tensor(arrays.take(vectors, ids[pairs])).double()
        out[pairs] = pair_distances(x, y, cosine).numpy()
    return out


def nearest_of_pairs(best: Pairs, more: Pairs, k: int) -> Pairs:
    """Merge two lists of pairs; keep each query's k nearest, by query, distance and row."""
    query = np.concatenate([best[0], more[0]])
    ids = np.concatenate([best[1], more[1]])
    distances = np.concatenate([best[2], more[2]])
    order = np.lexsort((ids, distances, query))
    query, ids, distances = query[order], ids[order], distances[order]
    # How far each pair stands behind the first of its query.
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    keep = rank < k
    return query[keep], ids[keep], distances[keep]
