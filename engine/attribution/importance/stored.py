"""Importances as a run holds them, read without torch and without the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import StoreError
from fc7.engine.store import Job, Run

TECHNIQUE = JOB = "importance"
MEANS_JOB = "importance-means"
TAYLOR, ACTIVATION = "importance.taylor", "importance.activation"
INVERSION, INVERSION_MEANS_JOB = "importance-inversion", "importance-inversion-means"
LOSS, CORRECT = "importance.loss", "importance.correct"
UNKNOWN = -1

DEFAULT_PART_ROWS = 256
"""A row costs about three forward passes, and what a stop costs is up to one part."""

Scores = tuple[NDArray[np.float64], ...]
"""One number a channel, (C,), for each convolution."""


@dataclass(frozen=True)
class ConvolutionLayer:
    """A convolution whose channels are compared.

    Attributes:
        name: by which people know it, such as conv3; else its path.
        path: of the module.
        channels: how many it returns.
    """

    name: str
    path: str
    channels: int


@dataclass(frozen=True)
class StoredImportance:
    """What a finished importance job says, the mean over its rows.

    Attributes:
        job: the job.
        layers: the convolutions, in the order they run.
        taylor: of each, by how much removing a channel changes the loss of an image, to first
            order and without its sign.
        activation: of each, how large the activation is.
        target: whose loss it is: "label" or "predicted".
        rows: images that were used.
        labelled: those of them whose label is one of the network's classes.
        right: those whose prediction is that label.
        loss: the mean cross-entropy.
        inversion: of each, the rise of inversion error without a channel; None where the run does
            not hold it.
    """

    job: Job
    layers: tuple[ConvolutionLayer, ...]
    taylor: Scores
    activation: Scores
    target: str
    rows: int
    labelled: int
    right: int
    loss: float
    inversion: Scores | None = None

    @property
    def accuracy(self) -> float | None:
        """The share of labelled rows whose prediction is right; None where there are none."""
        return self.right / self.labelled if self.labelled else None


def layers_of(attributes: Mapping[str, Any]) -> tuple[ConvolutionLayer, ...]:
    """Return the convolutions whose channels lie one after the other in an output's rows."""
    columns = (attributes[name] for name in ("names", "paths", "channels"))
    return tuple(ConvolutionLayer(*each) for each in zip(*columns, strict=True))


def attributes_of(layers: Sequence[ConvolutionLayer]) -> dict[str, Any]:
    """Return what says of an output's rows which channels they hold; see `layers_of`."""
    channels = [layer.channels for layer in layers]
    return {
        "names": [layer.name for layer in layers],
        "paths": [layer.path for layer in layers],
        "channels": channels,
        "offsets": np.cumsum([0, *channels])[:-1].tolist(),
    }


def has_importance(run: Run) -> bool:
    """Say whether a run holds finished importances."""
    jobs = run.jobs()
    return MEANS_JOB in jobs and JOB in jobs and jobs[MEANS_JOB].is_complete


def read_stored(run: Run) -> StoredImportance:
    """Read the importances of a run.

    Raises:
        StoreError: it holds none, or they are not finished, or not numbers.
    """
    jobs = run.jobs()
    if JOB not in jobs:
        raise StoreError(f"{run.folder} holds no importances; fc7 importance makes them")
    if not has_importance(run):
        raise StoreError(
            f"the importances in {run.folder} are not finished; give the command again"
        )
    job, means = jobs[JOB], jobs[MEANS_JOB]
    about = job.outputs[TAYLOR].attributes
    layers = layers_of(about)
    ends = np.cumsum([layer.channels for layer in layers])[:-1]
    rows, labelled, right = (int(count) for count in means.result("counts"))
    if not rows:
        raise StoreError(f"no row of {run.folder} could be used, so no channel was measured")
    taylor, activation = (np.array(means.result(name)) for name in ("taylor", "activation"))
    if not (np.isfinite(taylor).all() and np.isfinite(activation).all()):
        raise StoreError(f"importances in {run.folder} are not finite; check the weights")
    return StoredImportance(
        job,
        layers,
        tuple(np.split(taylor, ends)),
        tuple(np.split(activation, ends)),
        str(about["target"]),
        rows,
        labelled,
        right,
        float(means.result("loss")),
        _inversion(run, ends),
    )


def _inversion(run: Run, ends: NDArray[np.int64]) -> Scores | None:
    """Return the rises of inversion error, layer by layer, where they are finished."""
    jobs = run.jobs()
    if INVERSION_MEANS_JOB not in jobs or not jobs[INVERSION_MEANS_JOB].is_complete:
        return None
    rises = np.array(jobs[INVERSION_MEANS_JOB].result("rise"))
    if not np.isfinite(rises).all():
        raise StoreError(f"inversion errors in {run.folder} are not finite; check the weights")
    return tuple(np.split(rises, ends))
