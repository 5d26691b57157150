"""Maximal patches: for every channel, the images and places that excite it most.

A fold over what extraction stores: `LAYER.max` and `LAYER.argmax` of a spatial layer, one patch an
image, or the activations of a fully connected layer, whose patch is the whole image. The result is
exactly the first k of a full sort of the stored values, ties by row; a channel that is never
positive has its least negative patches.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fc7.engine.errors import StoreError
from fc7.engine.store import Arrays, Output
from fc7.engine.store.patches import patches_job
from fc7.kernels import empty_topk, merge_topk

DEFAULT_K = 9


class TopPatches:
    """The k strongest images of every channel of a layer.

    The result's arrays are `values` (C, k) float32, descending, `rows` (C, k) int64 and
    `positions` (C, k) int32, flat places in the layer's map; where there are fewer than k good
    images the rest has row -1.

    Args:
        layer: the layer's name in the run.
        positions: positions of the layer's map; 1 for a vector.
        k: how many.
    """

    def __init__(self, layer: str, positions: int, k: int = DEFAULT_K) -> None:
        if k < 1:
            raise StoreError(f"k is {k}; ask for one patch at least")
        self.name = patches_job(layer)
        self._layer, self._positions, self._k = layer, positions, k
        self.inputs = [layer] if positions == 1 else [f"{layer}.max", f"{layer}.argmax"]

    @classmethod
    def of(cls, outputs: Mapping[str, Output], layer: str, k: int = DEFAULT_K) -> "TopPatches":
        """Make the fold for a layer of a run's or a job's outputs.

        Raises:
            StoreError: the layer is not among them.
        """
        spatial = outputs.get(f"{layer}.max")
        if spatial is not None:
            return cls(layer, spatial.attributes["height"] * spatial.attributes["width"], k)
        if layer in outputs and len(outputs[layer].shape) == 1:
            return cls(layer, 1, k)
        layers = sorted({str(output.attributes.get("layer")) for output in outputs.values()})
        raise StoreError(f"no layer {layer!r} in the run; it has {', '.join(layers)}")

    def fingerprint(self) -> Mapping[str, Any]:
        """The layer and k."""
        return {"layer": self._layer, "k": self._k}

    def part(self, rows: NDArray[np.int64], arrays: Arrays) -> Arrays:
        """Return the top k of one part: values (C, k) and ids (C, k), row * positions + place."""
        if len(rows) == 0:
            return _as_state(*empty_topk(arrays[self.inputs[0]].shape[1], self._k))
        # A copy, for what is stored is read-only.
        columns = torch.from_numpy(np.array(arrays[self.inputs[0]])).T
        # Numbers within the part stand for ids, which most candidates then never need.
        numbers = torch.arange(len(rows)).expand(columns.shape)
        top = empty_topk(len(columns), self._k, columns.dtype)
        values, best = (tensor.numpy() for tensor in merge_topk(*top, columns, numbers))
        ids = rows[best] * self._positions
        if self._positions > 1:
            ids += np.take_along_axis(arrays[self.inputs[1]], best.T, axis=0).T
        return {"values": values.astype(np.float32), "ids": np.where(best < 0, -1, ids)}

    def merge(self, state: Arrays, later: Arrays) -> Arrays:
        """Keep the k strongest of both."""
        tensors = [torch.from_numpy(s[n]) for s in (state, later) for n in ("values", "ids")]
        return _as_state(*merge_topk(*tensors))

    def finish(self, state: Arrays) -> Arrays:
        """Split the ids into rows and positions."""
        ids = state["ids"]
        return {
            "values": state["values"],
            "rows": np.where(ids < 0, -1, ids // self._positions),
            "positions": np.where(ids < 0, 0, ids % self._positions).astype(np.int32),
        }


def _as_state(values: torch.Tensor, ids: torch.Tensor) -> dict[str, NDArray[Any]]:
    return {"values": values.contiguous().numpy(), "ids": ids.contiguous().numpy()}
