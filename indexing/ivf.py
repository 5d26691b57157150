"""Inverted lists (IVF-Flat) over a full-precision copy of the vectors, by FAISS.

Sivic and Zisserman 2003, "Video Google"; Johnson, Douze and Jegou 2019, "Billion-scale similarity
search with GPUs". k-means cuts the space into lists; a search looks through the nearest ones.
Distances are FAISS's own, in float32: relative error about 1e-6; for cosine, 1e-7 absolute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fc7.indexing import arrays, calibrate, faiss_backend
from fc7.indexing.arrays import Float32, Int64
from fc7.indexing.base import Header, Index
from fc7.indexing.errors import IndexingError
from fc7.indexing.exact import Database, Neighbors, unit_rows
from fc7.indexing.plan import TRAINING_PER_LIST

FILE = "lists.faiss"


class IvfIndex(Index):
    """Looks through `probes` of the lists at each search, and through more where they run dry."""

    def __init__(self, header: Header, lists: Any, probes: int, recall: float) -> None:
        super().__init__(header, recall)
        self._lists, self.probes = lists, probes

    def _search(self, queries: Float32, k: int) -> Neighbors:
        probes = self.probes
        while True:
            costs, ids = probe(self._lists, self._prepare(queries), k, probes)
            if (ids >= 0).all():
                break
            probes = min(2 * probes, self._lists.nlist)
        cosine = self.header.metric == "cosine"
        distances = 1 - costs if cosine else np.sqrt(np.maximum(costs, 0))
        distances = np.maximum(distances, 0)
        order = np.lexsort((ids, distances), axis=1)
        return Neighbors(
            np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1)
        )

    def _prepare(self, queries: Float32) -> Float32:
        return unit_rows(queries) if self.header.metric == "cosine" else queries

    def _save(self, folder: Path) -> dict[str, Any]:
        faiss = _faiss()
        faiss.write_index(self._lists, str(folder / FILE))
        return {"probes": self.probes}


def probe(lists: Any, queries: Float32, k: int, probes: int) -> tuple[Float32, Int64]:
    """Return FAISS's costs and ids (Q, k) from the nearest lists; -1 where they hold too few."""
    parameters = _faiss().SearchParametersIVF(nprobe=probes)
    costs, ids = lists.search(queries, k, params=parameters)
    return costs, ids


def build(header: Header, database: Database, seed: int, recall: float) -> IvfIndex:
    """Train on a sample, add every row, and find how many lists the recall needs."""
    faiss = _faiss()
    assert header.plan.lists is not None
    metric = faiss.METRIC_INNER_PRODUCT if database.cosine else faiss.METRIC_L2
    quantizer = (faiss.IndexFlatIP if database.cosine else faiss.IndexFlatL2)(database.d)
    lists = faiss.IndexIVFFlat(quantizer, database.d, header.plan.lists, metric)
    lists.cp.seed = seed + 1  # FAISS takes seeds from 1
    count = min(database.n, TRAINING_PER_LIST * header.plan.lists)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(database.n, count, replace=False))
    sample = arrays.take(database.vectors, rows).astype(np.float32)
    lists.train(unit_rows(sample) if database.cosine else sample)
    for start, stop in arrays.spans(database.n, database.tile_rows):
        block = arrays.read(database.vectors, start, stop)
        lists.add(unit_rows(block) if database.cosine else block)

    def search(queries: Float32, k: int, probes: int) -> Int64:
        return probe(lists, unit_rows(queries) if database.cosine else queries, k, probes)[1]

    efforts = [2**power for power in range(20) if 2**power < lists.nlist] + [lists.nlist]
    probes, measured = calibrate.least_effort(database, search, efforts, recall, seed)
    return IvfIndex(header, lists, probes, measured)


def open_folder(header: Header, facts: dict[str, Any], folder: Path) -> IvfIndex:
    """Map the lists of a saved index: only what a search probes is read."""
    faiss = _faiss()
    try:
        lists = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise IndexingError(f"{folder / FILE} cannot be read; build the index again") from error
    return IvfIndex(header, lists, facts["probes"], facts["recall"])


def _faiss() -> Any:
    faiss = faiss_backend.load_faiss()
    if faiss is None:
        raise IndexingError("an ivf index needs FAISS: pip install 'fc7[cpu]', or use kind 'pca'")
    return faiss
