"""UMAP of a neighbour graph that is already there, by umap-learn.

McInnes, Healy and Melville 2018, "UMAP: Uniform Manifold Approximation and Projection". The graph
is the exact one the neighbours use, so that pynndescent, whose compilation is most of the time of
a fresh process, only gets imported. umap-learn would ignore an unfit graph with a warning; here
it is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fc7.indexing import arrays
from fc7.indexing.arrays import ArrayLike, Float32
from fc7.indexing.errors import IndexingError
from fc7.indexing.exact import Neighbors
from fc7.indexing.fuzzy_graph import fuzzy_graph
from fc7.indexing.principal import pca

# The width of the first layout, as umap-learn scales its own.
INITIAL_WIDTH = 10.0


def umap(
    vectors: ArrayLike,
    neighbors: Neighbors,
    dimensions: int = 2,
    seed: int = 0,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    n_epochs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float32:
    """Lay out N rows in the plane (or in more dimensions), (N, D) -> (N, dimensions) float32.

    neighbors: the graph of `all_neighbors`, of which the first n_neighbors - 1 are used (umap-learn
    counts a row as its own first neighbour). The vectors only give the starting layout, their
    principal components: that is deterministic, and does not break on disconnected graphs as the
    spectral start does. n_epochs: 500 up to 10,000 rows, else 200, when None. The same seed gives
    the same layout, on one thread. progress is called with (1, 2) when the graph is weighted and
    (2, 2) at the end.

    Raises IndexingError where the graph has other rows than the vectors or too few neighbours.
    """
    n, d = arrays.check_vectors(vectors)
    check_graph(neighbors, n)
    k = neighbors.ids.shape[1]
    if not 2 <= n_neighbors <= k + 1:
        raise IndexingError(
            f"n_neighbors is {n_neighbors}; with {k} neighbours a row it can be 2 to {k + 1}"
        )
    if not 1 <= dimensions <= min(n - 1, d):
        raise IndexingError(
            f"dimensions is {dimensions}; {n} rows x {d} allow 1 to {min(n - 1, d)}"
        )
    if n_epochs is not None and n_epochs < 1:
        raise IndexingError(f"n_epochs is {n_epochs}; expected at least 1")
    start = initial_layout(vectors, dimensions, seed)
    # Here and not above: the import takes seconds.
    from umap.umap_ import find_ab_params, simplicial_set_embedding

    others = slice(n_neighbors - 1)
    graph = fuzzy_graph(neighbors.ids[:, others], neighbors.distances[:, others])
    if progress is not None:
        progress(1, 2)
    a, b = find_ab_params(1.0, min_dist)
    layout: Any
    layout, _ = simplicial_set_embedding(
        start,
        graph,
        dimensions,
        initial_alpha=1.0,
        a=a,
        b=b,
        gamma=1.0,
        negative_sample_rate=5,
        n_epochs=n_epochs,
        init=start,
        random_state=np.random.RandomState(seed),
        metric="euclidean",
        metric_kwds={},
        densmap=False,
        densmap_kwds={},
        output_dens=False,
        parallel=False,
        tqdm_kwds={"disable": True},
    )
    if progress is not None:
        progress(2, 2)
    return np.asarray(layout, dtype=np.float32)


def check_graph(neighbors: Neighbors, n: int) -> None:
    """Raise IndexingError unless the graph (N, k) is whole and belongs to n rows."""
    ids, distances = neighbors.ids, neighbors.distances
    if ids.ndim != 2 or ids.shape != distances.shape or len(ids) != n:
        raise IndexingError(
            f"the graph has ids {ids.shape} and distances {distances.shape} for {n} vectors: "
            "compute it with all_neighbors on the same vectors"
        )
    if ids.size and (ids.min() < 0 or ids.max() >= n):
        raise IndexingError(f"the graph names rows {ids.min()} to {ids.max()} of only {n}")
    if not np.isfinite(distances).all():
        raise IndexingError("the graph holds distances that are not finite: compute it again")


def initial_layout(vectors: ArrayLike, dimensions: int, seed: int) -> Float32:
    """Return the first principal components (N, dimensions), scaled to fit [-10, 10].

    Equal rows get a jitter of 1e-4 (seeded): equal starts would stay together for ever.
    """
    coordinates = pca(vectors, dimensions, seed).transform(vectors)
    largest = float(np.abs(coordinates).max())
    scaled = coordinates * (INITIAL_WIDTH / largest) if largest > 0 else coordinates
    jitter = np.random.default_rng(seed).normal(scale=1e-4, size=scaled.shape)
    return np.asarray(scaled + jitter, dtype=np.float32)
