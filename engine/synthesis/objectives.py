"""What an image is asked to do: terms that add up as values.

    0.2 * channel("conv3", 5) + 0.8 * class_logit(7)

An objective is of one row. The rows of a batch may ask for other units, weights and features of
the same layers: `Batch` joins objectives of one `form`, and scores each row by its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fc7.engine.models import Network
from fc7.engine.synthesis.terms import (
    LOGITS,
    ActivationNorm,
    AnyOf,
    Channel,
    Direction,
    FeatureMatch,
    Logit,
    LogProbability,
    Margin,
    Neuron,
    Term,
)

Outputs = Mapping[str | None, Tensor]
"""What layers return, (N, ...), by name."""
# Of each term: its layer, the rows' weights, (n,), and what scores them.
_Joined = list[tuple[str | None, Tensor, Callable[[Tensor], Tensor]]]


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms; add, subtract and scale it like a number.

    Attributes:
        terms: each with its weight.
    """

    terms: tuple[tuple[float, Term], ...]

    @property
    def form(self) -> tuple[tuple[type[Term], str | None], ...]:
        """What rows of one batch must have in common: kinds of terms, and layers."""
        return tuple((type(term), term.layer) for _, term in self.terms)

    @property
    def layers(self) -> tuple[str | None, ...]:
        """The layers that it reads, each once."""
        return tuple(dict.fromkeys(term.layer for _, term in self.terms))

    def check(self, network: Network) -> Self:
        """Return itself.

        Raises:
            LayerError: the network has no such layer.
            OptionError: or no such unit of it.
        """
        for _, term in self.terms:
            term.check(network)
        return self

    def __add__(self, other: "Objective") -> "Objective":
        """Ask for both."""
        return Objective(self.terms + other.terms)

    def __sub__(self, other: "Objective") -> "Objective":
        """Ask for one and against the other."""
        return self + -other

    def __mul__(self, factor: float) -> "Objective":
        """Ask so many times as loudly."""
        return Objective(tuple((weight * factor, term) for weight, term in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        """Ask for the contrary."""
        return self * -1.0


class Batch:
    """The objectives of the rows of a batch.

    Args:
        objectives: N of one form.
        device: where outputs are.

    Raises:
        ValueError: they are of several forms.
    """

    def __init__(self, objectives: Sequence[Objective], device: torch.device) -> None:
        if len({objective.form for objective in objectives}) != 1:
            raise ValueError("the rows of a batch must ask for the same kinds of terms and layers")
        self._objectives, self._device = objectives, device
        self.layers = objectives[0].layers
        self._scorers: dict[tuple[int, int, int], _Joined] = {}

    def __call__(self, outputs: Outputs, rows: slice) -> Tensor:
        """Return the scores of some of the rows, (n,) float32, of their outputs, (n, ...)."""
        key = rows.indices(len(self._objectives))
        if key not in self._scorers:
            self._scorers[key] = self._join(self._objectives[rows])
        scores = None
        for layer, weights, scorer in self._scorers[key]:
            found = weights * scorer(outputs[layer].float())
            scores = found if scores is None else scores + found
        assert scores is not None
        return scores

    def _join(self, objectives: Sequence[Objective]) -> _Joined:
        joined = []
        for number, (kind, layer) in enumerate(objectives[0].form):
            pairs = [objective.terms[number] for objective in objectives]
            weights = torch.tensor([weight for weight, _ in pairs], device=self._device)
            joined.append((layer, weights, kind.scorer([term for _, term in pairs], self._device)))
        return joined


def _alone(term: Term) -> Objective:
    return Objective(((1.0, term),))


def channel(layer: str, unit: int) -> Objective:
    """Ask for the mean of a channel over its places; of a vector, for one of its values."""
    return _alone(Channel(layer, unit))


def neuron(layer: str, unit: int, row: int | None = None, column: int | None = None) -> Objective:
    """Ask for a channel at one place; in the middle if none is named."""
    return _alone(Neuron(layer, unit, row, column))


def class_logit(unit: int) -> Objective:
    """Ask for the logit of a class (Simonyan et al. 2014)."""
    return _alone(Logit(LOGITS, unit))


def any_class(units: Sequence[int]) -> Objective:
    """Ask for one of several classes, whichever: for the logit they would have as one class."""
    return _alone(AnyOf(LOGITS, tuple(units)))


def log_probability(unit: int) -> Objective:
    """Ask for the probability of a class, by its logarithm."""
    return _alone(LogProbability(LOGITS, unit))


def margin(unit: int) -> Objective:
    """Ask for a class before all others."""
    return _alone(Margin(LOGITS, unit))


def direction(layer: str, vector: Tensor) -> Objective:
    """Ask for a direction in a layer's channels, (C,)."""
    return _alone(Direction(layer, vector))


def activation_norm(layer: str) -> Objective:
    """Ask for more of whatever a layer already sees (DeepDream)."""
    return _alone(ActivationNorm(layer))


def feature_match(layer: str, features: Tensor) -> Objective:
    """Ask for an image of the same features, in the layer's shape (Mahendran, Vedaldi 2015)."""
    return _alone(FeatureMatch(layer, features))
