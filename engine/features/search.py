"""Queries: which rows are nearest to these images, or to these rows?

`BuildIndex` is a stage that keeps a search index beside the vectors; without one, every query is
searched exactly. Queries that are rows of the run are answered from the run's graph when it holds
enough neighbours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fc7.engine.data import decode_image
from fc7.engine.errors import BadImage, SourceError, StoreError
from fc7.engine.features.neighbors import neighbors_job
from fc7.engine.store import Job, Run
from fc7.engine.store.network import network_of
from fc7.engine.store.vectors import PIXELS, Vectors, open_vectors
from fc7.indexing import Index, IndexPlan, Neighbors, build_index, choose_index, open_index
from fc7.indexing.plan import plan_index
from fc7.kernels import spatial_max

DEFAULT_MEMORY_BYTES = 8 << 30


def index_job(layer: str) -> str:
    """Return the name of the job that holds a layer's search index."""
    return f"index-{layer}"


class BuildIndex:
    """A search index over one layer's good rows.

    Args:
        run: the run.
        layer: an output with one vector a row.
        kind: `auto`, `flat`, `ivf` or `pca`; see `fc7.indexing.build_index`.
        metric: `l2` or `cosine`.
        memory_bytes: what a search may keep in memory.

    Attributes:
        plan: what will be built, why, and its bytes, known before anything is read.
    """

    def __init__(
        self,
        run: Run,
        layer: str,
        kind: str = "auto",
        metric: str = "l2",
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self.name = index_job(layer)
        self._run, self._layer = run, layer
        self._kind, self._metric, self._memory_bytes = kind, metric, memory_bytes
        self._vectors = open_vectors(run, layer)
        n, d = self._vectors.shape
        self.plan: IndexPlan = (
            choose_index(n, d, memory_bytes)
            if kind == "auto"
            else plan_index(kind, n, d, "asked for")  # type: ignore[arg-type]  # build checks it
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """The layer's own fingerprint and every option."""
        return {
            "input": self._run.outputs()[self._layer].digest,
            "layer": self._layer,
            "rectified": self._vectors.rectified,
            "kind": self._kind,
            "metric": self._metric,
            "memory_bytes": self._memory_bytes,
        }

    def build(self, folder: Path) -> Mapping[str, Any]:
        """Build the index and save it."""
        index = build_index(self._vectors, self._kind, self._metric, self._memory_bytes)
        index.save(folder)
        return {
            "kind": index.plan.kind,
            "reason": index.plan.reason,
            "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
            "recall_at_10": index.recall,
            "metric": self._metric,
            "rows": len(self._vectors),
        }


def find_neighbors(
    run: Run,
    queries: Sequence[str | int | Path],
    k: int,
    layer: str,
    metric: str = "l2",
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Return the k nearest rows of each query.

    Args:
        run: the run.
        queries: row numbers (a row is left out of its own answer), or image files.
        k: how many.
        layer: an output with one vector a row.
        metric: `l2`, true Euclidean distance, or `cosine`, 1 - cos.
        device: for the network, where a query is a file.

    Returns:
        For each query: `query`, its `row`, `key` and `label` (None for a file), and `neighbors`,
        a list of `row`, `key`, `label` and `distance`, nearest first.

    Raises:
        StoreError: no such row, a bad row, or no such layer.
        SourceError: a file that cannot be used.
    """
    if k < 1:
        raise StoreError(f"k is {k}; ask for one neighbour at least")
    vectors = open_vectors(run, layer)
    rows = [_row_number(query) for query in queries]
    for row in rows:
        if row is not None and not 0 <= row < len(run):
            raise StoreError(f"no row {row}; {run.folder} has rows 0 to {len(run) - 1}")
        if row is not None and vectors.from_rows(np.array([row]))[0] < 0:
            raise StoreError(f"row {row} is bad ({run.rows.column('detail')[row].as_py()})")
    files = [str(query) for query, row in zip(queries, rows, strict=True) if row is None]
    embedded = iter(embed_files(run, files, layer, vectors, device)) if files else iter(())
    searcher = _Searcher(run, layer, vectors, metric)
    namer = _Namer(run)
    answers = []
    for query, row in zip(queries, rows, strict=True):
        found = searcher.of_row(row, k) if row is not None else searcher.of(next(embedded), k)
        hits = [
            {**namer(int(hit)), "distance": float(distance)}
            for hit, distance in zip(*found, strict=True)
            if hit >= 0
        ]
        about = namer(row) if row is not None else {"row": None, "key": None, "label": None}
        answers.append({"query": str(query), **about, "neighbors": hits})
    return answers


def embed_files(
    run: Run, files: Sequence[str | Path], layer: str, vectors: Vectors, device: str = "auto"
) -> NDArray[np.float32]:
    """Return the layer's vectors (Q, D) of image files, exactly as extraction would store them.

    Raises:
        SourceError: a file cannot be read or decoded.
    """
    network = network_of(run, device)
    asked = str(run.outputs()[layer].outputs[layer].attributes["layer"])
    embedded = []
    for file in files:
        try:
            image = network.transform(decode_image(Path(file).read_bytes()))
        except BadImage as error:
            raise SourceError(f"{file}: {error.status} ({error})") from error
        except OSError as error:
            raise SourceError(
                f"{file} cannot be read ({error.strerror}); neither is it a row"
            ) from error
        pixels = image[None].float().div_(255).to(network.device)
        if layer == PIXELS:
            raise SourceError("files are compared in a layer; --layer pixels takes row numbers")
        with torch.inference_mode():
            value = network.activations(pixels, [asked])[asked]
            if layer != asked:  # what is stored of a map
                kept = zip((f"{asked}.max", f"{asked}.argmax"), spatial_max(value), strict=True)
                value = dict(kept)[layer]
        embedded.append(value.flatten().float().cpu().numpy().astype(vectors.dtype))
    stacked = np.stack(embedded).astype(np.float32)
    return np.maximum(stacked, 0) if vectors.rectified else stacked


class _Searcher:
    """Answers from the graph, from a saved index, or by exact search, whichever is at hand."""

    def __init__(self, run: Run, layer: str, vectors: Vectors, metric: str) -> None:
        self._run, self._layer, self._vectors, self._metric = run, layer, vectors, metric
        self._index: Index | None = None

    def of_row(self, row: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        graph = self._current(neighbors_job(self._layer))
        if graph is not None and k <= graph.fingerprint["k"]:
            return graph.result("ids")[row, :k], graph.result("distances")[row, :k]
        place = int(self._vectors.from_rows(np.array([row]))[0])
        query = np.asarray(self._vectors[place], dtype=np.float32)
        ids, distances = self.of(query, k + 1)
        others = ids != row
        return ids[others][:k], distances[others][:k]

    def of(
        self, query: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if self._index is None:
            self._index = self._open()
        k = min(k, len(self._vectors))
        found: Neighbors = self._index.search(query[None], k)
        return self._vectors.to_rows(found.ids)[0], found.distances[0]

    def _open(self) -> Index:
        job = self._current(index_job(self._layer))
        if job is not None:
            return open_index(job.folder / "result", self._vectors)
        return build_index(self._vectors, "flat", self._metric)

    def _current(self, name: str) -> Job | None:
        """Return a finished job of that name over these vectors and this metric, or None."""
        job = self._run.jobs().get(name)
        if job is None or job.result_record() is None:
            return None
        made_from = job.fingerprint["input"], job.fingerprint["metric"]
        wanted = self._run.outputs()[self._layer].digest, self._metric
        return job if made_from == wanted else None


class _Namer:
    """Row, key and label of a row, from one reading of the rows table."""

    def __init__(self, run: Run) -> None:
        self._table, self._names = run.rows, run.label_names

    def __call__(self, row: int) -> dict[str, Any]:
        label = self._table.column("label")[row].as_py()
        name = self._names[label] if label is not None and self._names else label
        return {"row": row, "key": self._table.column("key")[row].as_py(), "label": name}


def _row_number(query: str | int | Path) -> int | None:
    """Read a query as a row number; None where it is a file's name."""
    text = str(query)
    if isinstance(query, str) and Path(query).exists():
        return None
    return int(text) if text.removeprefix("-").isdecimal() else None
