"""Which class's score is asked for: the one the network predicts, the image's label, or one named.

--target predicted | label | 17 | tench
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network

if TYPE_CHECKING:  # maps of tensors in memory need no pyarrow: 30 MiB
    from fc7.engine.data.source import Source

PREDICTED, LABEL = "predicted", "label"

_UNKNOWN = -1
_ROWS_TOGETHER = 65_536
_LISTED = 4


class Targets:
    """The class that each row is asked about.

    Args:
        wanted: "predicted", "label", or a class by number or name.
        network: the network, for the classes' names.
        classes: how many it has.
        source: the rows, for their labels.

    Attributes:
        asked: `wanted`, with a class as its number.

    Raises:
        OptionError: no such class, or the rows have no labels that are the network's classes.
    """

    def __init__(self, wanted: str | int, network: Network, classes: int, source: "Source") -> None:
        self._labels: NDArray[np.int64] | None = None
        self.asked: str | int = wanted
        if wanted == LABEL:
            self._labels = classes_of_rows(source, network, classes)
        elif wanted != PREDICTED:
            self.asked = class_number(wanted, network, classes)

    def of(self, rows: NDArray[np.int64], predicted: Tensor) -> Tensor:
        """Return the classes, (N,) int64, that rows are asked about.

        Args:
            rows: (N,), their numbers.
            predicted: (N,) int64, the classes that the network predicts; they stand in for
                labels that are unknown.
        """
        if isinstance(self.asked, int):
            return torch.full_like(predicted, self.asked)
        if self._labels is None:
            return predicted
        labels = torch.from_numpy(self._labels[rows]).to(predicted.device)
        return torch.where(labels == _UNKNOWN, predicted, labels)

    def known(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of each row, (N,), whether its own label is what it is asked about."""
        if self._labels is None:
            return np.zeros(len(rows), dtype=np.bool_)
        return np.asarray(self._labels[rows] != _UNKNOWN)


def labels_or_predictions(network: Network, classes: int, source: "Source") -> Targets:
    """Return each row's label where labels are the network's classes, else what is predicted.

    Args:
        network: the network.
        classes: how many it has.
        source: the rows.
    """
    try:
        return Targets(LABEL, network, classes, source)
    except OptionError:
        return Targets(PREDICTED, network, classes, source)


def class_numbers(targets: Tensor | Sequence[int], images: int) -> Tensor:
    """Return classes given one by one as a tensor, (N,) int64.

    Raises:
        OptionError: there is not one for each image, or they are no whole numbers.
    """
    given = targets if isinstance(targets, Tensor) else torch.tensor(np.array(targets))
    numbers = given.reshape(-1)
    if len(numbers) != images:
        raise OptionError(f"{len(numbers)} classes for {images} images; give one for each")
    if numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise OptionError(f"classes are whole numbers, not {numbers.dtype}")
    return numbers.to(torch.int64)


def check_classes(numbers: Iterable[int], network: Network, classes: int) -> None:
    """Raise OptionError for the first number that is none of so many classes."""
    for number in numbers:
        if not 0 <= number < classes:
            raise OptionError(f"no class {number}; {network.name} has 0 to {classes - 1}")


def class_number(
    wanted: str | int, network: Network, classes: int, words: Sequence[str] = (PREDICTED, LABEL)
) -> int:
    """Return the number of a class given by number or name.

    Args:
        wanted: the class.
        network: for the classes' names.
        classes: how many it has.
        words: what else could have been asked for, to say so.

    Raises:
        OptionError: there is no such class, or more than one of that name.
    """
    text = str(wanted).strip()
    if text.removeprefix("-").isdecimal():
        check_classes([int(text)], network, classes)
        return int(text)
    if network.labels is None:
        raise OptionError(
            f"{network.name} does not know its classes by name; give a number from 0 to "
            f"{classes - 1} instead of {text!r}"
        )
    names = [name.casefold() for name in network.labels]
    found = [number for number, name in enumerate(names) if name == text.casefold()]
    if len(found) > 1:
        raise OptionError(
            f"{len(found)} classes of {network.name} are called {text!r}; give the number, "
            f"{' or '.join(map(str, found))}"
        )
    if not found:
        close = difflib.get_close_matches(text.casefold(), names, n=_LISTED) or names[:_LISTED]
        spelt = ", ".join(network.labels[names.index(name)] for name in close)
        raise OptionError(
            f"no class {text!r} in {network.name}; did you mean {spelt}? {', '.join(words)} "
            f"and numbers from 0 to {classes - 1} will do too"
        )
    return found[0]


@torch.inference_mode()
def class_count(network: Network) -> int:
    """Return how many classes a network has."""
    height, width = network.input_size
    logits: Tensor = network(torch.zeros(1, 3, height, width, device=network.device))
    if logits.ndim != 2:
        raise OptionError(f"{network.name} returns {tuple(logits.shape[1:])} an image, no logits")
    return int(logits.shape[1])


def class_name(network: Network | None, number: int) -> str:
    """Return a class's name, or its number where the network does not know it by name."""
    if network is not None and network.labels and number < len(network.labels):
        return network.labels[number]
    return f"class {number}"


def classes_of_labels(
    label_names: Sequence[str] | None, highest: int, names: Sequence[str] | None, classes: int
) -> NDArray[np.int64] | None:
    """Return the class that each label of a data set means, (highest + 1,), or None.

    They are matched by name where every label's name is that of one class. Otherwise labels and
    classes have the same numbers if there are as many of them, or if labels have no names.

    Args:
        label_names: of the data set, by label; None where labels are only numbers.
        highest: the highest label there is.
        names: of the network's classes; None where it does not know them.
        classes: how many it has.
    """
    same = np.arange(highest + 1)
    if label_names is None:
        return same if highest < classes else None
    if names is not None and tuple(label_names) != tuple(names):
        places: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            places.setdefault(name, []).append(number)
        if all(len(places.get(name, ())) == 1 for name in label_names):
            return np.array([places[name][0] for name in label_names], dtype=np.int64)
    return same if len(label_names) == classes else None


def classes_of_rows(source: "Source", network: Network, classes: int) -> NDArray[np.int64]:
    """Return the class of every row by its label, (N,) int64, -1 where the label is unknown.

    Raises:
        OptionError: no row has a label, or labels are not the network's classes.
    """
    labels = np.concatenate(
        [
            source.rows(start, start + _ROWS_TOGETHER)["label"].fill_null(_UNKNOWN).to_numpy()
            for start in range(0, len(source), _ROWS_TOGETHER)
        ]
    ).astype(np.int64)
    highest = int(labels.max())
    if highest < 0:
        raise OptionError(f"no row of {source.spec} has a label; ask for another target")
    found = classes_of_labels(source.label_names, highest, network.labels, classes)
    if found is None:
        listed = ", ".join((source.label_names or (f"up to {highest}",))[:_LISTED])
        raise OptionError(
            f"the labels of {source.spec} ({listed}) are not the {classes} classes of "
            f"{network.name}; ask for another target"
        )
    return np.where(labels < 0, _UNKNOWN, found[labels.clip(min=0)])
