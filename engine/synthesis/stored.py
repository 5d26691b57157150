"""Images of targets as a run holds them, read without the network."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data.targets import CLASS
from fc7.engine.store import Run
from fc7.engine.store.stored import StoredMaps, stored_maps
from fc7.engine.synthesis.classes import TECHNIQUE
from fc7.engine.synthesis.judging import STATUSES


@dataclass(frozen=True)
class StoredClasses(StoredMaps):
    """The images of one job."""

    @property
    def layer(self) -> str | None:
        """Whose units they are of; None for classes."""
        layer = self.about["layer"]
        return None if layer is None else str(layer)

    def units(self) -> NDArray[np.int64]:
        """Return each row's class or unit, (N,)."""
        keys = self.job.run.rows["key"].to_pylist()
        prefix = f"{self.layer or CLASS}-"
        return np.array([int(key.removeprefix(prefix).split("-")[0]) for key in keys], np.int64)

    def status(self, row: int) -> str:
        """Return why a row's ascent ended."""
        return STATUSES[int(self.value("status", row))]

    def picture(self, row: int) -> NDArray[np.uint8]:
        """Return a row's image, (H, W, 3)."""
        return np.ascontiguousarray(np.asarray(self.maps[row]).transpose(1, 2, 0))

    def curve(self, row: int) -> NDArray[np.float32]:
        """Return what each of a row's steps scored, (steps,)."""
        return np.asarray(self.job.run[f"{self.name}.curve"][row])[: int(self.value("steps", row))]


def stored_classes(run: Run) -> list[StoredClasses]:
    """Return the jobs that made images of targets, finished or not, in the order of their begin."""
    found = stored_maps(run, TECHNIQUE)
    return [StoredClasses(one.job, one.name, one.about) for one in found]
