"""Indexes: exact where they say so, good enough where they do not, the same after a save."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fc7.indexing as ix
from fc7.indexing import faiss_backend
from fc7.indexing.base import Index

has_faiss = faiss_backend.load_faiss() is not None


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(60, 130))
    return (centres[rng.integers(0, 60, 3001)] + 0.6 * rng.normal(size=(3001, 130))).astype("f4")


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("count", [1, 4, 5, 33])
def test_flat_is_exact(count, metric, vectors, brute, each_backend):
    index = ix.build_index(vectors, "flat", metric)
    queries = vectors[:count] + np.float32(0.1)
    ids, distances = brute(queries, vectors, 10, metric)
    found = index.search(queries, 10)
    np.testing.assert_array_equal(found.ids, ids)
    # One rounding to float32 of a float64 distance on both sides.
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)


def test_flat_streams_what_does_not_fit(vectors, brute, each_backend):
    """float16, shifted far from zero, and a budget of a tenth: the same answer."""
    far = (vectors + 50).astype(np.float16)
    index = ix.build_index(far, "flat", memory_bytes=far.nbytes // 10)
    ids, _ = brute(far[:20], far, 7)
    np.testing.assert_array_equal(index.search(far[:20].astype("f4"), 7).ids, ids)


def test_flat_uses_the_rows_in_place(vectors):
    index = ix.build_index(vectors, "flat")
    assert np.shares_memory(index._database._kept, vectors)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("kind", ["ivf", "pca"])
def test_approximate_kinds_find_nearly_all(kind, metric, vectors, brute):
    if kind == "ivf" and not has_faiss:
        pytest.skip("FAISS is not installed")
    index = ix.build_index(vectors, kind, metric, recall=0.95)
    assert index.plan.kind == kind
    rng = np.random.default_rng(5)
    queries = vectors[::10] + 0.05 * rng.normal(size=vectors[::10].shape).astype("f4")
    ids, distances = brute(queries, vectors, 10, metric)
    found = index.search(queries, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.ids, ids, strict=True)])
    # Calibrated to 0.95 on 128 other queries; the standard error of both means is below 0.01.
    assert recall >= 0.92
    assert index.recall >= 0.95
    same = found.ids == ids
    np.testing.assert_allclose(found.distances[same], distances[same], rtol=1e-5, atol=1e-6)
    assert (np.diff(found.distances, axis=1) >= 0).all()


@pytest.mark.skipif(not has_faiss, reason="FAISS is not installed")
def test_more_recall_means_more_work(vectors):
    low = ix.build_index(vectors, "ivf", recall=0.3)
    high = ix.build_index(vectors, "ivf", recall=1.0)
    assert low.probes < high.probes
    assert high.recall >= 0.999 or high.probes == high.plan.lists


@pytest.mark.skipif(not has_faiss, reason="FAISS is not installed")
def test_ivf_always_fills_its_answer(vectors):
    index = ix.build_index(vectors, "ivf", recall=0.1)
    found = index.search(vectors[:3], 3001)
    np.testing.assert_array_equal(np.sort(found.ids), np.tile(np.arange(3001), (3, 1)))


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("kind", ["flat", "ivf", "pca"])
def test_saved_and_opened(kind, metric, vectors, tmp_path):
    if kind == "ivf" and not has_faiss:
        pytest.skip("FAISS is not installed")
    index = ix.build_index(vectors, kind, metric)
    index.save(tmp_path / "index")
    opened = ix.open_index(tmp_path / "index", None if kind == "ivf" else vectors)
    assert opened.plan == index.plan
    assert opened.recall == index.recall
    before, after = index.search(vectors[:9], 10), opened.search(vectors[:9], 10)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.distances, after.distances)
    size = sum(file.stat().st_size for file in (tmp_path / "index").iterdir())
    if kind == "flat":
        assert size < 4096  # the vectors are not copied
    else:
        assert size == pytest.approx(index.plan.bytes, rel=0.10)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["pca", "ivf"])
def test_opened_index_is_mapped(kind, vectors, tmp_path):
    if kind == "ivf" and not has_faiss:
        pytest.skip("FAISS is not installed")
    ix.build_index(vectors, kind).save(tmp_path)
    opened = ix.open_index(tmp_path, vectors)
    opened.search(vectors[:1], 1)
    with open("/proc/self/maps") as maps:
        assert str(tmp_path) in maps.read()


def test_same_seed_same_index(vectors):
    kind = "ivf" if has_faiss else "pca"
    one, two = (ix.build_index(vectors, kind, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.search(vectors, 5).ids, two.search(vectors, 5).ids)


def test_without_faiss_ivf_is_exact(vectors, brute, monkeypatch):
    monkeypatch.setattr(faiss_backend, "backend", lambda: "torch")
    monkeypatch.setattr(faiss_backend, "load_faiss", lambda: None)
    index = ix.build_index(vectors, "ivf")
    assert index.plan.kind == "flat"
    assert "FAISS" in index.plan.reason
    np.testing.assert_array_equal(
        index.search(vectors[:5], 3).ids, brute(vectors[:5], vectors, 3)[0]
    )


def test_a_faiss_that_fails_to_load_is_a_missing_faiss(monkeypatch):
    import builtins

    real = builtins.__import__

    def broken(name, *rest, **more):
        if name == "faiss":
            raise RuntimeError("libcudart.so.12: cannot open shared object file")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    faiss_backend.load_faiss.cache_clear()
    faiss_backend.backend.cache_clear()
    try:
        assert faiss_backend.backend() == "torch"
    finally:
        faiss_backend.load_faiss.cache_clear()
        faiss_backend.backend.cache_clear()


@pytest.mark.parametrize(
    ("n", "d", "memory_bytes", "gpu", "kind"),
    [
        (10_000, 512, 4 << 30, False, "flat"),
        (60_000, 4096, 4 << 30, False, "flat"),
        (1_280_000, 4096, 16 << 30, False, "pca"),  # 21 GB do not fit
        (1_280_000, 4096, 64 << 30, False, "pca"),  # they fit, but a query would read them all
        (1_280_000, 4096, 64 << 30, True, "flat"),
        (30_000_000, 128, 64 << 30, False, "ivf"),
        (101_000, 256, 4 << 30, False, "flat"),
    ],
)
def test_auto_chooses_and_says_why(n, d, memory_bytes, gpu, kind):
    plan = ix.choose_index(n, d, memory_bytes, gpu)
    assert plan.kind == kind
    assert "GB" in plan.reason
    assert plan.search_bytes <= memory_bytes


def test_nothing_fits():
    with pytest.raises(ix.IndexingError, match="raise the memory limit"):
        ix.choose_index(100_000_000, 4096, 1 << 30)


def test_refuses(vectors, tmp_path):
    index: Index = ix.build_index(vectors[:20], "flat")
    bad = vectors[:2].copy()
    bad[1, 5] = np.nan
    for queries, k, says in [
        (vectors[:2], 21, "k is 21, with 20 indexed rows"),
        (vectors[:2], 0, "k is 0"),
        (vectors[:2, :7], 1, r"\(2, 7\).*130"),
        (vectors[0], 1, r"\(130,\)"),
        (bad, 1, "queries row 1: NaN"),
    ]:
        with pytest.raises(ix.IndexingError, match=says):
            index.search(queries, k)
    assert index.search(vectors[:0], 3).ids.shape == (0, 3)
    with pytest.raises(ix.IndexingError, match="hnsw"):
        ix.build_index(vectors, "hnsw")
    with pytest.raises(ix.IndexingError, match=r"recall is 1\.5"):
        ix.build_index(vectors, "pca", recall=1.5)
    if has_faiss:
        with pytest.raises(ix.IndexingError, match="GB to build"):
            ix.build_index(vectors, "ivf", memory_bytes=1 << 20)
    with pytest.raises(ix.IndexingError, match="no complete index"):
        ix.open_index(tmp_path)
    index.save(tmp_path)
    with pytest.raises(ix.IndexingError, match="pass them"):
        ix.open_index(tmp_path)
    with pytest.raises(ix.IndexingError, match="other vectors"):
        ix.open_index(tmp_path, vectors[1:21])
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ix.IndexingError, match="no complete index"):
        ix.open_index(tmp_path, vectors[:20])
