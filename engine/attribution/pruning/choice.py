"""Which channels go: the least important first, across all layers, up to a budget.

The budget is a share of all channels of convolutions, or the share of multiply-adds that may stay.
A unit of channels that hang together has one score, made of theirs as the criterion says. No layer
loses its last channel.
"""

from collections.abc import Mapping, Sequence

from fc7.engine.attribution.importance.criteria import Criterion
from fc7.engine.attribution.importance.stored import ConvolutionLayer, Scores
from fc7.engine.attribution.pruning.coupling import IN, OUT, Axis, Unit
from fc7.engine.errors import OptionError


def ranked(
    units: Sequence[Unit],
    layers: Sequence[ConvolutionLayer],
    scores: Scores,
    criterion: Criterion,
) -> list[Unit]:
    """Return the units, the least important first; ties stay in their order.

    Args:
        units: of a network.
        layers: its convolutions.
        scores: of each of them, (C,), comparable across layers.
        criterion: how the scores of a unit's channels make one.
    """
    by_path = {layer.path: layer_scores for layer, layer_scores in zip(layers, scores, strict=True)}

    def score(unit: Unit) -> float:
        return criterion.together([float(by_path[path][place]) for path, place in unit.channels])

    return sorted(units, key=score)


class Room:
    """What is left of each axis of each layer while units go.

    Args:
        sizes: places along each axis that any unit removes from.
        cost: multiply-adds by layer, before anything goes.
    """

    def __init__(self, sizes: Mapping[Axis, int], cost: Mapping[str, int]) -> None:
        self._sizes, self._left = sizes, dict(sizes)
        self._before, self._cost = cost, dict(cost)
        self.multiply_adds = sum(cost.values())

    def fits(self, unit: Unit) -> bool:
        """Say whether every axis keeps something without the unit."""
        return all(self._left[axis] > len(places) for axis, places in unit.removes.items())

    def take(self, unit: Unit) -> None:
        """Remove the unit, and count what it saves."""
        for axis, places in unit.removes.items():
            self._left[axis] -= len(places)
        for path in {path for path, _ in unit.removes if path in self._cost}:
            before = after = 1
            for axis in ((path, OUT), (path, IN)):
                before *= self._sizes.get(axis, 1)
                after *= self._left.get(axis, 1)
            cost = self._before[path] * after // before
            self.multiply_adds += cost - self._cost[path]
            self._cost[path] = cost


def by_fraction(ordered: Sequence[Unit], fraction: float, channels: int, room: Room) -> list[Unit]:
    """Choose units until a fraction of all channels is gone, or the next would be too many.

    Args:
        ordered: units, the first to go first.
        fraction: in (0, 1).
        channels: of all convolutions together.
        room: of the network.

    Raises:
        OptionError: the fraction is out of range, or too small for any unit.
    """
    if not 0 < fraction < 1:
        raise OptionError(f"fraction is {fraction:g}; it is a share of channels between 0 and 1")
    chosen, left = [], int(fraction * channels + 1e-9)
    for unit in ordered:
        if len(unit.channels) <= left and room.fits(unit):
            room.take(unit)
            chosen.append(unit)
            left -= len(unit.channels)
    if not chosen:
        raise OptionError(
            f"fraction is {fraction:g}: of {channels} channels no set that can go is so small"
        )
    return chosen


def by_multiply_adds(ordered: Sequence[Unit], share: float, room: Room) -> list[Unit]:
    """Choose units until no more than a share of the multiply-adds is left.

    Args:
        ordered: units, the first to go first.
        share: in (0, 1), of what the network takes.
        room: of the network.

    Raises:
        OptionError: the share is out of range, or more than that stays whatever goes.
    """
    if not 0 < share < 1:
        raise OptionError(f"flops is {share:g}; it is the share that stays, between 0 and 1")
    budget = share * room.multiply_adds
    before, chosen = room.multiply_adds, []
    for unit in ordered:
        if room.multiply_adds <= budget:
            break
        if room.fits(unit):
            room.take(unit)
            chosen.append(unit)
    if room.multiply_adds > budget:
        raise OptionError(
            f"with all channels gone that can go, {room.multiply_adds / before:.0%} of the "
            f"multiply-adds stay; ask for more than --flops {share:g}"
        )
    return chosen
