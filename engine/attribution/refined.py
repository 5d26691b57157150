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

from fc7.engine.attribution.grid import window_spans
from fc7.engine.attribution.incremental import Spans
from fc7.engine.attribution.occlusion import checked, covering, on_device
from fc7.engine.attribution.sweep import Maps, Question, Score, Sweep
from fc7.engine.attribution.tracing import trace
from fc7.engine.errors import OptionError
from fc7.engine.models import Network


class RefinedOcclusion:
    """Makes approximate occlusion maps of images of one size, most of their places interpolated.

    Args:
        network: the network.
        window: side of the square in pixels.
        stride: pixels from one place of the fine grid to the next.
        fill: what covers; see `Occlusion`.
        score: "probability", the softmax's, or "logit".
        size: height and width of the images; the network's own if None.
        every: of the fine grid's rows and columns, one in so many is in the coarse grid, and the
            last.
        region: the share of each side of the grid that is refined, above 0.

    Attributes:
        grid: rows and columns of places of the fine grid.
        plan: what will be computed of the coarse grid.
        unknown: names of functions that have no rule, so that the network runs in full from there.

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
        self.size = size or network.input_size
        every_row, every_column = (window_spans(side, window, stride) for side in self.size)
        self.grid = len(every_row.starts), len(every_column.starts)
        self._rows, self._columns = covering(every_row), covering(every_column)
        self._network, self._question = network, Question(network, fill, score)
        self._graph = trace(network.folded([]), self.size)
        self.unknown = self._graph.unknown
        self._down = _some(len(self._rows.starts), every)
        self._across = _some(len(self._columns.starts), every)
        self._coarse = self._sweep(self._rows, _chosen(self._columns, self._across), self._down)
        self._box = tuple(
            math.ceil(region * len(spans.starts)) for spans in (self._rows, self._columns)
        )
        self._fine = cache(self._make_fine)
        self.plan = self._coarse.plan

    def _sweep(self, rows: Spans, columns: Spans, some: NDArray[np.int64] | None = None) -> Sweep:
        rows = rows if some is None else _chosen(rows, some)
        return Sweep(self._question, self._graph, rows, columns)

    def _make_fine(self, left: int) -> Sweep:
        return self._sweep(self._rows, _chosen(self._columns, np.arange(left, left + self._box[1])))

    @torch.inference_mode()
    def maps(self, images: Tensor, targets: Tensor | Sequence[int] | None = None) -> Maps:
        """Return the maps of images; see `Occlusion.maps`."""
        wanted = checked(self._network, images, self.size, targets, self.plan)
        device = self._network.device
        drops = torch.zeros(len(images), *self.grid, device=device)
        found = torch.empty(len(images), dtype=torch.int64, device=device)
        scores = torch.empty(len(images), device=device)
        # One by one, for the region differs from image to image.
        for number in range(len(images)):
            one = slice(number, number + 1)
            base = self._coarse.executor.base(on_device(images[one], self._network))
            found[one] = base.output.argmax(1) if wanted is None else wanted[one]
            coarse, scores[one] = self._coarse.drops(base, found[one])
            full = self._interpolated(coarse[0])
            top, left = self._strongest(full)
            bottom, right = top + self._box[0], left + self._box[1]
            exact, _ = self._fine(left).drops(base, found[one], range(top, bottom))
            full[top:bottom, left:right] = exact[0]
            drops[number, : full.shape[0], : full.shape[1]] = full
        return Maps(drops, found, scores)

    def _interpolated(self, coarse: Tensor) -> Tensor:
        """Return a coarse map on the fine grid, linear between its places."""
        down = _between(self._down, len(self._rows.starts)).to(coarse)
        across = _between(self._across, len(self._columns.starts)).to(coarse)
        return down @ coarse @ across.T

    def _strongest(self, full: Tensor) -> tuple[int, int]:
        """Return the corner of the region with the largest mean."""
        means = avg_pool2d(full[None, None], self._box, 1)[0, 0]
        top, left = divmod(int(means.argmax()), means.shape[1])
        return top, left


def _some(count: int, every: int) -> NDArray[np.int64]:
    return np.unique(np.append(np.arange(0, count, every), count - 1))


def _chosen(spans: Spans, numbers: NDArray[np.int64]) -> Spans:
    return Spans(spans.starts[numbers], spans.stops[numbers])


def _between(numbers: NDArray[np.int64], count: int) -> Tensor:
    """Return the matrix, (count, len(numbers)), that interpolates between places."""
    weights = [np.interp(np.arange(count), numbers, row) for row in np.eye(len(numbers))]
    return torch.from_numpy(np.stack(weights, 1))
