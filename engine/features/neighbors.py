"""Nearest neighbours of every row: one graph, that neighbours, UMAP and t-SNE share.

A stage. Its arrays are `ids` (N, k) int64, rows of the run, and `distances` (N, k) float32, true
L2 or 1 - cosine; a row is never its own neighbour, and a bad row has ids -1 and distances NaN.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fc7.engine.errors import StoreError
from fc7.engine.store import Progress, Report, Run
from fc7.engine.store.vectors import Vectors, open_vectors
from fc7.indexing import Neighbors, all_neighbors

# t-SNE at perplexity 30 looks at 90 neighbours; UMAP at 15; a person at 10.
DEFAULT_K = 90


def neighbors_job(layer: str) -> str:
    """Return the name of the job that holds a layer's graph."""
    return f"neighbors-{layer}"


class AllNeighbors:
    """The k nearest rows of every row, in one layer.

    Args:
        run: the run.
        layer: an output with one vector a row.
        k: neighbours of each row; fewer where the run has not more good rows.
        metric: `l2` or `cosine`.
        report: called as the search goes on.
    """

    def __init__(
        self,
        run: Run,
        layer: str,
        k: int = DEFAULT_K,
        metric: str = "l2",
        report: Report | None = None,
    ) -> None:
        if k < 1:
            raise StoreError(f"k is {k}; ask for one neighbour at least")
        self.name = neighbors_job(layer)
        self._run, self._layer, self._metric, self._report = run, layer, metric, report
        self._vectors = open_vectors(run, layer)
        self._k = min(k, len(self._vectors) - 1)

    def fingerprint(self) -> Mapping[str, Any]:
        """The layer's own fingerprint, k and the metric."""
        return {
            "input": self._run.outputs()[self._layer].digest,
            "layer": self._layer,
            "rectified": self._vectors.rectified,
            "k": self._k,
            "metric": self._metric,
        }

    def build(self, folder: Path) -> Mapping[str, Any]:
        """Search, translate to rows of the run, and save both arrays."""
        count = len(self._run)
        ids = np.full((count, max(self._k, 0)), -1, dtype=np.int64)
        distances = np.full(ids.shape, np.nan, dtype=np.float32)
        if self._k > 0:

            def progress(done: int, total: int) -> None:
                if self._report:
                    self._report(Progress(self.name, done, total))

            found = all_neighbors(self._vectors, self._k, self._metric, progress=progress)
            ids[self._vectors.rows] = self._vectors.to_rows(found.ids)
            distances[self._vectors.rows] = found.distances
        np.save(folder / "ids.npy", ids)
        np.save(folder / "distances.npy", distances)
        return {"k": self._k, "metric": self._metric, "rows": len(self._vectors)}


def read_graph(run: Run, vectors: Vectors, layer: str) -> Neighbors:
    """Read a layer's graph over the good rows, numbered as `vectors` are.

    Raises:
        StoreError: the run has no graph of that layer.
    """
    job = run.job(neighbors_job(layer))
    ids = job.result("ids")[vectors.rows]
    return Neighbors(vectors.from_rows(ids), np.asarray(job.result("distances")[vectors.rows]))


def label_agreement(run: Run, layer: str, k: int = 10, rows: slice = slice(None)) -> float | None:
    """Return the mean share of the k nearest rows that carry the query's label.

    Args:
        run: the run, with a graph of `layer`.
        layer: the graph's layer.
        k: neighbours counted.
        rows: the queries; every row by default. Unlabelled rows are left out.

    Returns:
        A share in [0, 1], or None when no query has a label.
    """
    labels = run.labels
    ids = run.job(neighbors_job(layer)).result("ids")[:, :k]
    agree, counted = 0.0, 0
    queries = np.arange(len(run))[rows]
    for start in range(0, len(queries), 65_536):
        block = queries[start : start + 65_536]
        block = block[labels[block] >= 0] if ids.shape[1] else block[:0]
        near = ids[block]
        block, near = block[near[:, 0] >= 0], near[near[:, 0] >= 0]  # a bad row has no neighbours
        agree += float((labels[near] == labels[block][:, None]).mean(1).sum())
        counted += len(block)
    return agree / counted if counted else None
