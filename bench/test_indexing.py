"""The indexing package under pytest-benchmark.

    pytest bench/test_indexing.py

FC7_BENCH_ROWS and FC7_BENCH_DIMENSIONS set the size (60,000 x 4,096). Every benchmark checks its
answer first.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import fc7.indexing as ix
from fc7.bench.indexing import K, check_exact, clustered, recall

faiss = pytest.importorskip("faiss")
ROWS = int(os.environ.get("FC7_BENCH_ROWS", "60000"))
DIMENSIONS = int(os.environ.get("FC7_BENCH_DIMENSIONS", "4096"))


@pytest.fixture(scope="module")
def drawn() -> Any:
    """Clustered rectified vectors, (ROWS + 1024, DIMENSIONS)."""
    return clustered(ROWS + 1024, DIMENSIONS)


@pytest.fixture(scope="module")
def vectors(drawn: Any) -> Any:
    """What is searched, (ROWS, DIMENSIONS)."""
    return drawn[:ROWS]


@pytest.fixture(scope="module")
def queries(drawn: Any) -> Any:
    """What is looked for: other vectors of the same kind, (1024, DIMENSIONS)."""
    return drawn[ROWS:]


@pytest.fixture(scope="module")
def flat(vectors: Any) -> ix.Index:
    """Our exact index, checked."""
    return ix.build_index(vectors, "flat")


@pytest.mark.parametrize("count", [1, 32, 1024])
def test_exact_ours(benchmark: Any, flat: ix.Index, vectors: Any, queries: Any, count: int) -> None:
    """Exact search by fc7."""
    check_exact(flat, vectors, queries[:count])
    benchmark(flat.search, queries[:count], K)


@pytest.mark.parametrize("count", [1, 32, 1024])
def test_exact_faiss(benchmark: Any, vectors: Any, queries: Any, count: int) -> None:
    """Exact search by FAISS called directly."""
    direct = faiss.IndexFlatL2(DIMENSIONS)
    direct.add(vectors)
    benchmark(direct.search, queries[:count], K)


@pytest.mark.parametrize("kind", ["pca", "ivf"])
def test_approximate(benchmark: Any, flat: ix.Index, vectors: Any, queries: Any, kind: str) -> None:
    """Approximate search for 32 queries, at a recall of 0.9 or more."""
    index = ix.build_index(vectors, kind)
    found = recall(index.search(queries, K).ids, flat.search(queries, K).ids)
    assert found > 0.9
    benchmark.extra_info["recall_at_10"] = found
    benchmark(index.search, queries[:32], K)


def test_pca(benchmark: Any, vectors: Any) -> None:
    """Fifty principal components."""
    found = benchmark(ix.pca, vectors, 50)
    assert np.allclose(found.components @ found.components.T, np.eye(50), atol=1e-4)
