"""Exact nearest neighbours over vectors that may not fit in memory.

Every search runs in three steps. (1) Blocks of the vectors are scanned in float32 for a few more
candidates than asked for. (2) The candidates' distances are computed again from the stored values,
as differences in float64, and sorted. (3) A bound on the rounding error of step 1 tells whether a
row that was not fetched could still belong; the queries that cannot be certified are scanned once
more for every row within the bound. The answer is therefore exact however close the rows lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from fc7.indexing import arrays, scan
from fc7.indexing.arrays import ArrayLike, Float32, Float64, Int64, as_tensor
from fc7.indexing.errors import IndexingError
from fc7.indexing.pairs import Pairs, distances_of_pairs, exact_distances, nearest_of_pairs

# Vectors whose mean is this much larger than their spread (both squared) are shifted by it before
# the scan: the distances stay, the cancellation goes.
SHIFT_ABOVE = 4.0


@dataclass(frozen=True)
class Neighbors:
    """The k nearest rows of each query, nearest first.

    ids: (Q, k) int64 row numbers. distances: (Q, k) float32: L2 (not squared), or 1 - cos in
    [0, 2]. Rows at the same distance, compared as float32, stand in order of their ids.
    """

    ids: Int64
    distances: Float32


def check_metric(metric: str) -> None:
    """Raise IndexingError unless the metric is known."""
    if metric not in ("l2", "cosine"):
        raise IndexingError(f"metric {metric!r} is not known; choose 'l2' or 'cosine'")


def extra_candidates(k: int) -> int:
    """How many more candidates than k are fetched, so that rounding rarely costs a second scan."""
    return max(4, k // 4)


def unit_rows(block: Float32) -> Float32:
    """Divide rows by their L2 norm, (B, D) -> (B, D); zero rows stay zero."""
    norms = np.sqrt(np.einsum("bd,bd->b", block, block))[:, None]
    return np.divide(block, np.where(norms > 0, norms, 1), dtype=np.float32)


class Database:
    """Vectors (N, D) made ready for exact search.

    One pass checks every value and decides about the shift; a `shift` (D,) found before spares the
    pass. With `resident`, rows that would have
    to be converted at each search (float16, unit length, shifted, or stored in pieces) are
    converted once and kept when they fit in `memory_bytes`; float32 arrays are used in place.
    """

    def __init__(
        self,
        vectors: ArrayLike,
        metric: str,
        memory_bytes: int,
        resident: bool = False,
        shift: Float32 | None = None,
    ) -> None:
        self.n, self.d = arrays.check_vectors(vectors)
        check_metric(metric)
        self.vectors, self.cosine = vectors, metric == "cosine"
        self.tile_rows = arrays.rows_in(memory_bytes // 4, 4 * self.d)
        self.shift = self._survey() if shift is None else shift
        self._kept: Float32 | None = None
        self._norms: dict[int, Float32] = {}
        self._resident = resident
        if resident and (self._in_place() or 4 * self.n * self.d <= memory_bytes):
            self._kept = self._prepared(0, self.n)
            self.tile_rows = self.n

    def _survey(self) -> Float32:
        """Check all values; return the mean (D,) where it dwarfs the spread, else zeros."""
        total, squares = np.zeros(self.d), 0.0
        for start, stop in arrays.spans(self.n, self.tile_rows):
            block = arrays.read(self.vectors, start, stop)
            squares += float(arrays.check_finite(block, start).sum())
            total += block.sum(axis=0, dtype=np.float64)
        mean = total / self.n
        offset = float(mean @ mean)
        spread = squares / self.n - offset
        keep = not self.cosine and offset > SHIFT_ABOVE * spread
        return (mean if keep else np.zeros(self.d)).astype(np.float32)

    def _in_place(self) -> bool:
        return (
            not self.cosine
            and not self.shift.any()
            and isinstance(self.vectors, np.ndarray)
            and self.vectors.dtype == np.float32
            and self.vectors.flags.c_contiguous
        )

    def prepare(self, rows: Float32) -> Float32:
        """Move rows into the space that is scanned: shifted, or of unit length."""
        if self.cosine:
            return unit_rows(rows)
        return rows - self.shift if self.shift.any() else rows

    def _prepared(self, start: int, stop: int) -> Float32:
        if self._in_place():
            return arrays.read(self.vectors, start, stop)
        out = np.empty((stop - start, self.d), np.float32)
        # In pieces: the conversion never holds a second copy of a large tile.
        for low, high in arrays.spans(stop - start, arrays.rows_in(1 << 25, 4 * self.d)):
            out[low:high] = self.prepare(arrays.read(self.vectors, start + low, start + high))
        return out

    def tiles(self) -> Iterator[tuple[int, Float32, Float32 | None]]:
        """Yield (first row, prepared rows, their squared norms where they are kept)."""
        for start, stop in arrays.spans(self.n, self.tile_rows):
            rows = self._kept if self._kept is not None else self._prepared(start, stop)
            if self._resident and not self.cosine and start not in self._norms:
                self._norms[start] = np.einsum("bd,bd->b", rows, rows)
            yield start, rows, self._norms.get(start)

    def candidates(self, points: Float32, m: int) -> tuple[Float32, Int64]:
        """Return float32 costs and row numbers (Q, m) of the rows cheapest for prepared points."""
        best: tuple[Float32, Int64] | None = None
        for start, rows, norms in self.tiles():
            costs, places = scan.cheapest(points, rows, m, self.cosine, norms)
            best = scan.merge(best, (costs, places + start), m)
        assert best is not None
        return best

    def search(self, queries: Float32, k: int, itself: Int64 | None = None) -> Neighbors:
        """Return the k nearest rows of finite float32 queries (Q, D).

        `itself` (Q,) int64 names, for each query, the row that must not be returned.
        """
        points = self.prepare(queries)
        wanted = k + (itself is not None)
        fetched = min(self.n, wanted + extra_candidates(wanted))
        costs, ids = self.candidates(points, fetched)
        distances = exact_distances(self.vectors, queries, ids, self.cosine)
        if itself is not None:
            distances[ids == itself[:, None]] = np.inf
        order = np.lexsort((ids, distances), axis=1)[:, :k]
        found = Neighbors(
            np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1)
        )
        if fetched == self.n:
            return found
        # The last k-th distance is an upper bound of the true one, so rows dearer than `limit`
        # cannot belong; were any cheaper row left out, the last one fetched would be below it.
        limit = self._limit(points, found.distances[:, -1])
        doubtful = np.flatnonzero(costs[:, -1] <= limit)
        if doubtful.size:
            self._search_within(queries, points, limit, doubtful, found, itself)
        return found

    def _limit(self, points: Float32, kth: Float32) -> Float64:
        """Return the cost (Q,) above which no row can be as near as the k-th found, `kth`."""
        bound = scan.error_bound(self.d)
        kth64 = np.nextafter(kth, np.float32(np.inf)).astype(np.float64)
        if self.cosine:
            return kth64 + 2 * bound
        norms = np.sqrt(np.einsum("qd,qd->q", points, points, dtype=np.float64))
        # A row that near has a norm of at most ||x|| + kth.
        return np.asarray(kth64**2 + bound * (norms**2 + (norms + kth64) ** 2))

    def _search_within(
        self,
        queries: Float32,
        points: Float32,
        limit: Float64,
        doubtful: Int64,
        found: Neighbors,
        itself: Int64 | None,
    ) -> None:
        """Search again, for the doubtful queries, among every row that costs at most `limit`.

        Ties, duplicates and tight clusters end here. Equal queries are searched once, with one
        row to spare, and each drops its own row afterwards.
        """
        k = found.ids.shape[1]
        first, group = first_of_equals(queries[doubtful])
        one = doubtful[first]
        highest = np.full(len(one), -np.inf)
        np.maximum.at(highest, group, limit[doubtful])
        wanted = k + (itself is not None)
        best: Pairs = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        for start, rows, norms in self.tiles():
            for query, near in self._rows_within(points[one], rows, norms, highest):
                pair_ids = near + start
                distances = distances_of_pairs(
                    self.vectors, queries[one], query, pair_ids, self.cosine
                )
                best = nearest_of_pairs(best, (query, pair_ids, distances), wanted)
        query, ids, distances = best
        begin = np.searchsorted(query, np.arange(len(one) + 1))
        for row, which in zip(doubtful, group, strict=True):
            mine = slice(begin[which], begin[which + 1])
            keep = np.ones(mine.stop - mine.start, bool)
            if itself is not None:
                keep = ids[mine] != itself[row]
            found.ids[row] = ids[mine][keep][:k]
            found.distances[row] = distances[mine][keep][:k]

    def _rows_within(
        self, points: Float32, rows: Float32, norms: Float32 | None, highest: Float64
    ) -> Iterator[tuple[Int64, Int64]]:
        """Yield (query, place) pairs of the rows of one tile that cost at most `highest` (Q,)."""
        y, x = as_tensor(rows), as_tensor(points)
        step = max(1, scan.COST_MATRIX_ELEMENTS // len(rows))
        for start, stop in arrays.spans(len(points), step):
            with scan.full_float32():
                squared = None if norms is None else as_tensor(norms)
                costs = scan.cost_matrix(x[start:stop], y, self.cosine, squared)
            pairs = torch.nonzero(costs <= as_tensor(highest[start:stop])[:, None]).numpy()
            yield pairs[:, 0] + start, pairs[:, 1]


def first_of_equals(rows: Float32) -> tuple[Int64, Int64]:
    """Return the place of the first of each set of equal rows, and each row's set number."""
    number: dict[bytes, int] = {}
    first: list[int] = []
    group = np.empty(len(rows), np.int64)
    for place, row in enumerate(rows):
        key = row.tobytes()
        if key not in number:
            number[key] = len(first)
            first.append(place)
        group[place] = number[key]
    return np.array(first, np.int64), group
