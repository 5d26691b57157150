"""The inner step of every exact search: the m cheapest rows of one block for each query.

The cost is ||x||^2 - 2 xy + ||y||^2, or 1 - xy for unit vectors, in float32. It is approximate
(the expansion cancels where rows are close), so `exact.py` re-computes what is found here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from fc7.indexing import faiss_backend
from fc7.indexing.arrays import Float32, Int64, as_tensor, spans

# A matrix-vector product reads the block once at memory speed; FAISS computes differences for few
# queries and its block product only pays from a handful on (60,000 x 4,096, one query: 2.8x).
FEW_QUERIES = 4
COST_MATRIX_ELEMENTS = 1 << 24
FAISS_GPU_LARGEST_K = 2048


@contextmanager
def full_float32() -> Iterator[None]:
    """Switch TF32 off for a while: the error bound of the search assumes true float32 products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def error_bound(d: int) -> float:
    """Relative error of a float32 cost of d terms, with respect to ||x||^2 + ||y||^2.

    Rounding errors of a sum grow as sqrt(d) with overwhelming probability (Higham and Mary 2019,
    "A new approach to probabilistic rounding error analysis"); twice that, and a few roundings of
    the expansion itself, is allowed for.
    """
    return 2.0**-23 * (4 + math.sqrt(d))


def cost_matrix(
    queries: torch.Tensor, block: torch.Tensor, cosine: bool, norms: torch.Tensor | None = None
) -> torch.Tensor:
    """Return float32 costs, (Q, D) and (B, D) -> (Q, B); `norms` are the block's squared norms."""
    if cosine:
        return torch.addmm(torch.ones(1, device=block.device), queries, block.T, alpha=-1)
    if norms is None:
        norms = torch.linalg.vector_norm(block, dim=1).square()
    costs = torch.addmm(norms[None, :], queries, block.T, alpha=-2)
    return costs.add_(torch.linalg.vector_norm(queries, dim=1).square()[:, None])


def torch_scan(
    queries: Float32, block: Float32, m: int, cosine: bool, norms: Float32 | None = None
) -> tuple[Float32, Int64]:
    """Return what `faiss_backend.faiss_scan` returns, by torch, on a GPU where torch has one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    y = as_tensor(block).to(device)
    squared = None if norms is None else as_tensor(norms).to(device)
    step = max(1, COST_MATRIX_ELEMENTS // len(block))
    found = []
    with full_float32():
        for start, stop in spans(len(queries), step):
            x = as_tensor(queries[start:stop]).to(device)
            best = torch.topk(cost_matrix(x, y, cosine, squared), m, largest=False)
            found.append((best.values.cpu(), best.indices.cpu()))
    costs = torch.cat([values for values, _ in found]).numpy()
    return costs, torch.cat([places for _, places in found]).numpy()


def cheapest(
    queries: Float32, block: Float32, m: int, cosine: bool, norms: Float32 | None = None
) -> tuple[Float32, Int64]:
    """Return float32 costs and int64 places (Q, min(m, B)) of the cheapest rows of a block."""
    m = min(m, len(block))
    which = faiss_backend.backend()
    by_torch = which == "torch" or (
        len(queries) <= FEW_QUERIES if which == "faiss-cpu" else m > FAISS_GPU_LARGEST_K
    )
    if by_torch:
        return torch_scan(queries, block, m, cosine, norms)
    return faiss_backend.faiss_scan(queries, block, m, cosine, gpu=which == "faiss-gpu")


def merge(
    best: tuple[Float32, Int64] | None, more: tuple[Float32, Int64], m: int
) -> tuple[Float32, Int64]:
    """Keep the m cheapest of two lists of candidates for each query, cheapest first."""
    if best is None:
        return more
    costs = np.concatenate([best[0], more[0]], axis=1)
    ids = np.concatenate([best[1], more[1]], axis=1)
    order = np.argsort(costs, axis=1, kind="stable")[:, :m]
    return np.take_along_axis(costs, order, axis=1), np.take_along_axis(ids, order, axis=1)
