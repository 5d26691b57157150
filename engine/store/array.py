"""One output of a run as an array, over the memory maps of its parts."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

# A map holds a file open as long as it lives, and a process may have 1,024 by default: a run of
# two million rows has more parts than that, in each of several arrays.
_OPEN_MAPS = 32


class PartedArray:
    """An array-like of shape (N, ...) whose rows lie in npy parts on the disk.

    Supports `len`, `shape`, `dtype`, `ndim`, `numpy.asarray`, and indexing of the first axis by an
    integer, a slice, an integer array or a boolean mask (a tuple indexes further axes after it).
    Reading a contiguous slice inside one part returns a view of the memory map and copies
    nothing; everything else is gathered into memory. Iteration yields rows; `parts` yields whole
    parts.

    Args:
        paths: the npy files in row order.
        part_rows: rows in each part but the last.
        shape: (N, ...).
        dtype: of every element.
    """

    def __init__(
        self, paths: Sequence[Path], part_rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._paths, self._part_rows = paths, part_rows
        self.shape, self.dtype = shape, dtype
        self._maps: OrderedDict[int, Any] = OrderedDict()

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"PartedArray(shape={self.shape}, dtype={self.dtype}, parts={len(self._paths)})"

    def parts(self) -> Iterator[NDArray[Any]]:
        """Yield each part as a read-only memory map, in row order."""
        for index in range(len(self._paths)):
            yield self._part(index)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for part in self.parts():
            yield from part

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False and (len(self._paths) != 1 or np.dtype(dtype or self.dtype) != self.dtype):
            raise ValueError("several parts, or another dtype: it cannot be had without a copy")
        whole: NDArray[Any] = self[:]
        if dtype is not None:
            whole = whole.astype(dtype, copy=False)
        # One part alone is still the file's read-only map; who asks for a copy means to write.
        return np.array(whole) if copy and not whole.flags.writeable else whole

    def __getitem__(self, index: Any) -> NDArray[Any]:
        if isinstance(index, tuple):
            first, *rest = index or (slice(None),)
            rows = self[first]
            if isinstance(first, int | np.integer):
                return np.asarray(rows[tuple(rest)])
            return np.asarray(rows[(slice(None), *rest)])
        if isinstance(index, int | np.integer):
            row = self._checked(np.asarray([index]))[0]
            return np.asarray(self._part(int(row) // self._part_rows)[int(row) % self._part_rows])
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self._gather(np.arange(start, stop, step))
            return self._slice(start, max(start, stop))
        return self._gather(self._rows_of(index))

    def _rows_of(self, index: ArrayLike) -> NDArray[np.int64]:
        rows = np.asarray(index)
        if rows.dtype == np.bool_:
            if rows.shape != (len(self),):
                raise IndexError(f"a mask of shape {rows.shape} for {len(self)} rows")
            return np.flatnonzero(rows)
        if rows.size and rows.dtype.kind not in "iu":
            raise IndexError(f"rows are chosen by integers or a mask, not by {rows.dtype}")
        return self._checked(rows.astype(np.int64))

    def _checked(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        outside = (rows < -len(self)) | (rows >= len(self))
        if outside.any():
            raise IndexError(f"row {rows[outside][0]} of an array with {len(self)} rows")
        return np.where(rows < 0, rows + len(self), rows)

    def _slice(self, start: int, stop: int) -> NDArray[Any]:
        first, last = start // self._part_rows, max(start, stop - 1) // self._part_rows
        if start < stop and first == last:
            offset = first * self._part_rows
            inside: NDArray[Any] = self._part(first)[start - offset : stop - offset]
            return inside
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for number in range(first, last + 1):
            offset = number * self._part_rows
            low, high = max(start, offset), min(stop, offset + self._part_rows)
            if low < high:
                out[low - start : high - start] = self._part(number)[low - offset : high - offset]
        return out

    def _gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        flat = rows.reshape(-1)
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        numbers = flat // self._part_rows
        # Part by part, rows ascending within each: the disk is read forward, once.
        order = np.argsort(flat, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            if len(group):
                number = int(numbers[group[0]])
                out[group] = self._part(number)[flat[group] - number * self._part_rows]
        return out.reshape(*rows.shape, *self.shape[1:])

    def _part(self, number: int) -> Any:
        if number in self._maps:
            self._maps.move_to_end(number)
            return self._maps[number]
        self._maps[number] = self._open(number)
        if len(self._maps) > _OPEN_MAPS:
            self._maps.popitem(last=False)
        return self._maps[number]

    def _open(self, number: int) -> Any:
        return np.load(self._paths[number], mmap_mode="r")
