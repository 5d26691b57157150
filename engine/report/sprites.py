"""Thumbnails by the thousand: packed into sheets, as many as a number of bytes allows."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fc7.engine.report.pictures import data_uri, resize, webp

SHEET_COLUMNS = 16
SHEET_ROWS = 16
PER_SHEET = SHEET_COLUMNS * SHEET_ROWS
_QUALITY = 75
_BLANK = 128


def sheets(
    thumbnails: Iterator[NDArray[np.uint8] | None], side: int, bytes_each: int, max_bytes: int
) -> tuple[list[str], int]:
    """Pack thumbnails into sheets of 16 x 16 until the next one would go past `max_bytes`.

    Args:
        thumbnails: uint8 (s, s, 3) with s at most `side`, or None for a grey one; taken from the
            iterator a sheet at a time.
        side: pixels of a thumbnail in its sheet.
        bytes_each: what a thumbnail costs the page besides its picture.
        max_bytes: of all sheets as `data:` URIs, and of what their thumbnails cost besides.

    Returns:
        The sheets as `data:` URIs, and how many thumbnails lie in them, row by row.
    """
    done: list[str] = []
    packed, used = 0, 0
    while cells := _take(thumbnails, side):
        rows = -(-len(cells) // SHEET_COLUMNS)
        sheet = np.full((rows * side, SHEET_COLUMNS * side, 3), _BLANK, dtype=np.uint8)
        for place, cell in enumerate(cells):
            top, left = (place // SHEET_COLUMNS) * side, (place % SHEET_COLUMNS) * side
            sheet[top : top + side, left : left + side] = cell
        uri = data_uri(webp(sheet, _QUALITY))
        used += len(uri) + bytes_each * len(cells)
        if used > max_bytes:
            break
        done.append(uri)
        packed += len(cells)
    return done, packed


def _take(thumbnails: Iterator[NDArray[np.uint8] | None], side: int) -> list[NDArray[np.uint8]]:
    """Take up to a sheet of thumbnails, each enlarged or greyed to (side, side, 3)."""
    cells = []
    for _, thumbnail in zip(range(PER_SHEET), thumbnails, strict=False):
        if thumbnail is None:
            cells.append(np.full((side, side, 3), _BLANK, dtype=np.uint8))
        else:
            cells.append(resize(thumbnail, side))
    return cells
