"""Search among principal components, then re-rank from the vectors themselves.

The components (float32, a few hundred) are scanned exactly; the best `effort` x k rows are then
sorted by their true distances. On clustered features the answer is the exact one almost always,
at the cost of reading D / d times less.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fc7.indexing import calibrate
from fc7.indexing.arrays import ArrayLike, Float32, Int64
from fc7.indexing.base import Header, Index
from fc7.indexing.errors import IndexingError
from fc7.indexing.exact import Database, Neighbors, unit_rows
from fc7.indexing.pairs import exact_distances
from fc7.indexing.principal import Pca, pca

EFFORTS = (2, 4, 8, 16, 32, 64)
FILES = ("reduced", "mean", "components")


class UnitRows:
    """Array-like whose rows are those of another, divided by their norms as they are read."""

    dtype = np.dtype(np.float32)

    def __init__(self, vectors: ArrayLike) -> None:
        self._vectors, self.shape = vectors, vectors.shape

    def __getitem__(self, key: slice) -> Float32:
        return unit_rows(np.asarray(self._vectors[key], dtype=np.float32))


class PcaIndex(Index):
    """Re-ranks `effort` candidates for every neighbour asked for; distances are exact."""

    def __init__(
        self,
        header: Header,
        vectors: ArrayLike,
        basis: Pca,
        near: Database,
        effort: int,
        recall: float,
    ) -> None:
        super().__init__(header, recall)
        self._vectors, self._basis, self._near, self.effort = vectors, basis, near, effort

    def _search(self, queries: Float32, k: int) -> Neighbors:
        return self._search_with(queries, k, self.effort)

    def _search_with(self, queries: Float32, k: int, effort: int) -> Neighbors:
        cosine = self.header.metric == "cosine"
        points = self._basis.transform(unit_rows(queries) if cosine else queries)
        _, ids = self._near.candidates(points, min(self.header.n, effort * k))
        distances = exact_distances(self._vectors, queries, ids, cosine)
        order = np.lexsort((ids, distances), axis=1)[:, :k]
        return Neighbors(
            np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1)
        )

    def _save(self, folder: Path) -> dict[str, Any]:
        parts = (self._near.vectors[:], self._basis.mean, self._basis.components)
        for name, part in zip(FILES, parts, strict=True):
            np.save(folder / f"{name}.npy", np.asarray(part))
        return {"effort": self.effort}

    def calibrate(self, database: Database, recall: float, seed: int) -> None:
        """Set the effort, and the recall it was seen to reach, from a sample of the rows."""

        def search(queries: Float32, k: int, effort: int) -> Int64:
            return self._search_with(queries, k, effort).ids

        self.effort, self.recall = calibrate.least_effort(database, search, EFFORTS, recall, seed)


def build(header: Header, database: Database, seed: int, recall: float) -> PcaIndex:
    """Find the components, project every row, and find how many candidates the recall needs."""
    assert header.plan.dimensions is not None
    vectors = UnitRows(database.vectors) if database.cosine else database.vectors
    basis = pca(vectors, header.plan.dimensions, seed)
    near = _scanned(basis.transform(vectors))
    index = PcaIndex(header, database.vectors, basis, near, EFFORTS[0], 0.0)
    index.calibrate(database, recall, seed)
    return index


def _scanned(rows: Float32) -> Database:
    # Components are centred already: no shift, and no pass to find one.
    shift = np.zeros(rows.shape[1], np.float32)
    return Database(rows, "l2", memory_bytes=0, resident=True, shift=shift)


def open_folder(
    header: Header, facts: dict[str, Any], folder: Path, vectors: ArrayLike, memory_bytes: int
) -> PcaIndex:
    """Map the components of a saved index."""
    try:
        rows, mean, components = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in FILES)
    except (OSError, ValueError) as error:
        raise IndexingError(f"{folder} lacks a file of its index; build it again") from error
    zeros = np.zeros(len(components), np.float32)
    basis = Pca(np.array(mean), np.array(components), zeros, zeros)
    return PcaIndex(header, vectors, basis, _scanned(rows), facts["effort"], facts["recall"])
