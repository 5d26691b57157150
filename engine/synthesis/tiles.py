"""Gradients of images larger than a pass can hold: in windows, as many as cover them.

What a network keeps of an image for the way back is a hundred times the image; of a window it is
bounded. Along a seam between windows the network lacks surroundings. It stays nowhere if the image
is rolled by another distance each step (TensorFlow's DeepDream tutorial); and windows overlap, so
that what lies next to a window's edge is filled by its neighbour.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.passes import bytes_a_pixel, images_a_pass
from fc7.engine.synthesis.evaluation import Evaluator
from fc7.engine.synthesis.guide import GuideMatch
from fc7.engine.synthesis.objectives import Batch, Objective
from fc7.engine.synthesis.terms import ActivationNorm, Channel, Direction

_KEPT_BYTES = 1 << 30
# What most networks shrink images by in all; windows that begin at its multiples pool alike.
_STRIDE = 32

_OVERLAP, _OVERLAP_SHARE = 64, 4

_MEANS, _SUMS = (Channel, Direction), (ActivationNorm, GuideMatch)


@dataclass(frozen=True)
class Windows:
    """Where the windows of an image lie, all of one size.

    Attributes:
        size: height and width of the image in pixels.
        window: of a window.
        overlap: of neighbours, in pixels.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    overlap: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether one window holds the image."""
        return self.size == self.window

    def places(self) -> list[tuple[slice, slice, slice, slice]]:
        """Return of each window its rows and columns, and which of them are its to fill."""
        rows, columns = (
            _spans(size, window, self.overlap)
            for size, window in zip(self.size, self.window, strict=True)
        )
        return [(row, column, r, c) for row, r in rows for column, c in columns]


def windows_of(size: tuple[int, int], tile: int) -> Windows:
    """Divide an image into windows of sides of at most `tile` pixels, as equal as may be."""
    overlap = min(_OVERLAP, tile // _OVERLAP_SHARE)
    height, width = (_side(length, tile, overlap) for length in size)
    return Windows(size, (height, width), overlap)


def usual_tile(
    network: Network, layers: Iterable[str | None], kept_bytes: int = _KEPT_BYTES
) -> int:
    """Return the side in pixels of a window of which a pass keeps so many bytes at most."""
    side = math.isqrt(int(kept_bytes / bytes_a_pixel(network, layers)))
    return max(side // _STRIDE * _STRIDE, *network.input_size)


def _side(length: int, tile: int, overlap: int) -> int:
    if length <= tile:
        return length
    count = math.ceil((length - overlap) / (tile - overlap))
    equal = math.ceil((length + (count - 1) * overlap) / count)
    return min(tile, math.ceil(equal / _STRIDE) * _STRIDE)


def _spans(length: int, window: int, overlap: int) -> list[tuple[slice, slice]]:
    """Return where windows lie along an axis, and what each fills: up to the overlap's middle.

    The last one begins early enough to be as long as the others.
    """
    starts = [*range(0, length - window, max(1, window - overlap)), length - window]
    cuts = [(left + window + right) // 2 for left, right in pairwise(starts)]
    return [
        (slice(start, start + window), slice(first, last))
        for start, first, last in zip(starts, [0, *cuts], [*cuts, length], strict=True)
    ]


class WindowedGradient:
    """Scores and gradients of images of one size, a window at a time.

    Args:
        network: as it was loaded.
        evaluator: of it, for the layers that are asked.
        objectives: one a row, of one form.
        windows: where they lie.

    Raises:
        OptionError: an objective that is not of places cannot be asked of windows.
    """

    def __init__(
        self,
        network: Network,
        evaluator: Evaluator,
        objectives: Sequence[Objective],
        windows: Windows,
    ) -> None:
        self.windows = windows
        # As many in each pass, or a row's last bits would tell which it was in.
        count = len(objectives)
        passes = math.ceil(count / images_a_pass(network, count, windows.window))
        self._evaluator = copy.copy(evaluator)
        self._evaluator.together = math.ceil(count / passes)
        self._spare = passes * self._evaluator.together - count
        objectives = [*objectives, *[objectives[-1]] * self._spare]
        if not windows.is_whole:
            share = math.prod(windows.window) / math.prod(windows.size)
            objectives = [_of_window(objective, share) for objective in objectives]
        self._batch = Batch(objectives, network.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return gradients (N, 3, H, W) of images (N, 3, H, W) by their pixels."""
        count, images = len(images), self._filled(images)
        if self.windows.is_whole:
            return self._evaluator(images, self._batch).gradients[:count]
        gradients = torch.empty_like(images)
        for rows, columns, own_rows, own_columns in self.windows.places():
            found = self._evaluator(images[..., rows, columns], self._batch).gradients
            gradients[..., own_rows, own_columns] = found[
                ...,
                own_rows.start - rows.start : own_rows.stop - rows.start,
                own_columns.start - columns.start : own_columns.stop - columns.start,
            ]
        return gradients[:count]

    def scores(self, images: Tensor) -> Tensor:
        """Return what images (N, 3, H, W) score, (N,) float32.

        Of several windows it is their sum, less what they overlap: a few per cent off, for along
        their edges they lack what is beyond.
        """
        count, images = len(images), self._filled(images)
        places = self.windows.places()
        total = torch.zeros(len(images), device=images.device)
        for rows, columns, _, _ in places:
            outputs = self._evaluator.outputs(images[..., rows, columns])
            with torch.no_grad():
                total += self._batch(outputs, slice(None))
        covered = len(places) * math.prod(self.windows.window)
        return total[:count] * (math.prod(self.windows.size) / covered)

    def _filled(self, images: Tensor) -> Tensor:
        """Return images with the last repeated until they are as many as objectives."""
        return torch.cat([images, *[images[-1:]] * self._spare]) if self._spare else images


def _of_window(objective: Objective, share: float) -> Objective:
    """Return what an objective asks of a window, so that its windows' add up to the image's.

    Sums over places are as they are; of a mean over places a window has a share.
    """
    terms = []
    for weight, term in objective.terms:
        if not isinstance(term, (*_MEANS, *_SUMS)):
            raise OptionError(
                f"{type(term).__name__} looks at the whole image, which is larger than a tile; "
                "ask for a channel or a layer, or for larger tiles"
            )
        terms.append((weight * share if isinstance(term, _MEANS) else weight, term))
    return Objective(tuple(terms))
