"""One occlusion map as a picture to keep: image, map, overlay, and what to read them by."""

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import combining, normalize

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fc7.engine.attribution.colours import hexadecimal, table
from fc7.engine.attribution.occlusion.pictures import heat, overlaid, peak_of, strongest_window
from fc7.engine.errors import OptionError
from fc7.engine.store.atomic import publish, temporary_beside
from fc7.engine.words import number, share

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""How the names of pictures that can be written end."""

PANEL = 336
"""The longer side of a panel in pixels."""

_MARGIN, _GAP, _BAR, _TICKS = 32, 20, 14, 132
_PAPER, _INK, _QUIET, _LINE = (255, 255, 255), (29, 28, 26), (102, 98, 91), (208, 204, 196)
_TITLE, _TEXT, _SMALL = 26, 15, 14
_HEAD, _CAPTION, _FOOT, _LOWEST = 92, 34, 26, 160
_SHORTEST, _LETTERS = "…", 400


@dataclass(frozen=True)
class OccludedImage:
    """An occlusion map and what to know of it.

    Attributes:
        key: the image's name.
        image: uint8 (h, w, 3), what the network sees, perhaps at a higher resolution.
        size: height and width of what the network sees, in pixels.
        drops: (rows, columns) float32, by how much the score falls at each place.
        window: side of the square in pixels.
        stride: pixels from one place to the next.
        fill: what covers, (r, g, b) in [0, 1].
        score: "probability" or "logit".
        target: name of the class that is asked about.
        probability: of that class, nothing covered.
        predicted: name of the class that the network predicts.
        approximation: words for what is approximate; nothing where the map is exact.
    """

    key: str
    image: NDArray[np.uint8]
    size: tuple[int, int]
    drops: NDArray[np.float32]
    window: int
    stride: int
    fill: tuple[float, float, float]
    score: str
    target: str
    probability: float
    predicted: str
    approximation: str = ""


def save_figure(found: OccludedImage, path: Path) -> None:
    """Write the picture; its name's ending says the format.

    Raises:
        OptionError: it ends with none of `PICTURES`.
    """
    if path.suffix.lower() not in PICTURES:
        raise OptionError(f"{path}: no picture ends with {path.suffix!r}; write .png")
    temporary = temporary_beside(path).with_suffix(path.suffix)
    try:
        draw(found).save(temporary, quality=92)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def draw(found: OccludedImage) -> Image.Image:
    """Draw image, map and overlay beside each other, and the scale."""
    peak = peak_of(found.drops)
    grid = (found.size, found.window, found.stride)
    photograph = _enlarged(found)
    width, height = photograph.size
    over = Image.fromarray(overlaid(np.asarray(photograph), found.drops, *grid, peak))
    if found.drops.max() > 0:
        _frame(over, found)
    panels = [
        photograph,
        Image.fromarray(heat(found.drops, *grid, peak, (height, width))),
        over,
    ]
    right, room = _MARGIN + 3 * width + 2 * _GAP, max(height, _LOWEST)
    sheet = Image.new("RGB", (right + _TICKS, _HEAD + room + _CAPTION + _FOOT + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _write_head(pen, found, right - _MARGIN)
    fall = f"fall of the {found.score}, by the window's place"
    captions = (found.key, fall, "the two together")
    for place, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = _MARGIN + place * (width + _GAP)
        sheet.paste(panel, (left, _HEAD))
        pen.rectangle((left - 1, _HEAD - 1, left + width, _HEAD + height), outline=_LINE)
        _write(pen, (left, _HEAD + height + 22), caption, _SMALL, _QUIET, width)
    _draw_scale(sheet, pen, right + _GAP, room, peak)
    foot = _HEAD + room + _CAPTION + 22
    _write(pen, (_MARGIN, foot), _about(found), _SMALL, _QUIET, right + _TICKS - 2 * _MARGIN)
    return sheet


def _enlarged(found: OccludedImage) -> Image.Image:
    """Return the image as large as a panel; few pixels stay squares."""
    scale = PANEL / max(found.size)
    height, width = (max(1, round(side * scale)) for side in found.size)
    few = max(found.image.shape[:2]) <= PANEL // 2
    way = Image.Resampling.NEAREST if few else Image.Resampling.LANCZOS
    return Image.fromarray(found.image).resize((width, height), way)


def _frame(panel: Image.Image, found: OccludedImage) -> None:
    """Draw the window where the score falls most, in its size."""
    box = strongest_window(found.drops, found.size, found.window, found.stride)
    down, across = panel.size[1] / found.size[0], panel.size[0] / found.size[1]
    top, bottom = round(box[0] * down), round(box[2] * down) - 1
    left, right = round(box[1] * across), round(box[3] * across) - 1
    pen = ImageDraw.Draw(panel)
    for inset, colour in ((0, _PAPER), (1, _INK), (2, _PAPER)):
        if right - left > 2 * inset and bottom - top > 2 * inset:
            edges = (left + inset, top + inset, right - inset, bottom - inset)
            pen.rectangle(edges, outline=colour)


def _write_head(pen: ImageDraw.ImageDraw, found: OccludedImage, width: int) -> None:
    text = share(found.probability)
    room = width - _GAP - _length(text, _TITLE)
    name = _fitting(found.target, _TITLE, room)
    _write(pen, (_MARGIN, 46), name, _TITLE, _INK, width)
    _write(pen, (_MARGIN + _length(name, _TITLE) + 14, 46), text, _TITLE, _QUIET, width)
    says = "the predicted class"
    if found.predicted != found.target:
        says = f"was asked for; the predicted class is {found.predicted}"
    _write(pen, (_MARGIN, 70), says, _TEXT, _QUIET, width)


def _draw_scale(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, left: int, height: int, peak: float
) -> None:
    """Draw the colours from the largest fall, at the top, to as large a rise."""
    bar = Image.fromarray(np.repeat(table()[::-1, None], _BAR, 1))
    sheet.paste(bar.resize((_BAR, height), Image.Resampling.BILINEAR), (left, _HEAD))
    pen.rectangle((left - 1, _HEAD - 1, left + _BAR, _HEAD + height), outline=_LINE)
    at = left + _BAR + 9
    ticks = ((0, f"-{number(peak)}", "la"), (0.5, "0", "lm"), (1, f"+{number(peak)}", "ld"))
    for share_down, text, anchor in ticks:
        y = _HEAD + round(share_down * (height - 1))
        pen.line((left + _BAR, y, left + _BAR + 4, y), _QUIET)
        pen.text((at, y), text, _INK, _font(_SMALL), anchor=anchor)
    pen.text((at, _HEAD + height // 4), "falls when\ncovered", _QUIET, _font(_SMALL), anchor="lm")
    low = _HEAD + height - height // 4
    pen.text((at, low), "rises when\ncovered", _QUIET, _font(_SMALL), anchor="lm")


def _about(found: OccludedImage) -> str:
    colour = hexadecimal(found.fill)
    window = f"a window of {found.window} by {found.window} pixels, every {found.stride}"
    approximate = f"approximate ({found.approximation}): " if found.approximation else ""
    framed = f"framed where the {found.score} falls most"
    return f"{approximate}{window}, filled with {colour}; {framed}"


def _write(
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
