"""Indexes that answer queries: built from vectors, saved to a folder, opened memory-mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fc7.indexing import arrays, faiss_backend, ivf, reduced
from fc7.indexing.arrays import ArrayLike, Float32
from fc7.indexing.base import FORMAT, Header, Index, digest
from fc7.indexing.errors import IndexingError
from fc7.indexing.exact import Database, Neighbors, check_metric
from fc7.indexing.plan import KINDS, SMALLEST_IVF, IndexPlan, choose_index, plan_index

DEFAULT_MEMORY_BYTES = 4 << 30


class FlatIndex(Index):
    """Exact search over the caller's own vectors: nothing is copied that can be used in place."""

    def __init__(self, header: Header, database: Database) -> None:
        super().__init__(header, recall=1.0)
        self._database = database

    def _search(self, queries: Float32, k: int) -> Neighbors:
        return self._database.search(queries, k)

    def _save(self, folder: Path) -> dict[str, Any]:
        np.save(folder / "shift.npy", self._database.shift)
        return {}


def build_index(
    vectors: ArrayLike,
    kind: str = "auto",
    metric: str = "l2",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    seed: int = 0,
    recall: float = 0.95,
) -> Index:
    """Build an index over (N, D) float16 or float32 vectors.

    kind: 'flat' (exact, reads the vectors where they are), 'ivf' (inverted lists over a copy of
    them), 'pca' (exact search among principal components, then re-ranked from the vectors), or
    'auto', by `choose_index`. metric: 'l2' or 'cosine' (a zero vector is at distance 1 from all).
    recall: how many of the true 10 nearest neighbours an approximate kind must find, on average
    over a sample of the rows; it sets how much each search looks at.

    Without FAISS an 'ivf' is served by an exact torch search, and its plan says so. Raises
    IndexingError for wrong arguments, and for rows with NaN or infinite values, which it names.
    """
    n, d = arrays.check_vectors(vectors)
    check_metric(metric)
    if kind not in KINDS:
        raise IndexingError(f"kind {kind!r} is not known; choose one of {', '.join(KINDS)}")
    if not 0 < recall <= 1:
        raise IndexingError(f"recall is {recall}; expected more than 0 and at most 1")
    plan = _plan(kind, n, d, memory_bytes)
    header = Header(metric, n, d, digest(vectors), plan)
    database = Database(vectors, metric, memory_bytes, resident=plan.kind == "flat")
    if plan.kind == "flat":
        return FlatIndex(header, database)
    build = ivf.build if plan.kind == "ivf" else reduced.build
    return build(header, database, seed, recall)


def _plan(kind: str, n: int, d: int, memory_bytes: int) -> IndexPlan:
    if kind == "auto":
        gpu = faiss_backend.backend() == "faiss-gpu"
        plan = choose_index(n, d, memory_bytes, gpu)
    elif kind == "flat":
        return plan_index("flat", n, d, "asked for")
    elif kind == "pca":
        if n < 2 or d < 2:
            raise IndexingError(f"a pca index of {n} x {d} vectors has nothing to reduce: use flat")
        return plan_index("pca", n, d, "asked for")
    else:
        plan = plan_index("ivf", n, d, "asked for")
    if plan.kind == "ivf":
        if faiss_backend.load_faiss() is None or faiss_backend.backend() == "torch":
            return plan_index("flat", n, d, "FAISS is not installed: exact search in torch instead")
        if n < SMALLEST_IVF:
            return plan_index(
                "flat", n, d, f"{n} rows are too few for inverted lists: exact search"
            )
        if plan.train_bytes > memory_bytes:
            raise IndexingError(
                f"an ivf index of {n} x {d} takes {plan.train_bytes / 1e9:.3g} GB to build and "
                f"memory_bytes allows {memory_bytes / 1e9:.3g} GB: use kind 'pca'"
            )
    return plan


def open_index(
    folder: str | Path,
    vectors: ArrayLike | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> Index:
    """Open a saved index, its large files memory-mapped.

    vectors: the (N, D) array-like it was built from, which flat and pca read for exact distances;
    an ivf holds its own copy. Raises IndexingError where the folder holds no index, or the vectors
    are missing or not the same (told by their shape and 32 of their rows).
    """
    place = Path(folder)
    try:
        facts = json.loads((place / "index.json").read_text())
        plan = IndexPlan(**facts["plan"])
        header = Header(facts["metric"], facts["n"], facts["d"], facts["digest"], plan)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexingError(f"{place} holds no complete index; build it again") from error
    if facts["format"] != FORMAT:
        raise IndexingError(
            f"{place} has index format {facts['format']}, expected {FORMAT}; build it again"
        )
    if plan.kind == "ivf":
        return ivf.open_folder(header, facts, place)
    if vectors is None:
        raise IndexingError(f"a {plan.kind} index reads the vectors it was built from: pass them")
    if tuple(vectors.shape) != (header.n, header.d) or digest(vectors) != header.digest:
        raise IndexingError(
            f"{place} was built from other vectors ({header.n} x {header.d}); these are "
            f"{' x '.join(map(str, vectors.shape))}: build the index again"
        )
    if plan.kind == "flat":
        shift = np.load(place / "shift.npy")
        return FlatIndex(header, Database(vectors, header.metric, memory_bytes, True, shift))
    return reduced.open_folder(header, facts, place, vectors, memory_bytes)
