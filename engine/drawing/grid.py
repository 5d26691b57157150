"""Many pictures of one size on one sheet, each with a line or two below it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fc7.engine.drawing.sheet import INK, LINE, PAPER, QUIET, write_line

_MARGIN, _GAP, _HEAD, _FOOT, _LINE = 32, 16, 84, 30, 20
_TITLE, _TEXT, _SMALL = 26, 14, 13
_SMALLEST, _WIDEST = 112, 1600


@dataclass(frozen=True)
class Tile:
    """One picture of a grid.

    Attributes:
        picture: uint8 (H, W, 3), RGB.
        name: below it.
        says: below that, in a quieter colour.
    """

    picture: NDArray[np.uint8]
    name: str
    says: str = ""


def draw_grid(
    tiles: Sequence[Tile], title: str, says: str, foot: str, columns: int | None = None
) -> Image.Image:
    """Draw tiles in rows, in their order.

    Args:
        tiles: at least one, their pictures of one size.
        title: in large letters.
        says: below it.
        foot: how they were made.
        columns: tiles in a row; as many as make the sheet a little wider than high if None.
    """
    height, width = tiles[0].picture.shape[:2]
    columns = columns or _columns(len(tiles))
    rows = -(-len(tiles) // columns)
    most = (_WIDEST - 2 * _MARGIN) / columns - _GAP
    scale = max(1, min(most, 2 * max(_SMALLEST, width)) / width) if width < most else most / width
    if width < most:
        scale = max(1, math.floor(scale))  # few pixels stay squares of one size
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    below = _LINE * (2 if any(tile.says for tile in tiles) else 1) + _GAP
    size = (
        max(2 * _MARGIN + columns * shown[0] + (columns - 1) * _GAP, 480),
        _HEAD + rows * (shown[1] + below) + _FOOT + _MARGIN // 2,
    )
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    room = size[0] - 2 * _MARGIN
    write_line(pen, (_MARGIN, 44), title, _TITLE, INK, room)
    write_line(pen, (_MARGIN, 67), says, _TEXT, QUIET, room)
    way = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    for number, tile in enumerate(tiles):
        left = _MARGIN + number % columns * (shown[0] + _GAP)
        top = _HEAD + number // columns * (shown[1] + below)
        sheet.paste(Image.fromarray(tile.picture).resize(shown, way), (left, top))
        pen.rectangle((left - 1, top - 1, left + shown[0], top + shown[1]), outline=LINE)
        write_line(pen, (left, top + shown[1] + 17), tile.name, _TEXT, INK, shown[0])
        if tile.says:
            at = (left, top + shown[1] + 17 + _LINE - 3)
            write_line(pen, at, tile.says, _SMALL, QUIET, shown[0])
    write_line(pen, (_MARGIN, size[1] - _MARGIN // 2), foot, _SMALL, QUIET, room)
    return sheet


def _columns(count: int) -> int:
    """Return how many tiles stand in a row: a few more than there are rows, with few gaps."""
    near = math.sqrt(1.4 * count)
    choices = range(max(1, round(0.7 * near)), max(2, round(1.5 * near) + 1))
    return min(choices, key=lambda columns: (-count % columns / columns, abs(columns - near)))
