"""Which class an attack goes for.

--target random | least-likely | next | untargeted | 17 | tench
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import check_classes, class_number
from fc7.engine.synthesis.keyed import keys_of_rows
from fc7.engine.synthesis.randomness import Purpose, integers

RANDOM, LEAST_LIKELY, NEXT, UNTARGETED = "random", "least-likely", "next", "untargeted"
WORDS = (RANDOM, LEAST_LIKELY, NEXT, UNTARGETED)

_UNKNOWN = -1


class Goals:
    """The class that each row's attack goes for.

    Args:
        wanted: "random", any class but the predicted one and the row's label; "least-likely", that
            of the smallest logit; "next", the number after the predicted class, or after its label
            where that is it; "untargeted", away from the predicted class; a class by number or
            name.
        network: the network, for the classes' names.
        classes: how many it has.
        seed: of "random".
        labels: every row's class by its label, (rows,) int64, -1 where it is unknown; None where
            no row has one.

    Attributes:
        asked: `wanted`, with a class as its number.
        untargeted: whether goals are the classes to be left.

    Raises:
        OptionError: no such class, or the network has none to go to.
    """

    def __init__(
        self,
        wanted: str | int,
        network: Network,
        classes: int,
        seed: int = 0,
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        if classes < 2:
            raise OptionError(f"{network.name} has one class, and cannot be made to say another")
        self.asked: str | int = wanted
        if wanted not in WORDS:
            self.asked = class_number(wanted, network, classes, WORDS)
        self.untargeted = wanted == UNTARGETED
        self._classes, self._seed, self._labels = classes, seed, labels

    def of(self, rows: Sequence[int], logits: Tensor) -> Tensor:
        """Return the rows' classes, (N,) int64, by what the network says of their images.

        Args:
            rows: their numbers.
            logits: (N, classes).
        """
        predicted = logits.argmax(1)
        if isinstance(self.asked, int):
            return torch.full_like(predicted, self.asked)
        if self.asked == UNTARGETED:
            return predicted
        if self.asked == LEAST_LIKELY:
            return logits.argmin(1)
        choose = self._random if self.asked == RANDOM else self._next
        chosen = [
            choose(row, now, _UNKNOWN if self._labels is None else int(self._labels[row]))
            for row, now in zip(rows, predicted.tolist(), strict=True)
        ]
        return torch.tensor(chosen, dtype=torch.int64, device=logits.device)

    def _random(self, row: int, predicted: int, label: int) -> int:
        taken = self._taken(predicted, label)
        keys = keys_of_rows(self._seed, [row], [0])
        choice = int(integers(keys, Purpose.TARGET, 1, self._classes - len(taken)))
        for number in taken:
            choice += choice >= number
        return choice

    def _next(self, _row: int, predicted: int, label: int) -> int:
        taken, choice = self._taken(predicted, label), (predicted + 1) % self._classes
        return (choice + 1) % self._classes if choice in taken else choice

    def _taken(self, predicted: int, label: int) -> list[int]:
        """Return the classes that are no goal; of two the label is one where it must be."""
        if label == _UNKNOWN or self._classes == 2:
            return [predicted]
        return sorted({predicted, label})


class Given:
    """Classes given row by row.

    Args:
        targets: (N,) int64, by row number.
        network: the network.
        classes: how many it has.

    Raises:
        OptionError: a class is none of the network's.
    """

    untargeted = False

    def __init__(self, targets: Tensor, network: Network, classes: int) -> None:
        check_classes(targets.tolist(), network, classes)
        self._targets = targets

    def of(self, rows: Sequence[int], logits: Tensor) -> Tensor:
        """See `Goals.of`."""
        return self._targets[torch.as_tensor(rows)].to(logits.device)
