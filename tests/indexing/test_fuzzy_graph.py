"""UMAP's weights against umap-learn's own, which works one row at a time in float32."""

from __future__ import annotations

import numpy as np
import pytest

import fc7.indexing as ix
from fc7.indexing.fuzzy_graph import fuzzy_graph


def _theirs(ids, distances):
    from umap.umap_ import fuzzy_simplicial_set

    n, k = len(ids), ids.shape[1] + 1
    graph, _, _ = fuzzy_simplicial_set(
        np.zeros((n, 2), np.float32),
        k,
        np.random.RandomState(0),
        "euclidean",
        knn_indices=np.hstack([np.arange(n)[:, None], ids]).astype(np.int32),
        knn_dists=np.hstack([np.zeros((n, 1)), distances]).astype(np.float32),
    )
    return graph.toarray()


@pytest.mark.parametrize("case", ["spread", "duplicates", "all equal", "one far away"])
def test_equals_umap_learn(case):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(67, 9)).astype(np.float32)
    if case == "duplicates":
        vectors[20:40] = vectors[20]
    if case == "all equal":
        vectors[:] = 1.0
    if case == "one far away":
        vectors[5] += 1e4
    graph = ix.all_neighbors(vectors, 7)
    ours = fuzzy_graph(graph.ids, graph.distances).toarray()
    np.testing.assert_array_equal(ours, ours.T)
    # Both stop the search for sigma within 1e-5 of a sum of weights; theirs rounds to float32.
    np.testing.assert_allclose(ours, _theirs(graph.ids, graph.distances), atol=2e-5)
