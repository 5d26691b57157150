"""Images of facets as a run holds them, read without the network."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data import Source, open_source
from fc7.engine.data.facet_targets import FacetTarget
from fc7.engine.data.targets import CLASS
from fc7.engine.errors import Fc7Error
from fc7.engine.models import Network
from fc7.engine.models.targets import class_name
from fc7.engine.store import Run
from fc7.engine.store.stored import StoredMaps, stored_maps
from fc7.engine.synthesis.facets import TECHNIQUE
from fc7.engine.synthesis.judging import STATUSES


@dataclass(frozen=True)
class StoredFacets(StoredMaps):
    """The images of one job."""

    @property
    def layer(self) -> str | None:
        """Whose units they are of; None for classes."""
        layer = self.about["layer"]
        return None if layer is None else str(layer)

    def targets(self) -> list[FacetTarget]:
        """Return what each row is a facet of."""
        prefix = f"{self.layer or CLASS}-"
        found = []
        for key in self.job.run.rows["key"].to_pylist():
            parts = re.fullmatch(r"([0-9+]+)-facet-([0-9]+)", key.removeprefix(prefix))
            assert parts is not None
            units = tuple(int(unit) for unit in parts[1].split("+"))
            found.append(FacetTarget(self.layer, units, int(parts[2])))
        return found

    def status(self, row: int) -> str:
        """Return why a row's last stage ended."""
        return STATUSES[int(self.value("status", row))]

    def picture(self, row: int) -> NDArray[np.uint8]:
        """Return a row's image, (H, W, 3)."""
        return _last(self.maps[row])

    def start(self, row: int) -> NDArray[np.uint8]:
        """Return the mean image that it began with, (H, W, 3)."""
        return _last(self.job.run[f"{self.name}.start"][row])

    def curve(self, row: int) -> NDArray[np.float32]:
        """Return what each of a row's steps scored, (steps,)."""
        return np.asarray(self.job.run[f"{self.name}.curve"][row])[: int(self.value("steps", row))]

    def nearest(self, row: int) -> NDArray[np.int64]:
        """Return the rows of the first run that are nearest to the facet's mean, (n,)."""
        found = np.asarray(self.job.run[f"{self.name}.nearest"][row])
        return found[found >= 0]

    def images(self) -> Source | None:
        """Return the images that were clustered; None where they are no longer to be had."""
        spec, digest = (self.about["source"][key] for key in ("spec", "digest"))
        try:
            source = open_source(spec)
        except (Fc7Error, OSError):
            return None
        return source if source.digest() == digest else None


def stored_facets(run: Run) -> list[StoredFacets]:
    """Return the jobs that made images of facets, finished or not, in the order of their begin."""
    found = stored_maps(run, TECHNIQUE)
    return [StoredFacets(one.job, one.name, one.about) for one in found]


def name_of(target: FacetTarget, network: Network | None) -> str:
    """Return what a facet is of: a class's name, the names of a union, or a unit's number."""
    if target.layer is not None:
        return f"{target.layer} {target.units[0]}"
    return " or ".join(class_name(network, unit) for unit in target.units)


def _last(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(picture).transpose(1, 2, 0))
