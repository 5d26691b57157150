"""The exact graph of all nearest neighbours, for data sets larger than memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fc7.indexing import arrays
from fc7.indexing.arrays import ArrayLike
from fc7.indexing.errors import IndexingError
from fc7.indexing.exact import Database, Neighbors

__all__ = ["Neighbors", "all_neighbors"]

DEFAULT_MEMORY_BYTES = 2 << 30


def all_neighbors(
    vectors: ArrayLike,
    k: int,
    metric: str = "l2",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Neighbors:
    """Return the k nearest other rows of every row, exactly.

    vectors: (N, D) array-like, float16 or float32, read in tiles. metric: "l2" gives true L2
    distances, "cosine" gives 1 - cos; a zero vector has cosine 0 with every row, so distance 1.
    A row is left out of its own list by its number: other rows equal to it are kept, at distance 0.
    Rows at the same distance (as float32) are listed by ascending id.

    memory_bytes bounds the working set: half of it holds a tile of queries, a quarter a tile of
    the data, so the data are read about 8 N D / memory_bytes + 2 times. The answer, N k (8 + 4)
    bytes, comes on top. progress is called with (rows done, N) after each tile of queries.

    Raises IndexingError for k >= N, for a wrong shape, dtype or metric, and for rows with NaN or
    infinite values, which it names.
    """
    n, d = arrays.check_vectors(vectors)
    if not 1 <= k < n:
        raise IndexingError(
            f"k is {k}, but each of {n} rows has only {n - 1} others: ask for 1 to {max(1, n - 1)}"
        )
    database = Database(vectors, metric, memory_bytes)
    ids = np.empty((n, k), np.int64)
    distances = np.empty((n, k), np.float32)
    for start, stop in arrays.spans(n, arrays.rows_in(memory_bytes // 2, 4 * d)):
        queries = arrays.read(vectors, start, stop)
        found = database.search(queries, k, itself=np.arange(start, stop))
        ids[start:stop], distances[start:stop] = found.ids, found.distances
        if progress is not None:
            progress(stop, n)
    return Neighbors(ids, distances)
