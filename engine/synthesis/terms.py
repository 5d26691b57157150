"""What a layer's output is asked for: one number a row, each row's by a term of its own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import class_count
from fc7.engine.synthesis.rows import each_row

LOGITS = None
"""In place of a layer's name: what the network answers."""


@dataclass(frozen=True)
class Term(ABC):
    """One number of what a layer returns.

    Attributes:
        layer: a canonical name or module path; the logits if None.
    """

    layer: str | None

    @classmethod
    @abstractmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return what maps a layer's output, (N, ...), to (N,): each row's by its own term."""

    def check(self, network: Network) -> None:
        """Raise LayerError or OptionError where the network has no such layer or unit."""
        if self.layer is not None:
            network.layer(self.layer)


def _numbers(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)


def _own(output: Tensor, units: Tensor) -> Tensor:
    """Return each row's own channel: (N, C, ...), (N,) -> (N, ...)."""
    return output[torch.arange(len(output), device=output.device), units]


@dataclass(frozen=True)
class _Unit(Term):
    unit: int

    def check(self, network: Network) -> None:
        """See `Term.check`."""
        super().check(network)
        if self.layer is None:
            count, what = class_count_of(network), "classes"
        else:
            count, what = network.layer(self.layer).shape[0], f"channels in {self.layer}"
        if not 0 <= self.unit < count:
            raise OptionError(
                f"unit {self.unit} is none of the {count} {what} of {network.name}: "
                f"name one from 0 to {count - 1}"
            )


class Channel(_Unit):
    """The mean of a channel over its places."""

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        units = _numbers([term.unit for term in terms], device)
        return lambda output: (
            _own(output, units).flatten(1).mean(1) if output.ndim > 2 else _own(output, units)
        )


@dataclass(frozen=True)
class Neuron(_Unit):
    """A channel at one place; in the middle if none is named."""

    row: int | None = None
    column: int | None = None

    def check(self, network: Network) -> None:
        """See `Term.check`."""
        super().check(network)
        assert self.layer is not None
        layer = network.layer(self.layer)
        if not layer.is_spatial:
            raise OptionError(f"{self.layer} has no rows and columns; ask for its channel")
        for what, place, count in (
            ("row", self.row, layer.shape[1]),
            ("column", self.column, layer.shape[2]),
        ):
            if place is not None and not 0 <= place < count:
                raise OptionError(f"{self.layer} has {count} {what}s: {what} {place} is none")

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        units = _numbers([term.unit for term in terms], device)

        def score(output: Tensor) -> Tensor:
            height, width = output.shape[2:]
            rows = [height // 2 if term.row is None else term.row for term in terms]
            columns = [width // 2 if term.column is None else term.column for term in terms]
            here = torch.arange(len(output), device=device)
            return output[here, units, _numbers(rows, device), _numbers(columns, device)]

        return score


class Logit(_Unit):
    """The logit of a class."""

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        units = _numbers([term.unit for term in terms], device)
        return lambda logits: _own(logits, units)


class Margin(_Unit):
    """A class's logit over the largest of the others: above zero where it is the answer."""

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        units = _numbers([term.unit for term in terms], device)

        def score(logits: Tensor) -> Tensor:
            others = logits.scatter(1, units[:, None], -torch.inf)
            return _own(logits, units) - others.amax(1)

        return score


class LogProbability(_Unit):
    """The logarithm of a class's probability."""

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        units = _numbers([term.unit for term in terms], device)
        return lambda logits: _own(logits.log_softmax(1), units)


@dataclass(frozen=True)
class AnyOf(Term):
    """The logarithm of a sum of exponentials of several classes' logits.

    It is the logit that the classes would have as one: a softmax over such logits gives each union
    of classes the sum of its members' probabilities. Of one class it is the logit itself.

    Attributes:
        units: the classes, each once.
    """

    units: tuple[int, ...]

    def check(self, network: Network) -> None:
        """See `Term.check`."""
        super().check(network)
        count = class_count_of(network)
        if not self.units or len(set(self.units)) < len(self.units):
            raise OptionError(f"classes {self.units} make no union; name at least one, each once")
        for unit in self.units:
            if not 0 <= unit < count:
                raise OptionError(
                    f"unit {unit} is none of the {count} classes of {network.name}: name one from "
                    f"0 to {count - 1}"
                )

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        rows = _numbers([row for row, term in enumerate(terms) for _ in term.units], device)
        units = _numbers([unit for term in terms for unit in term.units], device)

        def score(logits: Tensor) -> Tensor:
            others = torch.ones_like(logits, dtype=torch.bool)
            others[rows, units] = False
            return each_row(_log_sum_exp, logits, others)

        return score


def _log_sum_exp(logits: Tensor, left_out: Tensor) -> Tensor:
    return logits.masked_fill(left_out, -torch.inf).logsumexp(1)


class ActivationNorm(Term):
    """Half of the sum of a layer's squares: its gradient is the activation (DeepDream)."""

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        return lambda output: output.flatten(1).square().sum(1) / 2


@dataclass(frozen=True, eq=False)
class _Featured(Term):
    features: Tensor

    @classmethod
    def _stacked(cls, terms: Sequence[Self], device: torch.device) -> Tensor:
        return torch.stack([term.features.to(device, torch.float32) for term in terms])

    def check(self, network: Network) -> None:
        """See `Term.check`."""
        super().check(network)
        if self.layer is not None:
            shape = network.layer(self.layer).shape
            wanted = self._shape(shape)
            if tuple(self.features.shape) != wanted:
                raise OptionError(
                    f"{self.layer} needs features {wanted}, not {tuple(self.features.shape)}"
                )

    def _shape(self, layer: tuple[int, ...]) -> tuple[int, ...]:
        return layer


class Direction(_Featured):
    """A layer's product with a vector (C,), the mean over its places."""

    def _shape(self, layer: tuple[int, ...]) -> tuple[int, ...]:
        return layer[:1]

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        vectors = cls._stacked(terms, device)

        def score(output: Tensor) -> Tensor:
            means = output if output.ndim == 2 else output.flatten(2).mean(2)
            return (means * vectors).sum(1)

        return score


class FeatureMatch(_Featured):
    """Less the squared distance to features, as a share of their square (Mahendran, Vedaldi)."""

    @classmethod
    def scorer(cls, terms: Sequence[Self], device: torch.device) -> Callable[[Tensor], Tensor]:
        """See `Term.scorer`."""
        features = cls._stacked(terms, device).flatten(1)
        squares = features.square().sum(1).clamp(min=torch.finfo(torch.float32).tiny)
        return lambda output: -(output.flatten(1) - features).square().sum(1) / squares


def class_count_of(network: Network) -> int:
    """Return how many logits the network answers with: as many as it has names, if it has any."""
    return len(network.labels) if network.labels is not None else class_count(network)
