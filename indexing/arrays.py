"""Vectors as the package sees them: an (N, D) array-like that is read in blocks, never whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from fc7.indexing.errors import IndexingError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# The largest sum of squares that float32 arithmetic holds with room to spare.
LARGEST_SQUARED_NORM = 1e37


class ArrayLike(Protocol):
    """What is asked of vectors: a shape, a float dtype, and slices that turn into numpy arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""

    @property
    def dtype(self) -> Any:
        """float16, float32 or float64."""

    def __getitem__(self, key: Any, /) -> Any: ...


def check_vectors(vectors: ArrayLike, name: str = "vectors") -> tuple[int, int]:
    """Return (N, D) of `vectors`; raise IndexingError unless it is a non-empty 2-D float array."""
    shape = tuple(int(size) for size in vectors.shape)
    if len(shape) != 2:
        raise IndexingError(
            f"{name} have shape {shape}; expected (rows, dimensions): flatten or pool them first"
        )
    if min(shape) == 0:
        raise IndexingError(f"{name} have shape {shape}; at least one row and one dimension needed")
    if np.dtype(vectors.dtype).kind != "f":
        raise IndexingError(f"{name} have dtype {vectors.dtype}; expected float16 or float32")
    return shape[0], shape[1]


def check_count(k: int, available: int, what: str) -> None:
    """Raise IndexingError unless 1 <= k <= available; `what` names the things counted."""
    if not 1 <= k <= available:
        raise IndexingError(f"k is {k}, with {available} {what}: ask for 1 to {available}")


def read(vectors: ArrayLike, start: int, stop: int) -> Float32:
    """Rows start to stop as contiguous float32; a view, with no copy, where they already are."""
    return np.ascontiguousarray(np.asarray(vectors[start:stop]), dtype=np.float32)


def take(vectors: ArrayLike, ids: Int64) -> npt.NDArray[Any]:
    """Rows `ids`, (M, D) in the stored dtype. Ascending ids read a file from front to back."""
    if isinstance(vectors, np.ndarray):
        return np.asarray(vectors[ids])
    # A bare array-like promises slices only: read each run of consecutive ids as one slice.
    rows, inverse = np.unique(ids, return_inverse=True)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    unique = np.concatenate([np.asarray(vectors[int(r[0]) : int(r[-1]) + 1]) for r in runs])
    return np.asarray(unique[inverse])


def as_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    """Share an array with torch. Ours are only read, so a read-only memory map is no danger."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def spans(n: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut range(n) into (start, stop) pieces of `step` rows, the last one shorter."""
    for start in range(0, n, step):
        yield start, min(start + step, n)


def rows_in(memory_bytes: int, bytes_per_row: int, least: int = 1) -> int:
    """How many rows a budget holds, at least `least`."""
    return max(least, memory_bytes // max(1, bytes_per_row))


def check_finite(block: Float32, start: int, name: str = "vectors") -> Float64:
    """Return squared norms (B,) of a block; raise IndexingError that names rows with NaN or inf.

    Rows so large that float32 squares overflow are refused as well.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("bd,bd->b", block, block).astype(np.float64)
    bad = np.flatnonzero(~(squares <= LARGEST_SQUARED_NORM))
    if bad.size:
        named = ", ".join(str(start + int(row)) for row in bad[:5])
        more = f" and {bad.size - 5} more of this block" if bad.size > 5 else ""
        if np.isfinite(block[bad]).all():
            raise IndexingError(
                f"{name} row {named}{more}: too large for float32 distances; scale the data down"
            )
        raise IndexingError(
            f"{name} row {named}{more}: NaN or infinite values; leave these rows out or repair them"
        )
    return np.asarray(squares)
