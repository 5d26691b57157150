"""Whether FAISS is here, whether it may use a GPU, and how it is called.

FAISS is optional. Some of its wheels fail at import with RuntimeError or PackageNotFoundError when
CUDA libraries are missing, so the import is guarded broadly; everything that uses FAISS has an
exact torch counterpart.
"""

from __future__ import annotations

import threading
from functools import cache
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch  # noqa: F401  (first: FAISS must find the CUDA and OpenMP libraries torch has loaded)

from fc7.indexing.arrays import Float32, Int64

Backend = Literal["faiss-gpu", "faiss-cpu", "torch"]

_resources = threading.local()


@cache
def load_faiss() -> ModuleType | None:
    """Return the faiss module, or None where it is missing or its libraries do not load."""
    try:
        import faiss
    except Exception:
        return None
    return faiss


def gpu_resources(device: int = 0) -> Any:
    """Return this thread's StandardGpuResources for `device`, made once: each costs about 0.1 s."""
    kept: dict[int, Any] = _resources.__dict__.setdefault("by_device", {})
    if device not in kept:
        faiss = load_faiss()
        assert faiss is not None
        kept[device] = faiss.StandardGpuResources()
    return kept[device]


@cache
def backend() -> Backend:
    """Return 'faiss-gpu', 'faiss-cpu' or 'torch': what exact searches run on here.

    A GPU build is believed only after one tiny search on the GPU has given the right answer.
    """
    faiss = load_faiss()
    if faiss is None:
        return "torch"
    try:
        if faiss.get_num_gpus() < 1:
            return "faiss-cpu"
        probe = np.eye(4, dtype=np.float32)
        _, ids = faiss.knn_gpu(gpu_resources(), probe, probe, 1)
        return "faiss-gpu" if ids[:, 0].tolist() == [0, 1, 2, 3] else "faiss-cpu"
    except Exception:
        return "faiss-cpu"


def faiss_scan(
    queries: Float32, block: Float32, m: int, cosine: bool, gpu: bool
) -> tuple[Float32, Int64]:
    """Return the costs and places (Q, m) of the m cheapest rows of a block, cheapest first.

    The cost is the squared L2 distance, or one minus the inner product where `cosine` is set.
    """
    faiss = load_faiss()
    assert faiss is not None
    metric = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
    if gpu:
        costs, ids = faiss.knn_gpu(gpu_resources(), queries, block, m, metric=metric)
    else:
        costs, ids = faiss.knn(queries, block, m, metric=metric)
    return (1 - costs if cosine else costs), ids.astype(np.int64, copy=False)
