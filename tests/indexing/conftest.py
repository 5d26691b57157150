"""Slow float64 references, written from the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fc7.indexing import faiss_backend


@pytest.fixture(autouse=True)
def one_thread():
    """Arrays are tiny: more threads only wait for each other, and worse on a busy machine."""
    before, faiss = torch.get_num_threads(), faiss_backend.load_faiss()
    torch.set_num_threads(1)
    if faiss is not None:
        faiss_before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before)
    if faiss is not None:
        faiss.omp_set_num_threads(faiss_before)


def _distances(queries, vectors, metric):
    x, y = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return np.stack([np.sqrt(((row - y) ** 2).sum(axis=1)) for row in x])
    x_norm, y_norm = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    x = x / np.where(x_norm > 0, x_norm, 1)[:, None]
    y = y / np.where(y_norm > 0, y_norm, 1)[:, None]
    half = np.stack([((row - y) ** 2).sum(axis=1) / 2 for row in x])
    # Parallel vectors differ by the rounding of the division only.
    half[half < 1e-14] = 0
    half[x_norm == 0] = 1
    half[:, y_norm == 0] = 1
    return half


@pytest.fixture
def brute():
    """Function: the k nearest by full sort on (distance as float32, id); own row left out."""

    def search(queries, vectors, k, metric="l2", itself=False):
        distances = _distances(queries, vectors, metric).astype(np.float32)
        if itself:
            np.fill_diagonal(distances, np.inf)
        ids = np.broadcast_to(np.arange(len(vectors)), distances.shape)
        order = np.lexsort((ids, distances), axis=1)[:, :k]
        return order, np.take_along_axis(distances, order, axis=1)

    return search


@pytest.fixture(params=["faiss", "torch"])
def each_backend(request, monkeypatch):
    """Run a test on FAISS, where it is installed, and on torch as if FAISS were missing."""
    if request.param == "torch":
        monkeypatch.setattr(faiss_backend, "backend", lambda: "torch")
        monkeypatch.setattr(faiss_backend, "load_faiss", lambda: None)
    elif faiss_backend.load_faiss() is None:
        pytest.skip("FAISS is not installed")
    return request.param
