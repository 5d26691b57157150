"""A layer's maximal patches as a run holds them: read without the job that finds them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fc7.engine.store.run import Run


def patches_job(layer: str) -> str:
    """Return the name of the job that holds a layer's maximal patches."""
    return f"patches-{layer}"


@dataclass(frozen=True)
class Patches:
    """A layer's maximal patches, as `fc7.engine.features.patches.TopPatches` made them."""

    layer: str
    values: NDArray[np.float32]
    rows: NDArray[np.int64]
    positions: NDArray[np.int32]

    @property
    def k(self) -> int:
        """Patches a channel."""
        return int(self.rows.shape[1])


def read_patches(run: Run, layer: str) -> Patches:
    """Read a layer's maximal patches from a run.

    Raises:
        StoreError: the run has none for that layer.
    """
    job = run.job(patches_job(layer))
    return Patches(layer, job.result("values"), job.result("rows"), job.result("positions"))
