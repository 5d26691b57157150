"""Facets as one sheet: a line for each, with its image, its mean start and the images nearest."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc7.engine.data import Source
from fc7.engine.drawing.grid import Tile, draw_grid
from fc7.engine.errors import BadImage, OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import class_name
from fc7.engine.synthesis.stored_facets import StoredFacets, name_of
from fc7.engine.words import number, plural, share

MOST_LINES, SHOWN = 40, 4
_WHY = {"dead": ", out of reach", "diverged": ", not finite", "still": ", no better"}


def facet_figure(stored: StoredFacets, network: Network) -> Image.Image:
    """Draw the facets of a finished job, in the order of its rows.

    Raises:
        OptionError: there are more than a sheet can hold.
    """
    count = len(stored.maps)
    if count > MOST_LINES:
        raise OptionError(f"{count} facets are too many for one sheet; name a folder for --out")
    source = stored.images()
    targets = stored.targets()
    several = len({target.units for target in targets}) > 1
    tiles, columns = [], 2 + (SHOWN if source is not None else 0)
    for row in range(count):
        name = f"facet {targets[row].facet}"
        if several:
            name = f"{name_of(targets[row], network)}, {targets[row].facet}"
        line = list(_line(stored, network, source, row, name))
        blank = Tile(np.full_like(line[0].picture, 255), "")
        tiles += line + [blank] * (columns - len(line))
    title = f"{network.name}: {what(stored)}"
    return draw_grid(tiles, title, summary(stored, network), how(stored), columns)


def near_pictures(
    stored: StoredFacets, network: Network, source: Source, row: int
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield key and image, (H, W, 3) as the network sees it, of the rows nearest to a facet."""
    for near in stored.nearest(row)[:SHOWN].tolist():
        try:
            image = network.transform(source.decode(source.read(near)))
        except BadImage:
            continue
        yield source.key(near), np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def says(stored: StoredFacets, network: Network | None, row: int) -> str:
    """Return how far a row came, and for which class it is taken."""
    why = _WHY.get(stored.status(row), "")
    if not stored.has("probability"):
        return number(stored.value("score", row)) + why
    taken = class_name(network, int(stored.value("predicted", row)))
    return f"{share(stored.value('probability', row))}, {taken}{why}"


def what(stored: StoredFacets) -> str:
    """Say what the images are of."""
    return f"facets of {'classes' if stored.layer is None else f'channels of {stored.layer}'}"


def summary(stored: StoredFacets, network: Network | None) -> str:
    """Say how many there are of what, and which classes they are taken for."""
    targets = stored.targets()
    unions = list(dict.fromkeys(target.units for target in targets))
    said = f"{plural(len(targets), 'facet')} of {plural(len(unions), 'target')}"
    if len(unions) == 1:
        said = f"{plural(len(targets), 'facet')} of {name_of(targets[0], network)}"
    if stored.has("predicted"):
        predicted = stored.column("predicted").tolist()
        right = sum(one in target.units for one, target in zip(predicted, targets, strict=True))
        said += f"; {right} of {len(targets)} are taken for it"
    return said


def how(stored: StoredFacets) -> str:
    """Say how the images were made."""
    asked = stored.about
    steps = sum(stage["steps"] for stage in asked["stages"])
    kept = "kept" if asked["pull"] else "not kept"
    return (
        f"{asked['by']} of {asked['source']['spec']} in clusters, {steps} steps from means of "
        f"{asked['nearest']}, {kept} to their kind, seed {asked['seed']}"
    )


def _line(
    stored: StoredFacets, network: Network, source: Source | None, row: int, name: str
) -> Iterator[Tile]:
    yield Tile(stored.picture(row), name, says(stored, network, row))
    members = plural(int(stored.value("members", row)), "row")
    yield Tile(stored.start(row), "began as the mean", members)
    if source is not None:
        for key, picture in near_pictures(stored, network, source, row):
            yield Tile(picture, "nearest", key)
