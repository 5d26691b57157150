"""Occlusion maps from coarse to fine: an approximation, where the peak is wanted and not the map.

A coarse grid first; then, where it is strongest, every place of the fine grid. Elsewhere the map
is interpolated between coarse places.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from fc7.engine.attribution.occlusion.grid import interpolation
from fc7.engine.attribution.occlusion.incremental import Base, Spans
from fc7.engine.attribution.occlusion.making import MapMaker
from fc7.engine.attribution.occlusion.sweep import Sweep
from fc7.engine.attribution.question import Score
from fc7.engine.errors import OptionError
from fc7.engine.models import Network


class RefinedOcclusion(MapMaker):
    """Makes approximate occlusion maps, most of their places interpolated; see `MapMaker`.

    Args:
        every: of the grid's rows and columns, one in so many is in the coarse grid, and the last.
        region: the share of each side of the grid that is refined, above 0.

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        network: Network,
        window: int = 16,
        stride: int = 8,
        fill: float | Sequence[float] | None = None,
        score: Score = "probability",
        size: tuple[int, int] | None = None,
        every: int = 3,
        region: float = 0.5,
    ) -> None:
        if every < 2 or not 0 < region <= 1:
            raise OptionError(
                f"every is {every} and region {region}; every must be at least 2, region above 0 "
                "and at most 1"
            )
        self._every, self._region = every, region
        self._fine = cache(self._make_fine)
        super().__init__(network, window, stride, fill, score, size)

    def _first_sweep(self) -> Sweep:
        counts = len(self.rows.starts), len(self.columns.starts)
        self._box = tuple(math.ceil(self._region * count) for count in counts)
        down, across = (_some(count, self._every) for count in counts)
        # From the coarse grid to the fine one, linear between places.
        self._to_fine = tuple(
            torch.from_numpy(interpolation(some.astype(float), np.arange(float(count))))
            for some, count in zip((down, across), counts, strict=True)
        )
        rows, columns = _chosen(self.rows, down), _chosen(self.columns, across)
        return Sweep(self.question, self.graph, rows, columns)

    def _make_fine(self, left: int) -> Sweep:
        columns = _chosen(self.columns, np.arange(left, left + self._box[1]))
        return self._sweep.alike(self.rows, columns)

    def _drops(self, base: Base, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return one image's map, for the region differs from image to image."""
        coarse, scores = self._sweep.drops(base, targets)
        down, across = (matrix.to(coarse) for matrix in self._to_fine)
        drops = down @ coarse @ across.T
        top, left = self._strongest(drops[0])
        bottom, right = top + self._box[0], left + self._box[1]
        exact, _ = self._fine(left).drops(base, targets, range(top, bottom))
        drops[:, top:bottom, left:right] = exact
        return drops, scores

    def _strongest(self, full: Tensor) -> tuple[int, int]:
        """Return the corner of the region with the largest mean."""
        means = avg_pool2d(full[None, None], self._box, 1)[0, 0]
        top, left = divmod(int(means.argmax()), means.shape[1])
        return top, left


def _some(count: int, every: int) -> NDArray[np.int64]:
    return np.unique(np.append(np.arange(0, count, every), count - 1))


def _chosen(spans: Spans, numbers: NDArray[np.int64]) -> Spans:
    return Spans(spans.starts[numbers], spans.stops[numbers])
