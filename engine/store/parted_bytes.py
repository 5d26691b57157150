"""One output of a run whose rows are byte strings, over the memory maps of its parts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fc7.engine.errors import StoreError
from fc7.engine.store.array import PartedArray
from fc7.engine.store.part_files import offsets_path


class PartedBytes(PartedArray):
    """An array-like of shape (N,) and dtype object: every row is a `bytes`, read when asked for.

    It is indexed as a `PartedArray` is: an integer gives `bytes`, everything else an object array
    of them. Iteration reads a row at a time, and `parts` reads nothing before it is indexed; a
    slice holds all of its rows in memory, as `numpy.asarray` holds them all.

    Args:
        paths: the files of bytes in row order; see `fc7.engine.store.part_files`.
        part_rows: rows in each part but the last.
        rows: N.
    """

    def __init__(self, paths: Sequence[Path], part_rows: int, rows: int) -> None:
        super().__init__(paths, part_rows, (rows,), np.dtype(np.object_))

    def __repr__(self) -> str:
        return f"PartedBytes(shape={self.shape}, parts={len(self._paths)})"

    @property
    def nbytes(self) -> int:
        """Bytes of all rows together."""
        return int(self.lengths().sum())

    def lengths(self) -> NDArray[np.int64]:
        """Return every row's length in bytes, (N,) int64, without reading a row."""
        found = [self._part(number).lengths for number in range(len(self._paths))]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def parts(self) -> Iterator[Any]:
        """Yield each part as an array-like of its byte strings, in row order."""
        for number, path in enumerate(self._paths):
            yield PartedBytes([path], self._part_rows, len(self._part(number)))

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self._paths)):
            yield from self._part(number)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("byte strings are read into memory: they cannot be had without a copy")
        return super().__array__(dtype, copy)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            if len(index) > 1:
                raise IndexError(f"{len(index)} indices for an array with one axis")
            index = index[0] if index else slice(None)
        if isinstance(index, int | np.integer):
            row = int(self._checked(np.asarray([index]))[0])
            return self._part(row // self._part_rows)[row % self._part_rows]
        return super().__getitem__(index)

    def _open(self, number: int) -> "_BytesPart":
        return _BytesPart(self._paths[number])


class _BytesPart:
    """One part's byte strings; `PartedBytes` indexes it by an integer, a slice, or places."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Views without numpy.memmap's own bookkeeping, which costs more than a small row.
        self._data = np.asarray(np.load(path, mmap_mode="r"))
        self._places = np.asarray(np.load(offsets_path(path), mmap_mode="r"))

    def __len__(self) -> int:
        return len(self._places)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self._places)[:, 0]

    def __iter__(self) -> Iterator[bytes]:
        return (self._row(row) for row in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int):
            return self._row(index)
        rows = np.arange(len(self))[index].tolist()
        found = np.empty(len(rows), np.object_)
        found[:] = [self._row(row) for row in rows]
        return found

    def _row(self, row: int) -> bytes:
        start, stop = self._places[row].tolist()
        if not 0 <= start <= stop <= len(self._data):
            raise StoreError(
                f"{offsets_path(self._path)} does not fit {self._path.name}; fc7 verify names what "
                "is damaged, and how to make it again"
            )
        return bytes(self._data[start:stop])
