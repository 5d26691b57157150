"""Rows in, images out, in order: a few threads read and decode ahead of whoever consumes.

Reading, decoding and resizing all let go of Python's global lock, so threads are enough and
nothing is copied between processes. At most `lookahead` rows are in the air at a time: memory
does not grow with the data set, and a slow consumer stops the readers.

The workers leave torch's thread count alone: it belongs to the process, and lowering it in a
worker lowers it for the model too. Nothing is lost, since decoding and the antialiased resize of
uint8 images run on the calling thread only (process and thread CPU time agree).
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from fc7.engine.data.source import Source
from fc7.engine.errors import BadImage


@dataclass(frozen=True, slots=True)
class Row:
    """One row as read: an image, or the reason why there is none.

    Attributes:
        number: the row's place in the source.
        image: uint8 (3, H, W) after the transform, or None.
        size: (height, width) before the transform and after the Exif orientation, or None where
            the image was never decoded.
        bad: why the image is None; None where it is not.
        kept: uint8 (3, H', W'), what was asked to be kept of the image before the transform.
    """

    number: int
    image: torch.Tensor | None
    size: tuple[int, int] | None
    bad: BadImage | None
    kept: torch.Tensor | None = None


Change = Callable[[torch.Tensor], torch.Tensor]
"""From one image to another, uint8 (3, H, W) to uint8 (3, H', W')."""


@dataclass
class ReadTimes:
    """Seconds of wall clock spent in the rows yielded so far, added up over the threads.

    Eight threads at work for one second make eight seconds. Divide by the number of threads for
    the share of a run's time.

    Attributes:
        read_seconds: fetching payloads from storage.
        decode_seconds: decoding and transforming them.
    """

    read_seconds: float = 0.0
    decode_seconds: float = 0.0


def read_rows(
    source: Source,
    rows: Iterable[int],
    transform: Change | None,
    threads: int = 2,
    lookahead: int = 64,
    times: ReadTimes | None = None,
    keep: Change | None = None,
) -> Iterator[Row]:
    """Yield the rows asked for, strictly in the order asked for, decoded and transformed.

    A bad image is a row without an image; any other error of a row is raised when its turn
    comes. Closing the generator, or an error in its consumer, ends the threads as soon as each
    has finished the row it is at.

    Args:
        source: where the rows are.
        rows: row numbers in any order; taken from the iterable only as far as the lookahead.
        transform: uint8 (3, H, W) -> uint8 (3, H', W'), or None to keep images as they are.
        threads: how many rows are read and decoded at once.
        lookahead: how many rows may be in the air or waiting to be consumed, at least 1.
        times: receives the seconds spent, row by row as they are yielded.
        keep: what else a row keeps of an image before its transform, such as a smaller copy.

    Raises:
        ValueError: threads or lookahead below 1.
    """
    if threads < 1 or lookahead < 1:
        raise ValueError(f"threads is {threads} and lookahead {lookahead}; each must be at least 1")
    return _read_rows(source, rows, transform, threads, lookahead, times or ReadTimes(), keep)


def _read_rows(
    source: Source,
    rows: Iterable[int],
    transform: Change | None,
    threads: int,
    lookahead: int,
    times: ReadTimes,
    keep: Change | None,
) -> Iterator[Row]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fc7-read")
    pending: deque[Future[tuple[Row, float, float]]] = deque()
    try:
        for number in rows:
            pending.append(pool.submit(_read_row, source, number, transform, keep))
            if len(pending) >= lookahead:
                yield _collect(pending.popleft(), times)
        while pending:
            yield _collect(pending.popleft(), times)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collect(future: Future[tuple[Row, float, float]], times: ReadTimes) -> Row:
    row, read_seconds, decode_seconds = future.result()
    times.read_seconds += read_seconds
    times.decode_seconds += decode_seconds
    return row


def _read_row(
    source: Source, number: int, transform: Change | None, keep: Change | None
) -> tuple[Row, float, float]:
    """Read, decode and transform one row; also the seconds of reading and of the rest."""
    started = time.perf_counter()
    size: tuple[int, int] | None = None
    image: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    bad: BadImage | None = None
    read = started
    try:
        payload = source.read(number)
        read = time.perf_counter()
        image = source.decode(payload)
        size = (image.shape[-2], image.shape[-1])
        if keep is not None:
            kept = keep(image)
        if transform is not None:
            image = transform(image)
    except BadImage as error:
        # A fresh one: the traceback of this one, and of what caused it, holds on to the payload.
        image, kept, bad = None, None, BadImage(error.status, str(error))
    ended = time.perf_counter()
    if read == started:  # the payload itself could not be had
        read = ended
    return Row(number, image, size, bad, kept), read - started, ended - read
