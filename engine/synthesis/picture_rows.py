"""Rows whose images keep their own sizes: read ahead, and filled up to a batch."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fc7.engine.data import Source
from fc7.engine.data.batches import ImageStream
from fc7.engine.data.reader import ReadTimes, Row, read_rows
from fc7.engine.errors import OptionError
from fc7.engine.synthesis.picture_files import fit


def check_rows(side: int | None, batch_rows: int, threads: int) -> None:
    """Raise OptionError where one of a job's numbers is out of range."""
    if threads < 1 or batch_rows < 1:
        raise OptionError(f"batch_rows is {batch_rows}, threads {threads}; each is 1 or more")
    if side is not None and side < 1:
        raise OptionError(f"side is {side}; it is 1 or more")


def read_pictures(
    source: Source, numbers: Iterable[int], side: int | None, threads: int
) -> ImageStream:
    """Start to read and decode rows ahead of their use.

    Args:
        source: where the images come from.
        numbers: of the rows.
        side: pixels of the longer side that images are resized to; their own size if None.
        threads: decoding threads.
    """
    times = ReadTimes()
    # Whole photographs: as many as threads, for these alone may be hundreds of megabytes.
    rows = read_rows(source, numbers, lambda image: fit(image, side), threads, 2 * threads, times)
    return ImageStream(rows, times)


def filled(rows: Sequence[Row], count: int) -> Tensor:
    """Return the images of rows of one size, float32 (count, 3, H, W) in [0, 1].

    Where rows are fewer, the last one is repeated: what is made of a row may depend on how many go
    together, and never on which.
    """
    images = [row.image for row in rows if row.image is not None]
    return torch.stack(images + images[-1:] * (count - len(images))).float().div_(255)
