"""What a network said of the rows that have maps: which are shown, and how they are marked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data.transform import Transform
from fc7.engine.errors import BadImage
from fc7.engine.models.targets import classes_of_labels
from fc7.engine.report.markup import Markup, element
from fc7.engine.report.pictures import as_pixels
from fc7.engine.report.subject import Subject
from fc7.engine.store import Job
from fc7.engine.words import plural, share


class Columns(Protocol):
    """Numbers that stand beside maps."""

    def column(self, name: str) -> NDArray[Any]:
        """Return one number a row, (N,): probability, predicted."""


@dataclass(frozen=True)
class Answers:
    """What the network said of the rows that have maps.

    Attributes:
        rows: (M,), the good rows.
        probability: (M,), of the class that was asked about.
        wrong: (M,) bool, where the prediction is not the label; None without labels that are
            the network's classes.
        labelled: (M,) bool, where there is a label to compare with.
    """

    rows: NDArray[np.int64]
    probability: NDArray[np.float32]
    wrong: NDArray[np.bool_] | None
    labelled: NDArray[np.bool_]

    def is_right(self, row: int) -> bool | None:
        """Return whether a row's prediction is its label; None where that cannot be said."""
        at = int(np.searchsorted(self.rows, row))
        if self.wrong is None or not self.labelled[at]:
            return None
        return not self.wrong[at]


def read_answers(subject: Subject, stored: Columns, classes: int) -> Answers:
    """Read the columns beside the maps.

    Args:
        subject: the run.
        stored: the columns.
        classes: how many the network has.
    """
    rows = np.flatnonzero(subject.good)
    probability = np.nan_to_num(stored.column("probability")[rows])
    meaning = _classes(subject, classes)
    labels = subject.labels[rows]
    labelled = (labels >= 0) & (meaning is not None)
    wrong = None
    if meaning is not None and labelled.any():
        predicted = stored.column("predicted")[rows]
        wrong = labelled & (meaning[labels.clip(min=0)] != predicted)
    return Answers(rows, probability, wrong, labelled)


def choose(
    answers: Answers, count: int, more: Sequence[tuple[str, NDArray[np.int64]]] = ()
) -> Iterator[tuple[str, list[int]]]:
    """Yield what is shown: a heading and up to `count` rows, none of which comes twice.

    Args:
        answers: of the rows.
        count: how many of each kind.
        more: other kinds: a heading, and the places of rows in `answers.rows`, best first.
    """
    orders = [
        ("Most certain", np.argsort(-answers.probability, kind="stable")),
        ("Least certain", np.argsort(answers.probability, kind="stable")),
        *more,
    ]
    if answers.wrong is not None:
        order = orders[0][1]
        # First, for the others could take what little is wrong.
        orders.insert(0, ("Wrong", order[answers.wrong[order]]))
        orders[1] = ("Most certain, and right", order[(answers.labelled & ~answers.wrong)[order]])
    taken: set[int] = set()
    for heading, order in orders:
        fresh = [row for row in answers.rows[order].tolist() if row not in taken][:count]
        taken |= set(fresh)
        if fresh:
            yield heading, fresh


def agreement(answers: Answers) -> Markup | None:
    """Return a line that says how many predictions are right, where that can be said."""
    if answers.wrong is None:
        return None
    right = 1 - answers.wrong.sum() / answers.labelled.sum()
    count = plural(int(answers.labelled.sum()), "prediction")
    return element("p", f"{share(float(right))} of {count} agree with the label.", class_="note")


def mark(is_right: bool | None) -> Markup | None:
    """Return a tick or a cross; nothing where neither can be said."""
    if is_right is None:
        return None
    return element("span", "✓" if is_right else "✗", class_="right" if is_right else "wrong")


def seen_of(subject: Subject, job: Job, row: int) -> NDArray[np.uint8] | None:
    """Return what a job's network saw of a row, uint8 (H, W, 3), or None."""
    assert subject.source is not None
    transform = Transform.from_dict(job.fingerprint["network"]["transform"])
    try:
        return as_pixels(transform(subject.source.decode(subject.source.read(row))))
    except BadImage:
        return None


def _classes(subject: Subject, classes: int) -> NDArray[np.int64] | None:
    """Return the class that each label means, or None."""
    if not subject.has_labels:
        return None
    names = subject.network.labels if subject.network is not None else None
    return classes_of_labels(subject.run.label_names, int(subject.labels.max()), names, classes)
