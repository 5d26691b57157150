"""t-SNE of a neighbour graph that is already there, by openTSNE.

van der Maaten and Hinton 2008, "Visualizing data using t-SNE"; van der Maaten 2014 (Barnes-Hut);
Linderman et al. 2019 (FIt-SNE). Start and learning rate as Kobak and Berens 2019, "The art of
using t-SNE for single-cell transcriptomics", advise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fc7.indexing import arrays
from fc7.indexing.arrays import ArrayLike, Float32
from fc7.indexing.errors import IndexingError
from fc7.indexing.exact import Neighbors
from fc7.indexing.memory import tsne_cost
from fc7.indexing.principal import pca
from fc7.indexing.umap_layout import check_graph

MAX_ROWS = 200_000
# Below this many rows a Barnes-Hut tree is quicker than the fixed cost of the FFT grid.
FFT_ABOVE = 10_000
EXAGGERATED_ITERATIONS = 250
# The spread of the starting layout: small, so that early exaggeration can still move all of it.
INITIAL_DEVIATION = 1e-4


def tsne(
    vectors: ArrayLike,
    neighbors: Neighbors,
    dimensions: int = 2,
    perplexity: float = 30,
    seed: int = 0,
    iterations: int = 500,
    max_rows: int = MAX_ROWS,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Float32:
    """Lay out N rows in 1 to 3 dimensions, (N, D) -> (N, dimensions) float32.

    neighbors: the graph of `all_neighbors`, with k >= 3 perplexity; the first 3 perplexity of them
    are used. The start is the first principal components. 250 iterations of early exaggeration
    are followed by `iterations`; progress gets (done, all) every 50. Repulsion is Barnes-Hut up to
    10,000 rows and in 3-D, interpolated (FIt-SNE) otherwise. The same seed and one thread give the
    same layout.

    Raises IndexingError above max_rows, with the time and memory it would take (lay out a sample,
    `--sample`), for a graph of other rows, and where perplexity > k / 3.
    """
    n, d = arrays.check_vectors(vectors)
    if n > max_rows:
        cost = tsne_cost(n, d, perplexity, iterations)
        raise IndexingError(
            f"t-SNE of {n} rows would take about {max(1, round(cost.seconds / 60))} minutes and "
            f"{cost.memory_bytes / 1e9:.1f} GB: use --sample {max_rows} (or fewer), UMAP, or raise "
            "max_rows"
        )
    check_graph(neighbors, n)
    k = neighbors.ids.shape[1]
    if not 1 <= perplexity <= k / 3:
        raise IndexingError(
            f"perplexity is {perplexity:g}; with {k} neighbours a row it can be 1 to {k / 3:g}: "
            f"compute {int(np.ceil(3 * perplexity))} neighbours or lower it"
        )
    if not 1 <= dimensions <= min(3, n - 1, d):
        raise IndexingError(
            f"dimensions is {dimensions}; t-SNE of {n} x {d} vectors gives 1 to {min(3, n - 1, d)}"
        )
    start = pca(vectors, dimensions, seed).transform(vectors).astype(np.float64)
    deviation = start[:, 0].std()
    start *= INITIAL_DEVIATION / deviation if deviation > 0 else 0.0
    # Equal starts would stay together for ever.
    start += np.random.default_rng(seed).normal(scale=INITIAL_DEVIATION / 100, size=start.shape)

    # Here and not above: the import takes a second.
    from openTSNE import TSNE, affinity
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    used = int(np.ceil(3 * perplexity))
    graph = PrecomputedNeighbors(
        np.ascontiguousarray(neighbors.ids[:, :used]),
        np.ascontiguousarray(neighbors.distances[:, :used], dtype=np.float64),
    )
    affinities = affinity.PerplexityBasedNN(
        perplexity=perplexity, knn_index=graph, n_jobs=threads, random_state=seed
    )
    layout = TSNE(
        n_components=dimensions,
        early_exaggeration_iter=EXAGGERATED_ITERATIONS,
        n_iter=iterations,
        negative_gradient_method="fft" if n > FFT_ABOVE and dimensions < 3 else "bh",
        n_jobs=threads,
        random_state=seed,
        callbacks=_report(progress, EXAGGERATED_ITERATIONS + iterations),
        callbacks_every_iters=50,
    ).fit(affinities=affinities, initialization=start)
    return np.asarray(layout, dtype=np.float32)


def _report(
    progress: Callable[[int, int], None] | None, total: int
) -> Callable[[int, float, object], None] | None:
    """Turn openTSNE's callback, which restarts its count after exaggeration, into ours."""
    if progress is None:
        return None
    calls = 0

    def callback(iteration: int, error: float, layout: object) -> None:
        nonlocal calls
        calls += 1
        progress(min(50 * calls, total), total)

    return callback
