"""Which index to build, why, and what it will take, decided before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fc7.indexing.errors import IndexingError

Kind = Literal["flat", "ivf", "pca"]
KINDS = ("auto", "flat", "ivf", "pca")

# Above this many bytes of float32 rows one exact query takes about half a second on a CPU.
EXACT_SCAN_BYTES = 8 << 30
REDUCED_DIMENSIONS = 256
# FAISS trains k-means on at most 256 vectors a list; 39 is where it starts to complain.
TRAINING_PER_LIST = 64
# Fewer rows than this make lists too short to be worth probing.
SMALLEST_IVF = 1000
METADATA_BYTES = 1024


@dataclass(frozen=True)
class IndexPlan:
    """A choice of index and its price.

    kind: 'flat', 'ivf' or 'pca'; reason: one sentence. bytes: on disk, without the vectors
    themselves, which flat and pca read where they are. search_bytes: memory to search at full
    speed. train_bytes: memory to build. lists: of an ivf. dimensions: kept by a pca.
    """

    kind: Kind
    reason: str
    bytes: int
    search_bytes: int
    train_bytes: int
    lists: int | None = None
    dimensions: int | None = None


def list_count(n: int) -> int:
    """Inverted lists for n rows: about 4 sqrt(n), with rows enough in each to train on."""
    return max(1, min(round(4 * math.sqrt(n)), n // 39))


def reduced_dimensions(n: int, d: int) -> int:
    """Principal components kept by the pca kind: 256, or half of a narrow vector."""
    return max(1, min(REDUCED_DIMENSIONS, d // 2, n - 1))


def plan_index(kind: Kind, n: int, d: int, reason: str) -> IndexPlan:
    """Price a given kind of index over (n, d) vectors."""
    rows = 4 * n * d
    if kind == "flat":
        return IndexPlan("flat", reason, METADATA_BYTES + 4 * d, rows, rows)
    if kind == "ivf":
        lists = list_count(n)
        size = n * (4 * d + 8) + lists * (4 * d + 8) + METADATA_BYTES
        sample = 4 * d * min(n, TRAINING_PER_LIST * lists)
        return IndexPlan("ivf", reason, size, size, size + 2 * sample, lists=lists)
    kept = reduced_dimensions(n, d)
    size = 4 * n * kept + 4 * d * (kept + 1) + METADATA_BYTES
    thin = 8 * d * (kept + 16) * 3
    return IndexPlan("pca", reason, size, size, size + thin + (256 << 20), dimensions=kept)


def choose_index(n: int, d: int, memory_bytes: int, gpu: bool = False) -> IndexPlan:
    """Choose an index for (n, d) vectors and say why.

    memory_bytes: what a search may keep in memory (of the GPU, where `gpu` is set). Raises
    IndexingError when not even reduced vectors fit.
    """
    if n < 1 or d < 1 or memory_bytes < 1:
        raise IndexingError(
            f"n {n}, d {d}, memory_bytes {memory_bytes}: all must be positive to choose an index"
        )
    rows = 4 * n * d
    size, budget = f"{rows / 1e9:.3g} GB", f"{memory_bytes / 1e9:.3g} GB"
    if rows <= memory_bytes and (gpu or rows <= EXACT_SCAN_BYTES):
        where = "the GPU" if gpu else "memory"
        return plan_index(
            "flat", n, d, f"{size} of float32 rows fit in {where} ({budget}): exact search it is"
        )
    reduced = plan_index("pca", n, d, "")
    inverted = plan_index("ivf", n, d, "")
    why = (
        f"{size} of float32 rows are more than {budget} hold"
        if rows > memory_bytes
        else f"an exact query would read all {size}"
    )
    if d > 2 * REDUCED_DIMENSIONS and reduced.search_bytes <= memory_bytes:
        reason = f"{why}: search {reduced.dimensions} principal components, re-rank in full"
        return plan_index("pca", n, d, reason)
    if n >= SMALLEST_IVF and inverted.train_bytes <= memory_bytes:
        return plan_index("ivf", n, d, f"{why}: search the nearest of {inverted.lists} lists")
    if reduced.search_bytes <= memory_bytes:
        reason = f"{why}: search {reduced.dimensions} principal components, re-rank in full"
        return plan_index("pca", n, d, reason)
    need = f"{reduced.search_bytes / 1e9:.3g} GB"
    raise IndexingError(
        f"no index of {n} x {d} fits in {budget}; the smallest takes {need}: raise the memory limit"
        " or index a sample"
    )
