"""Projections: every row as a point in 2 or 3 dimensions, by PCA, UMAP or t-SNE.

A stage whose array is `coordinates` (N, dimensions) float32, NaN for rows that were not projected.
UMAP and t-SNE work on the run's one neighbour graph and start from the first principal components,
so the neighbours they try to keep are the very ones that `fc7 neighbors` shows.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fc7.engine.errors import StoreError
from fc7.engine.features.neighbors import neighbors_job, read_graph
from fc7.engine.store import Progress, Report, Run
from fc7.engine.store.vectors import Vectors, open_vectors
from fc7.indexing import all_neighbors, pca, tsne, umap

Method = Literal["pca", "umap", "tsne"]
METHODS: tuple[Method, ...] = get_args(Method)
MIN_ROWS = 5
_SAMPLE_NEIGHBORS = 90
_UMAP_NEIGHBORS, _PERPLEXITY = 15, 30.0


def projection_job(layer: str, method: str) -> str:
    """Return the name of the job that holds a layer's projection."""
    return f"project-{layer}-{method}"


def check_projection(method: str, dimensions: int) -> None:
    """Raise StoreError for an unknown method, or another number of dimensions than 2 or 3."""
    if method not in METHODS:
        raise StoreError(f"no projection {method!r}; there are {', '.join(METHODS)}")
    if dimensions not in (2, 3):
        raise StoreError(f"{dimensions} dimensions; a projection has 2 or 3")


class Projection:
    """One layer of a run as points.

    Args:
        run: the run, with a neighbour graph of the layer unless `method` is `pca` or a sample
            is asked for.
        layer: an output with one vector a row.
        method: `pca`, `umap` or `tsne`.
        dimensions: 2 or 3.
        sample: project this many rows, chosen at random; all by default.
        seed: of everything random.
        report: called as it goes on.

    Raises:
        StoreError: an unknown method, or no such output.
    """

    def __init__(
        self,
        run: Run,
        layer: str,
        method: str,
        dimensions: int = 2,
        sample: int | None = None,
        seed: int = 0,
        report: Report | None = None,
    ) -> None:
        check_projection(method, dimensions)
        if sample is not None and sample < MIN_ROWS:
            raise StoreError(f"a sample of {sample} rows; take {MIN_ROWS} or more")
        self.name = projection_job(layer, method)
        self._run, self._layer, self._method = run, layer, method
        self._dimensions, self._seed, self._report = dimensions, seed, report
        self._vectors = open_vectors(run, layer)
        self._sample = sample if sample is not None and sample < len(self._vectors) else None

    def fingerprint(self) -> Mapping[str, Any]:
        """The layer's own fingerprint and every option."""
        graph = neighbors_job(self._layer)
        uses_graph = self._method != "pca" and self._sample is None
        return {
            "input": self._run.outputs()[self._layer].digest,
            "graph": self._run.job(graph).digest if uses_graph else None,
            "layer": self._layer,
            "rectified": self._vectors.rectified,
            "method": self._method,
            "dimensions": self._dimensions,
            "sample": self._sample,
            "seed": self._seed,
        }

    def build(self, folder: Path) -> Mapping[str, Any]:
        """Project and save `coordinates`."""
        started = time.perf_counter()
        vectors = self._vectors
        if self._sample is not None:
            rng = np.random.default_rng(self._seed)
            chosen = np.sort(rng.choice(vectors.rows, self._sample, replace=False))
            vectors = Vectors(self._run[self._layer], chosen, vectors.rectified)
        points, info = self._project(vectors)
        coordinates = np.full((len(self._run), self._dimensions), np.nan, dtype=np.float32)
        coordinates[vectors.rows] = points
        np.save(folder / "coordinates.npy", coordinates)
        return {
            "method": self._method,
            "rows": len(vectors),
            "seconds": round(time.perf_counter() - started, 3),
            **info,
        }

    def _project(self, vectors: Vectors) -> tuple[Any, dict[str, Any]]:
        few = min(*vectors.shape)
        if few < self._dimensions or len(vectors) < MIN_ROWS:
            raise StoreError(
                f"{len(vectors)} rows of {vectors.shape[1]} values cannot be projected to "
                f"{self._dimensions} dimensions; use more images"
            )
        if self._method == "pca":
            model = pca(vectors, self._dimensions, seed=self._seed)
            ratio = [round(float(share), 6) for share in model.explained_variance_ratio]
            return model.transform(vectors), {"explained_variance_ratio": ratio}
        if self._sample is None:
            graph = read_graph(self._run, vectors, self._layer)
        else:
            graph = all_neighbors(vectors, min(_SAMPLE_NEIGHBORS, len(vectors) - 1))
        k = graph.ids.shape[1]
        if self._method == "umap":
            around = min(_UMAP_NEIGHBORS, k + 1)
            points = umap(
                vectors, graph, self._dimensions, self._seed, around, progress=self._progress
            )
            return points, {"n_neighbors": around}
        perplexity = min(_PERPLEXITY, k / 3)
        points = tsne(
            vectors, graph, self._dimensions, perplexity, self._seed, progress=self._progress
        )
        return points, {"perplexity": perplexity}

    def _progress(self, done: int, total: int) -> None:
        if self._report:
            self._report(Progress(self.name, done, total))
