"""How much an approximate index must look at to find what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from fc7.indexing import arrays
from fc7.indexing.arrays import Float32, Int64
from fc7.indexing.exact import Database

SAMPLE = 128
NEIGHBORS = 10


def recall_of(found: Int64, true: Int64) -> float:
    """Mean share of the true ids (Q, k) among those found (Q, m)."""
    hits = (true[:, :, None] == found[:, None, :]).any(axis=2)
    return float(hits.mean())


def least_effort(
    database: Database,
    search: Callable[[Float32, int, int], Int64],
    efforts: Iterable[int],
    recall: float,
    seed: int,
) -> tuple[int, float]:
    """Return the first effort whose recall@10 on a sample of rows is enough, or the last one.

    search(queries, k, effort) returns ids (Q, k). Sampled rows do not count as their own
    neighbours. The second value is the recall measured, in [0, 1].
    """
    k = min(NEIGHBORS, database.n - 1)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(database.n, min(SAMPLE, database.n), replace=False))
    queries = arrays.take(database.vectors, rows).astype(np.float32)
    true = database.search(queries, k, itself=rows).ids
    effort, measured = 0, 0.0
    for effort in efforts:
        measured = recall_of(search(queries, k + 1, effort), true)
        if measured >= recall:
            break
    return effort, measured
