"""Which rows of a run excite a class or a unit, by what the run holds: no image is read."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import classes_of_labels
from fc7.engine.store import Run
from fc7.engine.store.patches import patches_job, read_patches
from fc7.engine.store.vectors import vector_layers

Members = Literal["auto", "label", "predicted"]


def classes_of_run(
    run: Run, network: Network, classes: int, members: Members | str = "auto"
) -> NDArray[np.int64]:
    """Return the class of each row, (N,) int64; -1 where it is unknown or the row is bad.

    Args:
        run: the run.
        network: that it was made with.
        classes: how many the network has.
        members: by "label", by what is "predicted" according to stored logits, or by labels where
            they are the network's classes, and otherwise by predictions: "auto".

    Raises:
        OptionError: the run has no such labels, or no logits.
    """
    if members not in get_args(Members):
        raise OptionError(f"rows by {members!r}; there are {', '.join(get_args(Members))}")
    found = None
    if members != "predicted":
        found = _by_label(run, network, classes)
        if found is None and members == "label":
            raise OptionError(
                f"the rows of {run.folder} have no labels that are classes of {network.name}; "
                "take them as predicted"
            )
    if found is None:
        found = _by_prediction(run, classes)
    if found is None:
        raise OptionError(
            f"{run.folder} says of no row which class of {network.name} it is: it has neither "
            "labels nor logits; extract the last layer into it"
        )
    return np.where(run.good, found, -1)


def rows_of_unit(run: Run, layer: str, unit: int, most: int) -> NDArray[np.int64]:
    """Return the rows that excite a unit most, in their order, at most so many.

    A channel's value is its largest over all places; of an output that a ReLU follows, what is not
    above zero excites nothing. Where the run holds no such output, the rows of its maximal patches.

    Raises:
        OptionError: it holds neither, or the layer has no such unit.
    """
    outputs = run.outputs()
    name = next(
        (name for name in (f"{layer}.max", layer)
         if name in outputs and len(outputs[name].outputs[name].shape) == 1), None,
    )  # fmt: skip
    if name is None and patches_job(layer) not in run.jobs():
        raise OptionError(
            f"{run.folder} holds no {layer}; it has {', '.join(outputs) or 'no layer'}; fc7 "
            "extract adds it"
        )
    if name is None:
        top = read_patches(run, layer)
        _check_unit(layer, unit, len(top.rows))
        held = top.rows[unit][top.rows[unit] >= 0][:most]
        return np.unique(held).astype(np.int64)
    spec = outputs[name].outputs[name]
    _check_unit(layer, unit, spec.shape[0])
    values = np.concatenate([np.asarray(part[:, unit], np.float64) for part in run[name].parts()])
    least = 0.0 if spec.attributes.get("rectified", False) else -np.inf
    asked = run.good & np.isfinite(values) & (values > least)
    order = np.argsort(np.where(asked, -values, np.inf), kind="stable")
    return np.sort(order[: min(most, int(asked.sum()))]).astype(np.int64)


def _by_label(run: Run, network: Network, classes: int) -> NDArray[np.int64] | None:
    labels = run.labels
    highest = int(labels.max(initial=-1))
    if highest < 0:
        return None
    known = classes_of_labels(run.label_names, highest, network.labels, classes)
    return None if known is None else np.where(labels < 0, -1, known[labels.clip(min=0)])


def _by_prediction(run: Run, classes: int) -> NDArray[np.int64] | None:
    for name in vector_layers(run):
        output = run.outputs()[name].outputs[name]
        if output.attributes["layers_after"] == 0 and output.shape == (classes,):
            parts = [np.asarray(part).argmax(1) for part in run[name].parts()]
            return np.concatenate(parts).astype(np.int64)
    return None


def _check_unit(layer: str, unit: int, count: int) -> None:
    if not 0 <= unit < count:
        raise OptionError(f"unit {unit} is none of the {count} of {layer}; 0 to {count - 1} are")


def rows_of_union(classes: NDArray[np.int64], units: Sequence[int]) -> NDArray[np.int64]:
    """Return the rows whose class is one of several, in their order."""
    return np.flatnonzero(np.isin(classes, units)).astype(np.int64)
