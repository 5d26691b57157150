"""UMAP and t-SNE keep neighbours, part clusters, repeat themselves, and refuse unfit graphs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fc7.indexing as ix

ROWS, CLUSTERS = 300, 3


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(CLUSTERS, 65))
    # A curved sheet in each cluster: there are neighbourhoods to keep.
    sheet = rng.uniform(-2, 2, size=(ROWS, 2))
    curved = np.hstack([sheet, np.sin(2 * sheet)]) @ rng.normal(size=(4, 65))
    noise = 0.05 * rng.normal(size=(ROWS, 65))
    return (centres[np.arange(ROWS) % CLUSTERS] + curved + noise).astype(np.float32)


@pytest.fixture(scope="module")
def graph(vectors):
    return ix.all_neighbors(vectors, 45)


def _ranks(points):
    """Rank of each row by distance from each row, 0 for itself: (N, N)."""
    x = points.astype(np.float64)
    squared = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    return squared.argsort(axis=1, kind="stable").argsort(axis=1)


def _trustworthiness(vectors, layout, k):
    """Venna and Kaski 2001: 1 - weighted share of layout neighbours that were none before."""
    n = len(vectors)
    true, shown = _ranks(vectors), _ranks(layout)
    near = (shown > 0) & (shown <= k)
    excess = np.maximum(true - k, 0)[near].sum()
    return 1 - 2 * excess / (n * k * (2 * n - 3 * k - 1))


def _check(vectors, layout):
    assert layout.shape == (ROWS, 2)
    assert layout.dtype == np.float32
    assert np.isfinite(layout).all()
    # A random layout has 0.51; the first two principal components of these data have 0.964.
    assert _trustworthiness(vectors, layout, 10) > 0.98
    labels = np.arange(ROWS) % CLUSTERS
    nearest = np.where(_ranks(layout) == 1)[1]
    assert (labels[nearest] == labels).mean() > 0.99


def test_umap(vectors, graph):
    calls = []
    layout = ix.umap(
        vectors, graph, n_epochs=100, seed=3, progress=lambda *done: calls.append(done)
    )
    _check(vectors, layout)
    assert calls == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(layout, ix.umap(vectors, graph, n_epochs=100, seed=3))
    assert (layout != ix.umap(vectors, graph, n_epochs=100, seed=4)).any()


def test_tsne(vectors, graph):
    calls = []
    options = {"perplexity": 15, "iterations": 150, "seed": 3}
    layout = ix.tsne(vectors, graph, **options, progress=lambda *done: calls.append(done))
    _check(vectors, layout)
    assert calls[-1] == (400, 400)
    np.testing.assert_array_equal(layout, ix.tsne(vectors, graph, **options))
    assert ix.tsne(vectors, graph, 3, perplexity=15, iterations=1).shape == (ROWS, 3)


def _replaced(graph, **changes):
    return dataclasses.replace(graph, **changes)


@pytest.mark.parametrize("lay_out", [ix.umap, ix.tsne])
def test_refuse_unfit_graphs(lay_out, vectors, graph):
    broken = graph.distances.copy()
    broken[3, 3] = np.nan
    ids = graph.ids.copy()
    ids[0, 0] = ROWS
    for unfit, says in [
        (_replaced(graph, ids=graph.ids[:-1], distances=graph.distances[:-1]), "for 300 vectors"),
        (_replaced(graph, distances=graph.distances[:, :-1]), "for 300 vectors"),
        (_replaced(graph, distances=broken), "not finite"),
        (_replaced(graph, ids=ids), "to 300 of only 300"),
    ]:
        with pytest.raises(ix.IndexingError, match=says):
            lay_out(vectors, unfit)


def test_umap_refuses(vectors, graph):
    for options, says in [
        ({"n_neighbors": 47}, "n_neighbors is 47.*2 to 46"),
        ({"n_neighbors": 1}, "n_neighbors is 1"),
        ({"dimensions": 0}, "dimensions is 0"),
        ({"n_epochs": 0}, "n_epochs is 0"),
    ]:
        with pytest.raises(ix.IndexingError, match=says):
            ix.umap(vectors, graph, **options)


def test_tsne_refuses(vectors, graph):
    for options, says in [
        ({"perplexity": 16}, "perplexity is 16.*1 to 15: compute 48 neighbours"),
        ({"perplexity": 0.5}, "perplexity is 0.5"),
        ({"dimensions": 4}, "dimensions is 4"),
        ({"max_rows": 299}, "t-SNE of 300 rows .* minutes and .* GB: use --sample 299"),
    ]:
        with pytest.raises(ix.IndexingError, match=says):
            ix.tsne(vectors, graph, **{"perplexity": 15, **options})
