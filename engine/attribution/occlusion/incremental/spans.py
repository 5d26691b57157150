"""How far a local difference reaches, along one axis: a span of elements for each position.

A position is one place of the window that is slid over the image; its span in a layer is the range
of elements that it can change. A window's rows depend on its row alone and its columns on its
column alone, so two lists of spans say all about a grid of windows. A span may be larger than need
be, for the difference is then zero at its ends, and is never empty.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.tracing.ops import Slide

Ints = NDArray[np.int64]


class Spans(NamedTuple):
    """Half open ranges of elements, (positions,) each."""

    starts: Ints
    stops: Ints

    @property
    def lengths(self) -> Ints:
        """Elements of each."""
        return self.stops - self.starts

    @property
    def total(self) -> int:
        """Elements of all together."""
        return int(self.lengths.sum())


def whole(positions: int, size: int) -> Spans:
    """Return spans of all `size` elements."""
    return Spans(np.zeros(positions, np.int64), np.full(positions, size, np.int64))


def touched(spans: Spans, slide: Slide, size: int) -> Spans:
    """Return which of `size` outputs of a sliding kernel read anything of each span.

    Output o reads from o stride - padding on, so it reads something of a..b - 1 where
    a - reach < o stride - padding < b. With dilation it may step over a short span all the same.
    """
    kernel_end = slide.padding - slide.reach + 1
    first = -((-spans.starts - kernel_end) // slide.stride)
    last = (spans.stops - 1 + slide.padding) // slide.stride
    return within(Spans(first, last + 1), size)


def averaged(spans: Spans, source: int, size: int) -> Spans:
    """Return which of `size` adaptive averages over `source` elements read of each span."""
    number = np.arange(size)
    begins, ends = number * source // size, -(-(number + 1) * source // size)
    first = np.searchsorted(ends, spans.starts, side="right")
    last = np.searchsorted(begins, spans.stops, side="left")
    return within(Spans(first, last), size)


def hull(*several: Spans) -> Spans:
    """Return for each position the smallest span that holds all of its spans."""
    starts = np.minimum.reduce([spans.starts for spans in several])
    stops = np.maximum.reduce([spans.stops for spans in several])
    return Spans(starts, stops)


def capped(spans: Spans, most: int) -> Spans:
    """Return the middle of spans longer than `most` elements."""
    lengths = np.minimum(spans.lengths, most)
    starts = spans.starts + (spans.lengths - lengths) // 2
    return Spans(starts, starts + lengths)


def within(spans: Spans, size: int) -> Spans:
    """Cut spans to 0..size; one that has nothing left becomes a single element."""
    starts = np.clip(spans.starts, 0, size - 1)
    stops = np.clip(spans.stops, starts + 1, size)
    return Spans(starts, stops)
