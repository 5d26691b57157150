"""One occlusion map as a picture to keep: image, map and overlay."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fc7.engine.attribution.colours import hexadecimal, table
from fc7.engine.attribution.occlusion.pictures import heat, overlaid, peak_of, strongest_window
from fc7.engine.drawing import sheet as sheets
from fc7.engine.drawing.sheet import INK, PAPER, Scale, Sheet
from fc7.engine.words import number, share


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
        OptionError: it is none that can be written.
    """
    sheets.save_sheet(figure(found), path)


def draw(found: OccludedImage) -> Image.Image:
    """Draw image, map and overlay beside each other, and the scale."""
    return sheets.draw(figure(found))


def figure(found: OccludedImage) -> Sheet:
    """Lay out image, map and overlay, and the scale from the largest fall to as large a rise."""
    peak = peak_of(found.drops)
    grid = (found.size, found.window, found.stride)
    photograph = sheets.enlarged(found.image, found.size)
    width, height = photograph.size
    over = Image.fromarray(overlaid(np.asarray(photograph), found.drops, *grid, peak))
    if found.drops.max() > 0:
        _frame(over, found)
    says = "the predicted class"
    if found.predicted != found.target:
        says = f"was asked for; the predicted class is {found.predicted}"
    return Sheet(
        title=found.target,
        value=share(found.probability),
        says=says,
        panels=[
            (photograph, found.key),
            (
                Image.fromarray(heat(found.drops, *grid, peak, (height, width))),
                f"fall of the {found.score}, by the window's place",
            ),
            (over, "the two together"),
        ],
        foot=_about(found),
        scale=Scale(
            table()[::-1],
            ticks=[(0, f"-{number(peak)}"), (0.5, "0"), (1, f"+{number(peak)}")],
            words=[(0.25, "falls when\ncovered"), (0.75, "rises when\ncovered")],
        ),
    )


def _frame(panel: Image.Image, found: OccludedImage) -> None:
    """Draw the window where the score falls most, in its size."""
    box = strongest_window(found.drops, found.size, found.window, found.stride)
    down, across = panel.size[1] / found.size[0], panel.size[0] / found.size[1]
    top, bottom = round(box[0] * down), round(box[2] * down) - 1
    left, right = round(box[1] * across), round(box[3] * across) - 1
    pen = ImageDraw.Draw(panel)
    for inset, colour in ((0, PAPER), (1, INK), (2, PAPER)):
        if right - left > 2 * inset and bottom - top > 2 * inset:
            edges = (left + inset, top + inset, right - inset, bottom - inset)
            pen.rectangle(edges, outline=colour)


def _about(found: OccludedImage) -> str:
    colour = hexadecimal(found.fill)
    window = f"a window of {found.window} by {found.window} pixels, every {found.stride}"
    approximate = f"approximate ({found.approximation}): " if found.approximation else ""
    framed = f"framed where the {found.score} falls most"
    return f"{approximate}{window}, filled with {colour}; {framed}"
