"""One answer as a picture to keep: panels beside each other, a scale, and what to read them by.

save_sheet(Sheet("tabby cat", "94 %", "the predicted class", panels, "how"), Path("map.png"))
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import combining, normalize

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fc7.engine.errors import OptionError
from fc7.engine.store.atomic import publish, temporary_beside

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""How the names of pictures that can be written end."""

PANEL = 336
"""The longer side of a panel in pixels."""

PAPER, INK, QUIET, LINE = (255, 255, 255), (29, 28, 26), (102, 98, 91), (208, 204, 196)

_MARGIN, _GAP, _BAR, _TICKS = 32, 20, 14, 132
_TITLE, _TEXT, _SMALL = 26, 15, 14
_HEAD, _CAPTION, _FOOT, _LOWEST = 92, 34, 26, 160
_SHORTEST, _LETTERS = "…", 400


@dataclass(frozen=True)
class Scale:
    """What the colours of a panel mean.

    Attributes:
        colours: uint8 (L, 3), from the top of the scale to its foot.
        ticks: (share of the way down, text), from the top.
        words: likewise, in a quieter colour.
    """

    colours: NDArray[np.uint8]
    ticks: Sequence[tuple[float, str]]
    words: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Sheet:
    """Panels and what to know of them.

    Attributes:
        title: in large letters.
        value: beside it.
        says: below it.
        panels: pictures of one size, each with a caption.
        foot: how they were made.
        scale: of their colours.
    """

    title: str
    value: str
    says: str
    panels: Sequence[tuple[Image.Image, str]]
    foot: str
    scale: Scale | None = None


def check_picture(path: Path) -> None:
    """Raise OptionError where a name ends with none of `PICTURES`."""
    if path.suffix.lower() not in PICTURES:
        raise OptionError(f"{path}: no picture ends with {path.suffix!r}; write .png")


def save_sheet(sheet: Sheet, path: Path) -> None:
    """Write the picture; its name's ending says the format.

    Raises:
        OptionError: it ends with none of `PICTURES`.
    """
    save_picture(lambda: draw(sheet), path)


def save_picture(make: Callable[[], Image.Image], path: Path) -> None:
    """Make a picture and write it, in one step that leaves a whole file or none.

    Raises:
        OptionError: the name ends with none of `PICTURES`.
    """
    check_picture(path)
    temporary = temporary_beside(path).with_suffix(path.suffix)
    try:
        make().save(temporary, quality=92)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def draw(sheet: Sheet) -> Image.Image:
    """Draw the panels beside each other, and the scale."""
    width, height = sheet.panels[0][0].size
    count = len(sheet.panels)
    right, room = _MARGIN + count * width + (count - 1) * _GAP, max(height, _LOWEST)
    beyond = _TICKS if sheet.scale is not None else _MARGIN
    size = right + beyond, _HEAD + room + _CAPTION + _FOOT + _MARGIN
    picture = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(picture)
    _write_head(pen, sheet, right - _MARGIN)
    for place, (panel, caption) in enumerate(sheet.panels):
        left = _MARGIN + place * (width + _GAP)
        picture.paste(panel, (left, _HEAD))
        pen.rectangle((left - 1, _HEAD - 1, left + width, _HEAD + height), outline=LINE)
        write_line(pen, (left, _HEAD + height + 22), caption, _SMALL, QUIET, width)
    if sheet.scale is not None:
        _draw_scale(picture, pen, sheet.scale, right + _GAP, room)
    foot = _HEAD + room + _CAPTION + 22
    write_line(pen, (_MARGIN, foot), sheet.foot, _SMALL, QUIET, size[0] - 2 * _MARGIN)
    return picture


def enlarged(picture: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Return a picture as large as a panel; few pixels stay squares.

    Args:
        picture: uint8 (h, w, 3), of the proportions of `size`.
        size: height and width of what the network sees, in pixels.
    """
    scale = PANEL / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    few = max(picture.shape[:2]) <= PANEL // 2
    way = Image.Resampling.NEAREST if few else Image.Resampling.LANCZOS
    return Image.fromarray(picture).resize((width, height), way)


def _write_head(pen: ImageDraw.ImageDraw, sheet: Sheet, width: int) -> None:
    name = _fitting(sheet.title, _TITLE, width - _GAP - _length(sheet.value, _TITLE))
    write_line(pen, (_MARGIN, 46), name, _TITLE, INK, width)
    write_line(pen, (_MARGIN + _length(name, _TITLE) + 14, 46), sheet.value, _TITLE, QUIET, width)
    write_line(pen, (_MARGIN, 70), sheet.says, _TEXT, QUIET, width)


def _draw_scale(
    picture: Image.Image, pen: ImageDraw.ImageDraw, scale: Scale, left: int, height: int
) -> None:
    bar = Image.fromarray(np.repeat(scale.colours[:, None], _BAR, 1))
    picture.paste(bar.resize((_BAR, height), Image.Resampling.BILINEAR), (left, _HEAD))
    pen.rectangle((left - 1, _HEAD - 1, left + _BAR, _HEAD + height), outline=LINE)
    at = left + _BAR + 9
    for down, text in scale.ticks:
        y = _HEAD + round(down * (height - 1))
        pen.line((left + _BAR, y, left + _BAR + 4, y), QUIET)
        anchor = "la" if down == 0 else "ld" if down == 1 else "lm"
        pen.text((at, y), text, INK, _font(_SMALL), anchor=anchor)
    for down, text in scale.words:
        pen.text((at, _HEAD + round(down * height)), text, QUIET, _font(_SMALL), anchor="lm")


def write_line(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    width: float,
) -> None:
    """Write a line with its foot at `at`, cut to a width in pixels."""
    pen.text(at, _fitting(text, size, width), colour, _font(size), anchor="ls")


def _fitting(text: str, size: int, width: float) -> str:
    """Return a line of text that is no wider than so many pixels.

    The font has the letters of English; accents are left out, and what else it lacks is `?`.
    """
    plain = normalize("NFKD", text[:_LETTERS])
    known = "".join(letter for letter in plain if not combining(letter))
    line = " ".join(known.encode("ascii", "replace").decode().split())
    if len(text) <= _LETTERS and _length(line, size) <= width:
        return line
    fits = bisect_right(
        range(len(line)), width, key=lambda count: _length(line[:count] + _SHORTEST, size)
    )
    return line[: max(0, fits - 1)] + _SHORTEST


def _length(text: str, size: int) -> float:
    return float(_font(size).getlength(text))


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
