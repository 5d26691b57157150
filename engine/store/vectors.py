"""A layer of a run as vectors: good rows only, rectified where the network itself rectifies.

What makes fc7 a description of an image is what the next layer sees of it, ReLU(fc7), and
distances are taken there (Krizhevsky et al. 2012, section 6). The store keeps the layer's own
output; this view applies the ReLU on reading.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import StoreError
from fc7.engine.store.array import PartedArray
from fc7.engine.store.run import Run

PIXELS = "pixels"
"""The output that holds every image as the network sees it, shrunk: the baseline of neighbours."""


class Vectors:
    """(n, D) array-like over the good rows of one output; slices and integer arrays are read.

    Attributes:
        rows: (n,) int64, the run's row of each vector.
        rectified: whether negative values read as zero.
    """

    def __init__(self, array: PartedArray, rows: NDArray[np.int64], rectified: bool) -> None:
        self._array, self.rows, self.rectified = array, rows, rectified
        self._all_good = len(rows) == len(array)
        self.shape = (len(rows), int(np.prod(array.shape[1:], dtype=np.int64)))
        # Integers (pixels) are read as float32; floats as they are stored.
        self.dtype = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        chosen = self._array[index if self._all_good else self.rows[index]]
        values = chosen.reshape(*chosen.shape[: chosen.ndim - self._array.ndim + 1], -1)
        if isinstance(index, int | np.integer):
            values = values.reshape(-1)
        values = values.astype(self.dtype, copy=False)
        return np.maximum(values, 0) if self.rectified else values

    def to_rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Translate numbers of vectors, as an index returns them, to rows of the run."""
        return np.where(ids < 0, -1, self.rows[ids])

    def from_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Translate rows of the run to numbers of vectors; -1 for a bad row."""
        places = np.searchsorted(self.rows, rows)
        places = np.minimum(places, len(self.rows) - 1)
        return np.where(self.rows[places] == rows, places, -1)


def open_vectors(run: Run, layer: str, rectify: bool | None = None) -> Vectors:
    """Open a layer of a run as vectors.

    Args:
        run: the run.
        layer: the name of an output with one vector a row, such as `fc7` or `conv5.max`.
        rectify: apply a ReLU; by default where one follows the layer in the network.

    Raises:
        StoreError: no such output, or it holds maps, or no row of it is good.
    """
    array = run[layer]
    if array.dtype.hasobject:
        raise StoreError(f"{layer} holds a byte string a row, not vectors; name a layer")
    if array.ndim != 2 and layer != PIXELS:
        raise StoreError(
            f"{layer} holds maps {array.shape[1:]}, not vectors; use {layer}.max, or search its "
            "patches"
        )
    rows = np.flatnonzero(run.good)
    if not len(rows):
        raise StoreError(f"no row of {run.folder} is good; fc7 report lists why")
    if rectify is None:
        attributes = run.outputs()[layer].outputs[layer].attributes
        rectify = bool(attributes.get("rectified", False))
    return Vectors(array, rows, rectify)


def vector_layers(run: Run) -> list[str]:
    """Return the run's layers with one vector a row, the one to seek neighbours in last.

    That is the deepest before the logits: fc7, or the pooled features of a residual network.
    """
    vectors = {
        output.name: output.attributes
        for job in run.outputs().values()
        for output in job.outputs.values()
        if output.name == output.attributes.get("layer") != PIXELS and len(output.shape) == 1
    }
    after = {name: about["layers_after"] for name, about in vectors.items()}
    return sorted(vectors, key=lambda name: (after[name] > 0, -after[name]))


def default_vectors(run: Run) -> str:
    """Return the vector layer of a run that neighbours are sought in; see `vector_layers`.

    Raises:
        StoreError: it has none.
    """
    layers = vector_layers(run)
    if not layers:
        raise StoreError(
            f"{run.folder} holds no vectors; extract a layer such as fc7 or avgpool, or name an "
            "output such as conv5.max"
        )
    return layers[-1]
