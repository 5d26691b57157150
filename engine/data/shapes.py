"""The built-in data set `shapes:N:SEED`: pictures drawn from numbers, with every answer known."""

import struct
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from fc7.engine.data.shape_drawing import DRAWING, LABELS, OBJECTS, SIDE, Mask, labels_of, render
from fc7.engine.data.source import ROW_SCHEMA, Source
from fc7.engine.errors import BadImage, SourceError

_IDENTITY = struct.Struct("<QQ")


class ShapesSource(Source):
    """The rows 0 to N - 1 of one seed; a payload is the pair (seed, row) in 16 bytes.

    Args:
        count: N, at least 1.
        seed: 0 to 2**64 - 1.

    Raises:
        SourceError: one of them is outside its range.
    """

    kind = "shapes"
    label_names = LABELS
    superclass_names = OBJECTS
    """The superclass of a label is label // 4, an index into these."""

    def __init__(self, count: int, seed: int) -> None:
        if not 1 <= count <= 2**40:
            raise SourceError(f"shapes has 1 to 2**40 rows, not {count}: write shapes:1000:0")
        if not 0 <= seed < 2**64:
            raise SourceError(f"the seed of shapes is 0 to 2**64 - 1, not {seed}")
        self.spec = f"shapes:{count}:{seed}"
        self.seed = seed
        self._count = count

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Return rows start to stop: keys like shape-00000012, and the labels."""
        start, stop, _ = slice(start, stop).indices(len(self))
        keys = pa.array([_key(row) for row in range(start, stop)], pa.large_string())
        labels = labels_of(self.seed, start, max(start, stop))
        return pa.table([keys, pa.array(labels)], schema=ROW_SCHEMA)

    def key(self, row: int) -> str:
        """Return the key of one row; IndexError if there is no such row."""
        self._check(row)
        return _key(row)

    def read(self, row: int) -> bytes:
        """Return the 16 bytes from which `decode` draws the row."""
        self._check(row)
        return _IDENTITY.pack(self.seed, row)

    def decode(self, payload: bytes) -> torch.Tensor:
        """Draw the row that a payload names: uint8 (3, 64, 64)."""
        if len(payload) != _IDENTITY.size:
            raise BadImage(
                "not-an-image", f"a row of shapes has {_IDENTITY.size} bytes, not {len(payload)}"
            )
        seed, row = _IDENTITY.unpack(payload)
        return torch.from_numpy(render(seed, row)[0])

    def masks(self, rows: Sequence[int]) -> Mask:
        """Return where the object is in each of the rows: bool (len(rows), 64, 64)."""
        for row in rows:
            self._check(row)
        masks = [render(self.seed, row)[2] for row in rows]
        return np.stack(masks) if masks else np.zeros((0, SIDE, SIDE), np.bool_)

    def _payload_identity(self, start: int, stop: int) -> bytes:
        return f"{DRAWING}:{self.seed}:{start}:{stop}".encode()


def _key(row: int) -> str:
    return f"shape-{row:08d}"
