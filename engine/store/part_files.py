"""The files of a part while they are filled: under temporary names, locked, until the commit.

An `ArrayFile` has its size from the start, and rows are written at their places, in any order. A
`BytesFile` holds rows of any length: they are appended in the order in which they come, and where
each begins and ends is kept for a second file, so that memory holds 16 bytes a row.

    OUTPUT/part-000000.npy             uint8 (bytes,), the rows' bytes in whatever order they came
    OUTPUT/part-000000.offsets.npy     int64 (rows, 2), start and stop of each row in them
"""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.store.atomic import flush_folder, sha256_file, temporary_beside


def offsets_path(path: Path) -> Path:
    """Return where the offsets of a file of bytes are: `part-000000.offsets.npy` beside it."""
    return path.with_name(f"{path.stem}.offsets.npy")


class _NpyFile:
    """One npy file under a temporary name."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if dtype.hasobject:
            raise ValueError(f"{path.parent.name}: {dtype} has no form on the disk")
        self._path, self._shape, self._dtype = path, shape, dtype
        self._temporary, self._descriptor = temporary_beside(path), -1
        try:
            self._open()
        except BaseException:
            self.discard()
            raise

    def _open(self) -> None:
        with self._temporary.open("wb") as file:
            self._write_header(file)
            self._header_bytes = file.tell()
        self._descriptor = os.open(self._temporary, os.O_WRONLY)
        # Held until the file has its final name: this one is not stale. See `remove_stale`.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def _write_header(self, file: Any) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": self._shape,
        }
        np.lib.format.write_array_header_1_0(file, header)

    def _write_all(self, block: memoryview, offset: int) -> None:
        while block:
            written = os.pwrite(self._descriptor, block, offset)
            block, offset = block[written:], offset + written

    def finish(self) -> dict[str, Any]:
        """Flush what was written; return its size, checksum, shape and dtype."""
        os.fsync(self._descriptor)
        return {
            "bytes": self._temporary.stat().st_size,
            "sha256": sha256_file(self._temporary),
            "shape": list(self._shape),
            "dtype": self._dtype.name,
        }

    def publish(self) -> None:
        """Give the file its final name."""
        os.replace(self._temporary, self._path)
        flush_folder(self._path.parent)
        self.discard()

    def discard(self) -> None:
        """Let go of the file, and remove it unless it has its final name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._temporary.unlink(missing_ok=True)


class ArrayFile(_NpyFile):
    """An array of a known shape, filled by rows; those never written stay zero.

    Args:
        path: the final name.
        shape: of the whole array.
        dtype: of every element.
    """

    def _open(self) -> None:
        super()._open()
        self._row_bytes = int(np.prod(self._shape[1:], dtype=np.int64)) * self._dtype.itemsize
        os.ftruncate(self._descriptor, self._header_bytes + self._shape[0] * self._row_bytes)

    def write(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write `values` (B, ...), already in the array's dtype, at these first indices (B,)."""
        values = np.ascontiguousarray(values)
        if values.dtype != self._dtype or values.shape != (len(rows), *self._shape[1:]):
            raise ValueError(
                f"{self._path.parent.name}: got {values.dtype} {values.shape}, expected "
                f"{self._dtype} {(len(rows), *self._shape[1:])}"
            )
        # One write per run of consecutive rows; a job that keeps the order needs a single one.
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for chunk in np.split(np.arange(len(rows)), breaks):
            if len(chunk) and self._row_bytes:
                block = values[chunk[0] : chunk[-1] + 1].data.cast("B")
                self._write_all(block, self._header_bytes + int(rows[chunk[0]]) * self._row_bytes)


class BytesFile(_NpyFile):
    """Rows of bytes of any length, and the offsets beside them; those never written are empty.

    Args:
        path: the final name.
        rows: how many there are.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self._places, self._end = np.zeros((rows, 2), np.int64), 0
        self._offsets = ArrayFile(offsets_path(path), self._places.shape, self._places.dtype)
        super().__init__(path, (0,), np.dtype(np.uint8))

    def write(self, rows: NDArray[np.int64], values: NDArray[Any] | Sequence[bytes]) -> None:
        """Append one `bytes` for each of these rows (B,), from an object array or a sequence."""
        name = self._path.parent.name
        if isinstance(values, np.ndarray) and values.dtype != np.object_:
            # Numpy's own strings of bytes (S) have lost the zeros at their ends by now.
            raise ValueError(f"{name}: got {values.dtype}, expected bytes in an object array")
        if len(values) != len(rows):
            raise ValueError(f"{name}: got {len(values)} byte strings for {len(rows)} rows")
        for row, value in zip(rows.tolist(), values, strict=True):
            if not isinstance(value, bytes):
                raise ValueError(f"{name}: got {type(value).__name__}, expected bytes")
            self._write_all(memoryview(value), self._header_bytes + self._end)
            self._places[row] = self._end, self._end + len(value)
            self._end += len(value)

    def finish(self) -> dict[str, Any]:
        """Flush what was written; return size, checksum, shape and dtype, those of offsets too."""
        self._shape = (self._end,)
        with self._temporary.open("r+b") as file:
            self._write_header(file)  # numpy leaves room in it for an axis to grow
            if file.tell() != self._header_bytes:
                raise RuntimeError(f"{self._path}: the header has grown over the bytes")
        self._offsets.write(np.arange(len(self._places)), self._places)
        return {**super().finish(), "offsets": self._offsets.finish()}

    def publish(self) -> None:
        """Give both files their final names."""
        self._offsets.publish()
        super().publish()

    def discard(self) -> None:
        """Let go of both files, and remove them unless they have their final names."""
        super().discard()
        self._offsets.discard()
