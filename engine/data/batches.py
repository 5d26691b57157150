"""Images for a network, ahead of their use: read, transformed, cut into batches, stacked."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fc7.engine.data.reader import Change, ReadTimes, Row, read_rows
from fc7.engine.data.source import Source
from fc7.engine.data.transform import Transform

_LOOKAHEAD_BATCHES = 2
_BYTES_A_PIXEL = 3


class ImageStream:
    """Images on their way, with the seconds spent on reading and decoding them."""

    def __init__(self, rows: Iterator[Row], times: ReadTimes) -> None:
        self._rows, self._times = rows, times

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds of reading and of decoding, transform included, summed over the threads."""
        return {"read": self._times.read_seconds, "decode": self._times.decode_seconds}


def read_ahead(
    source: Source,
    numbers: Iterable[int],
    transform: Transform,
    batch_rows: int,
    threads: int,
    keep: Change | None = None,
) -> ImageStream:
    """Start to read, decode and transform rows, two batches ahead of their use.

    Args:
        source: where the images come from.
        numbers: of the rows.
        transform: from a decoded image to one that the network takes.
        batch_rows: images in a batch.
        threads: decoding threads.
        keep: what else a row keeps of an image before its transform, such as a smaller copy.
    """
    times = ReadTimes()
    lookahead = _LOOKAHEAD_BATCHES * batch_rows
    rows = read_rows(source, numbers, transform, threads, lookahead, times, keep)
    return ImageStream(rows, times)


def batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Cut rows into batches of `size`; the last one may be shorter."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def batches_by_size(
    rows: Iterator[Row], together: Callable[[tuple[int, int]], int], most_bytes: int = 1 << 28
) -> Iterator[list[Row]]:
    """Put rows of one size together, each group as soon as it is full.

    Args:
        rows: with images.
        together: from a height and width in pixels to how many rows make a batch.
        most_bytes: of images that wait for others of their size; a batch beyond that may be
            shorter, and so may the last ones.
    """
    waiting: dict[tuple[int, int], list[Row]] = {}
    held = 0
    for row in rows:
        size = size_of(row)
        waiting.setdefault(size, []).append(row)
        held += _BYTES_A_PIXEL * math.prod(size)
        if len(waiting[size]) == together(size) or held > most_bytes:
            ready = waiting.pop(size)
            held -= _BYTES_A_PIXEL * math.prod(size) * len(ready)
            yield ready
    yield from waiting.values()


def size_of(row: Row) -> tuple[int, int]:
    """Return the height and width of a row's image in pixels."""
    assert row.image is not None
    return row.image.shape[1], row.image.shape[2]


def as_floats(batch: Sequence[Tensor], device: torch.device) -> Tensor:
    """Stack uint8 images (3, H, W) to float32 (B, 3, H, W), 0 to 255, channels last, on the device.

    They travel to another device as bytes, and to a GPU from pinned memory, so that this thread
    need not wait for the copy. One pass over them here: `torch.stack` and a cast after it take
    three times as long, since the decoder's images are strided. It is numpy's pass, on this thread
    alone: torch would share each image out among its own threads, which wait for each other while
    the decoding threads have the cores (seen to take a hundred times as long).
    """
    on_cpu = device.type == "cpu"
    pixels = torch.empty(
        (len(batch), *batch[0].shape),
        dtype=torch.float32 if on_cpu else torch.uint8,
        memory_format=torch.channels_last,
        pin_memory=device.type == "cuda",
    )
    for place, image in zip(pixels.permute(0, 2, 3, 1).numpy(), batch, strict=True):
        np.copyto(place, image.permute(1, 2, 0).numpy())
    return pixels if on_cpu else pixels.to(device, non_blocking=True).float()
