"""The fold from what each image says of a channel to what all of them say: means, in float64."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.importance.stored import ACTIVATION, CORRECT, LOSS, MEANS_JOB, TAYLOR
from fc7.engine.store import Arrays


class ImportanceMeans:
    """Sums over rows, merged part by part, divided at the end.

    The result's arrays are `taylor` and `activation`, (C,) float64 over the channels of all
    convolutions, `loss`, () float64, and `counts`, (3,) int64: rows, rows with a label that is
    one of the network's classes, and those of them predicted right.
    """

    name = MEANS_JOB
    inputs = (TAYLOR, ACTIVATION, LOSS, CORRECT)

    def fingerprint(self) -> Mapping[str, Any]:
        """Nothing but its inputs."""
        return {"mean": "of rows, in float64"}

    def part(self, rows: NDArray[np.int64], arrays: Arrays) -> Arrays:
        """Return the sums of one part."""
        correct = arrays[CORRECT]
        return {
            "taylor": arrays[TAYLOR].sum(0, dtype=np.float64),
            "activation": arrays[ACTIVATION].sum(0, dtype=np.float64),
            "loss": arrays[LOSS].sum(dtype=np.float64)[None],
            "counts": np.array([len(rows), (correct >= 0).sum(), (correct == 1).sum()], np.int64),
        }

    def merge(self, state: Arrays, later: Arrays) -> Arrays:
        """Add sums to sums."""
        return {name: state[name] + later[name] for name in state}

    def finish(self, state: Arrays) -> Arrays:
        """Divide by the number of rows; without any, the means are 0."""
        rows = max(1, int(state["counts"][0]))
        return {
            "taylor": state["taylor"] / rows,
            "activation": state["activation"] / rows,
            "loss": np.array(state["loss"][0] / rows),
            "counts": state["counts"],
        }
