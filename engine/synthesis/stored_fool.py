"""Adversarial examples as a run holds them, read without the network."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.store import Run
from fc7.engine.store.stored import StoredMaps, stored_maps

TECHNIQUE = "fool"


@dataclass(frozen=True)
class Outcome:
    """What the attacks of a job came to.

    Attributes:
        rows: attacks counted: those of rows that are not bad.
        success: the share that fooled the network.
        success_8bit: the share that did after rounding to 8 bits.
        l2: median Euclidean norm of the changes that fooled; NaN where none did.
        linf: median of the largest changes of a pixel, likewise.
        evaluations: median of gradient evaluations, of all.
    """

    rows: int
    success: float
    success_8bit: float
    l2: float
    linf: float
    evaluations: float


@dataclass(frozen=True)
class StoredFool(StoredMaps):
    """The changes of one job; `about` says how they were made."""

    @property
    def untargeted(self) -> bool:
        """Whether targets are the classes to be left."""
        return bool(self.about["target"] == "untargeted")

    def adversarial(self, row: int, seen: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return a row's adversarial image, (3, H, W) in [0, 1].

        Args:
            row: its number.
            seen: uint8 (3, H, W), what the network sees of it.
        """
        change: NDArray[Any] = np.asarray(self.maps[row], np.float32)
        clean = seen.astype(np.float32) / np.float32(255)
        return np.asarray(np.clip(clean + change, 0, 1), np.float32)

    def outcome(self) -> Outcome:
        """Add up the rows that are not bad.

        Raises:
            StoreError: parts are missing.
        """
        bad = [row for part in self.job.run.parts for row in self.job.bad_rows(part)]
        rows = np.setdiff1d(np.arange(len(self.job.run)), np.array(bad, dtype=np.int64))
        success, coarse, l2, linf, evaluations = (
            self.column(name)[rows]
            for name in ("success", "success_8bit", "l2", "linf", "evaluations")
        )
        fooled = success.astype(bool)
        return Outcome(
            len(rows),
            _mean(success),
            _mean(coarse),
            _median(l2[fooled]),
            _median(linf[fooled]),
            _median(evaluations),
        )


def stored_fools(run: Run) -> list[StoredFool]:
    """Return the jobs of adversarial examples of a run, in the order they were begun."""
    return [StoredFool(one.job, one.name, one.about) for one in stored_maps(run, TECHNIQUE)]


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if len(values) else float("nan")
