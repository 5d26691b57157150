"""Images of classes, channels or neurons as one sheet."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from fc7.engine.drawing.grid import Tile, draw_grid
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import class_name
from fc7.engine.synthesis.stored import StoredClasses
from fc7.engine.words import number, share

MOST_TILES = 256
_WHY = {"dead": "out of reach", "diverged": "not finite", "still": "no better", "reached": ""}


def class_figure(stored: StoredClasses, network: Network) -> Image.Image:
    """Draw the images of a finished job, in the order of its rows.

    Raises:
        OptionError: there are more than a sheet can hold.
    """
    count = len(stored.maps)
    if count > MOST_TILES:
        raise OptionError(f"{count} images are too many for one sheet; name a folder for --out")
    tiles = list(class_tiles(stored, network, range(count)))
    return draw_grid(tiles, f"{network.name}: {title(stored)}", summary(stored), how(stored))


def class_tiles(
    stored: StoredClasses, network: Network | None, rows: Sequence[int]
) -> Iterator[Tile]:
    """Yield the images of rows, each with its name and what came of it."""
    units = stored.units()
    for row in rows:
        yield Tile(
            stored.picture(row), name_of(stored, network, int(units[row])), says(stored, row)
        )


def name_of(stored: StoredClasses, network: Network | None, unit: int) -> str:
    """Return a class's name, or a unit's number."""
    return class_name(network, unit) if stored.layer is None else f"{stored.layer} {unit}"


def says(stored: StoredClasses, row: int) -> str:
    """Return how far a row came, and why it ended where that is not all of its steps."""
    if stored.has("probability"):
        value = share(stored.value("probability", row))
    else:
        value = number(stored.value("score", row))
    why = _WHY.get(stored.status(row), "")
    return f"{value}, {why}" if why else value


def title(stored: StoredClasses) -> str:
    """Say what the images are of."""
    if stored.layer is None:
        return "what it would paint for a class"
    kind = "neurons in the middle" if stored.about["neurons"] else "channels"
    return f"what excites {kind} of {stored.layer}"


def summary(stored: StoredClasses) -> str:
    """Say how many there are and how well they do."""
    count = len(stored.maps)
    if not stored.has("probability"):
        return f"{count} images, each ascending from noise of its own"
    right = int((stored.column("predicted") == stored.units()).sum())
    least = share(float(np.min(stored.column("probability"))))
    return f"{right} of {count} are taken for their class; the least probable one with {least}"


def how(stored: StoredClasses) -> str:
    """Say how the images were made."""
    asked = stored.about
    height, width = asked["size"]
    return (
        f"preset {asked['preset']}, {asked['recipe']['steps']} steps, {width} x {height} pixels, "
        f"seed {asked['seed']}"
    )
