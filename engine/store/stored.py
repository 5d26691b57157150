"""Maps over pixels as a run holds them, read without the network: saliency and guided gradients."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.store.array import PartedArray
from fc7.engine.store.job_folder import Job
from fc7.engine.store.run import Run


@dataclass(frozen=True)
class StoredJob:
    """One job's maps, or masks, with a number of each row beside them.

    Attributes:
        job: the job.
        name: the maps' name in the run: `saliency`, or `saliency-2` and so on.
    """

    job: Job
    name: str

    def column(self, name: str) -> NDArray[Any]:
        """Return one number a row, (N,): target, predicted, probability and so on."""
        return np.asarray(self.job.run[f"{self.name}.{name}"])

    def value(self, name: str, row: int) -> float:
        """Return one number of one row."""
        return float(self.job.run[f"{self.name}.{name}"][row])


@dataclass(frozen=True)
class StoredMaps(StoredJob):
    """The maps of one job, and what was asked.

    Attributes:
        about: how they were made, as the job said it; `technique` is the job's kind.
    """

    about: Mapping[str, Any]

    @property
    def maps(self) -> PartedArray:
        """The maps, (N, H, W) or (N, 3, H, W)."""
        return self.job.run[self.name]

    def has(self, column: str) -> bool:
        """Whether the job keeps such a number of each row."""
        return f"{self.name}.{column}" in self.job.outputs


def stored_maps(run: Run, technique: str) -> list[StoredMaps]:
    """Return the jobs of a technique, finished or not, in the order they were begun."""
    found = []
    for job in run.jobs().values():
        for output in job.outputs.values():
            about = output.attributes
            if about.get("technique") == technique and about["of"] == output.name:
                found.append(StoredMaps(job, output.name, about))
    return sorted(found, key=lambda one: [int(n) for n in re.findall(r"\d+$", one.name)])
