"""How far activations moved from a reference: one number a row, and the gate before any timing."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_DRIFT = {"fp32": 0.005, "bf16": 0.05}
"""The mean drift above which a timing is not worth reporting, by precision."""


def drift(values: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Return each row's distance from the reference, relative to the row: (N, D) -> (N,).

    |x - r| / |r - mean r|, the mean over the rows: what all images share says nothing about any
    of them, and would make every difference look small.

    Raises:
        ValueError: the shapes differ.
    """
    x, r = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if x.shape != r.shape:
        raise ValueError(f"{x.shape} activations against a reference of {r.shape}")
    moved = np.linalg.norm(x - r, axis=1)
    return np.asarray(moved / np.linalg.norm(r - r.mean(0), axis=1), np.float64)


def rows_by_name(run_folder: Path, output: str) -> NDArray[np.float32]:
    """Return an output of a finished run, rows in the order of the sorted keys."""
    from fc7.engine.store import open_store

    run = open_store(run_folder)
    keys = run.rows.column("key").to_pylist()
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return np.asarray(run[output][order], np.float32)
