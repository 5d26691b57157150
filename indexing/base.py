"""What all kinds of index have in common."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fc7.indexing import arrays
from fc7.indexing.arrays import ArrayLike, Float32
from fc7.indexing.errors import IndexingError
from fc7.indexing.exact import Neighbors
from fc7.indexing.plan import IndexPlan

FORMAT = 1
DIGEST_ROWS = 32


@dataclass(frozen=True)
class Header:
    """What every index knows of the vectors it was built from, as stored in index.json."""

    metric: str
    n: int
    d: int
    digest: str
    plan: IndexPlan


class Index(ABC):
    """A searchable set of N vectors of D dimensions.

    recall is the share of the true 10 nearest neighbours found for a sample of the rows when the
    index was built: 1.0 for exact kinds.
    """

    def __init__(self, header: Header, recall: float) -> None:
        self.header, self.recall = header, recall

    @property
    def plan(self) -> IndexPlan:
        """The choice made at the build, with its reason."""
        return self.header.plan

    def search(self, queries: Float32, k: int) -> Neighbors:
        """Return the k nearest rows of each query: (Q, D) floats -> ids, distances (Q, k).

        Distances are true L2, or 1 - cos; equal ones stand in order of ids. A query that is a row
        of the index finds itself. Raises IndexingError for a wrong shape, NaN, or k > N.
        """
        if queries.ndim != 2 or queries.shape[1] != self.header.d:
            raise IndexingError(
                f"queries have shape {queries.shape}; this index takes (queries, {self.header.d})"
            )
        arrays.check_count(k, self.header.n, "indexed rows")
        points = np.ascontiguousarray(queries, dtype=np.float32)
        if not len(points):
            return Neighbors(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
        arrays.check_finite(points, 0, "queries")
        return self._search(points, k)

    def save(self, folder: str | Path) -> None:
        """Write the index into a folder, made if missing, without the vectors themselves.

        Not atomic: give it a fresh folder and rename that. index.json is written last.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        extra = self._save(place)
        facts = {"format": FORMAT, **asdict(self.header), "recall": self.recall, **extra}
        (place / "index.json").write_text(json.dumps(facts, indent=1) + "\n")

    @abstractmethod
    def _search(self, queries: Float32, k: int) -> Neighbors: ...

    @abstractmethod
    def _save(self, folder: Path) -> dict[str, Any]:
        """Write the kind's own files; return what index.json must remember."""


def digest(vectors: ArrayLike) -> str:
    """sha256 of the shape, the dtype and 32 evenly spaced rows."""
    n, d = vectors.shape
    found = hashlib.sha256(f"{n} {d} {np.dtype(vectors.dtype)}".encode())
    for row in np.unique(np.linspace(0, n - 1, DIGEST_ROWS).astype(int)):
        found.update(np.ascontiguousarray(vectors[int(row) : int(row) + 1]).tobytes())
    return found.hexdigest()
