"""What every data set looks like to the engine: an ordered, countable list of rows.

A row has a number (its place, fixed before any run), a key (the name a person knows it by), a
label where there is one, and a payload of bytes that decodes to an image. Millions of rows must
cost columns, not objects: keys and labels live in Arrow arrays and leave as slices of them.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from fc7.engine.data.decode import MAX_PIXELS, decode_image

ROW_SCHEMA = pa.schema([("key", pa.large_string()), ("label", pa.int32())])
"""The columns of `Source.rows`; a null label is an unknown one."""

_ROWS_PER_HASH = 65_536


class Source(ABC):
    """An ordered list of rows with random access. Reading is safe from many threads at once.

    A kind of data implements `__len__`, `rows` and `read`; those whose rows are held in memory
    start from `TableSource`. The order is the source's own and the same on every opening of the
    same data.

    Attributes:
        spec: what the person wrote to name this data set.
        kind: "folder", "paths", "tar", "parquet" or "shapes".
        label_names: the class names by label number, or None where they are not known.
        max_pixels: the largest height x width that `decode` accepts.
    """

    spec: str
    kind: str
    label_names: tuple[str, ...] | None = None
    max_pixels: int = MAX_PIXELS

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def rows(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Return rows start to stop as a table of ROW_SCHEMA, in row order.

        Both bounds follow Python's slices: stop is exclusive, and what lies outside is left out.
        """

    @abstractmethod
    def read(self, row: int) -> bytes:
        """Return the payload of one row as it is stored. Safe from several threads at once.

        Raises:
            BadImage: the payload is missing, unreadable or empty.
            IndexError: no such row.
        """

    def key(self, row: int) -> str:
        """Return the key of one row.

        Raises:
            IndexError: no such row.
        """
        self._check(row)
        key: str = self.rows(row, row + 1)["key"][0].as_py()
        return key

    def decode(self, payload: bytes) -> torch.Tensor:
        """Decode a payload of `read` to a uint8 image (3, H, W) in RGB.

        Raises:
            BadImage: the payload is not a whole image of at most `max_pixels`.
        """
        return decode_image(payload, self.max_pixels)

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of what makes this data set this data set.

        It covers the kind, the class names, every key and label in order, and whatever tells two
        payloads apart cheaply (their sizes, their offsets); never the spec, so that a data set
        may move to another folder. It does not read the payloads.
        """
        hasher = hashlib.sha256(f"{self.kind}\0{len(self)}\0{self.label_names!r}\0".encode())
        for start in range(0, len(self), _ROWS_PER_HASH):
            stop = min(start + _ROWS_PER_HASH, len(self))
            table = self.rows(start, stop)
            for piece in _column_bytes(table["key"], table["label"]):
                hasher.update(piece)
            hasher.update(self._payload_identity(start, stop))
        return hasher.hexdigest()

    def _payload_identity(self, start: int, stop: int) -> bytes:
        """Return the bytes that stand for the payloads of rows start to stop in the digest."""
        return b""

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is outside the {len(self)} rows of {self.spec}")


class TableSource(Source):
    """A source whose keys and labels are held in memory as Arrow columns.

    Args:
        spec: what the person wrote.
        keys: (N,) large_string.
        labels: (N,) int32 with nulls where unknown, or None where no row has a label.
        label_names: class names by label number.
        max_pixels: the largest height x width that `decode` accepts.
    """

    def __init__(
        self,
        spec: str,
        keys: pa.LargeStringArray,
        labels: pa.Int32Array | None,
        label_names: tuple[str, ...] | None,
        max_pixels: int,
    ) -> None:
        self.spec = spec
        self.label_names = label_names
        self.max_pixels = max_pixels
        if labels is None:
            labels = pa.nulls(len(keys), pa.int32())
        self._table = pa.table([keys, labels], schema=ROW_SCHEMA)

    def __len__(self) -> int:
        rows: int = self._table.num_rows
        return rows

    def rows(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Return rows start to stop; the columns are views of the whole ones, not copies."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return self._table.slice(start, max(0, stop - start))


def _column_bytes(keys: pa.ChunkedArray, labels: pa.ChunkedArray) -> Iterator[bytes]:
    """Yield bytes that determine both columns, however Arrow has chunked or sliced them."""
    yield pc.binary_length(keys).to_numpy().astype("<i8").tobytes()
    for chunk in keys.chunks:
        # With the lengths above, the text of all keys end to end is unambiguous.
        _, offsets, text = chunk.buffers()
        if len(chunk) == 0:
            continue
        ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        yield memoryview(text)[ends[0] : ends[-1]].tobytes() if text is not None else b""
    yield np.packbits(pc.is_valid(labels).to_numpy()).tobytes()
    yield pc.fill_null(labels, 0).to_numpy().astype("<i4").tobytes()
