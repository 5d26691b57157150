"""How the windows of a row of positions lie in memory: in a few groups of one width each.

A convolution takes windows of one size at a time. Along a row of positions widths differ, by one
where strides do not divide and by more at the border of the image; here they are gathered into
groups, the narrower widened to the widest of their group, where that costs less than one more call.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fc7.engine.attribution.occlusion.incremental.spans import Ints, Spans


class Group(NamedTuple):
    """Windows of one width.

    Attributes:
        width: in elements.
        members: positions, ascending.
        starts: the first element of each.
    """

    width: int
    members: Ints
    starts: Ints


class Layout:
    """The windows of every position of a row: one block of memory for each group.

    Attributes:
        groups: each position is a member of one.
        positions: how many there are.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        self.positions = sum(len(group.members) for group in groups)

    @cached_property
    def group_of(self) -> Ints:
        """The number of each position's group."""
        return self._by_member([np.full(len(g.members), n) for n, g in enumerate(self.groups)])

    @cached_property
    def place_of(self) -> Ints:
        """Each position's place in its group."""
        return self._by_member([np.arange(len(group.members)) for group in self.groups])

    @cached_property
    def spans(self) -> Spans:
        """The elements that each position's window holds."""
        starts = self._by_member([group.starts for group in self.groups])
        widths = self._by_member([np.full(len(g.members), g.width) for g in self.groups])
        return Spans(starts, starts + widths)

    def holds(self, spans: Spans) -> bool:
        """Say whether every position's window holds its span."""
        mine = self.spans
        return bool((mine.starts <= spans.starts).all() and (mine.stops >= spans.stops).all())

    def _by_member(self, values: Sequence[Ints]) -> Ints:
        out = np.empty(self.positions, np.int64)
        for group, value in zip(self.groups, values, strict=True):
            out[group.members] = value
        return out


def gather(spans: Spans, size: int, per_element: float = 1.0, per_group: float = 0.0) -> Layout:
    """Return the layout of least cost that holds the spans.

    Args:
        spans: of each position.
        size: of the axis; no window reaches beyond it.
        per_element: the cost of one element of width.
        per_group: the cost of one more group.
    """
    widths, counts = np.unique(spans.lengths, return_counts=True)
    # From the widest down; best[k] is the least cost of the first k widths, cut[k] its last group.
    widths, counts = widths[::-1], counts[::-1]
    best, cut = [0.0], [0]
    for stop in range(1, len(widths) + 1):
        costs = [
            best[start] + per_group + per_element * widths[start] * counts[start:stop].sum()
            for start in range(stop)
        ]
        cut.append(int(np.argmin(costs)))
        best.append(float(min(costs)))
    groups, stop = [], len(widths)
    while stop:
        start = cut[stop]
        width = int(widths[start])
        chosen = (spans.lengths <= width) & (spans.lengths >= widths[stop - 1])
        members = np.flatnonzero(chosen)
        starts = np.minimum(spans.starts[members], size - width)
        groups.append(Group(width, members, starts))
        stop = start
    return Layout(groups[::-1])


def exact(spans: Spans) -> Layout:
    """Return the layout of spans that all have one length."""
    return Layout([Group(int(spans.lengths[0]), np.arange(len(spans.starts)), spans.starts)])


class Steps(NamedTuple):
    """Numbers first, first + step, ..., `length` of them."""

    first: int
    step: int
    length: int

    @property
    def slice(self) -> slice:
        """The same as a slice; the step must be above 0."""
        return slice(self.first, self.first + self.step * (self.length - 1) + 1, self.step)


class Copy(NamedTuple):
    """One rectangle after the other, from a group's windows, or a map, into another group's.

    Attributes:
        source_group: the number of the group that they come from; -1 for a map.
        source: places in that group, or first columns in the map.
        target: places in the group that they go to.
        source_offset: the first column taken of each window; 0 for a map.
        target_offset: the first column written of each window.
        width: in columns.
    """

    source_group: int
    source: Steps
    target: Steps
    source_offset: int
    target_offset: int
    width: int


def between(source: Layout, target: Layout) -> list[list[Copy]]:
    """Return what to copy of a layout into each group of another."""
    return [copies(source, group.members, group.starts, group.width) for group in target.groups]


def everywhere(source: Layout, width: int) -> list[Copy]:
    """Return what to copy of a layout into whole maps, one for each position."""
    every = np.arange(source.positions)
    return copies(source, every, np.zeros_like(every), width)


def copies(source: Layout, members: Ints, starts: Ints, width: int) -> list[Copy]:
    """Return what to copy of a layout into windows that need not lie in it.

    Args:
        source: where from.
        members: positions of the windows to be filled.
        starts: the first element of each; may lie outside the map.
        width: of all of them.
    """
    held = source.spans
    groups, places = source.group_of[members], source.place_of[members]
    begins = np.maximum(held.starts[members], starts)
    ends = np.minimum(held.stops[members], starts + width)
    keys = np.stack([groups, begins - held.starts[members], begins - starts, ends - begins], axis=1)
    return list(_gathered(keys, places))


def views(size: int, starts: Ints, width: int) -> list[Copy]:
    """Return what to copy of a map of `size` columns into windows that may lie outside it."""
    begins, ends = np.maximum(starts, 0), np.minimum(starts + width, size)
    zero = np.zeros_like(starts)
    keys = np.stack([zero - 1, zero, begins - starts, ends - begins], axis=1)
    return list(_gathered(keys, begins))


def _gathered(keys: Ints, sources: Ints) -> Iterator[Copy]:
    """Yield copies of windows that have one key, and places in even steps."""
    for key in np.unique(keys, axis=0):
        group, source_offset, target_offset, width = (int(number) for number in key)
        if width <= 0:
            continue
        targets = np.flatnonzero((keys == key).all(axis=1))
        for target, source in _even(targets, sources[targets]):
            yield Copy(group, source, target, source_offset, target_offset, width)


def _even(targets: Ints, sources: Ints) -> Iterator[tuple[Steps, Steps]]:
    """Cut pairs of numbers, the targets ascending, into runs of even steps in both."""
    at = 0
    while at < len(targets):
        stop = at + 1
        if stop < len(targets):
            step = (targets[stop] - targets[at], sources[stop] - sources[at])
            while stop < len(targets) and step == (
                targets[stop] - targets[stop - 1],
                sources[stop] - sources[stop - 1],
            ):
                stop += 1
        else:
            step = (1, 1)
        yield (
            Steps(int(targets[at]), int(step[0]), stop - at),
            Steps(int(sources[at]), int(step[1]), stop - at),
        )
        at = stop
