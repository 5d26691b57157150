"""Maximal patches as pictures: what a channel saw where it answered most strongly.

The receptive field of a position is a box in the network's input; carried back through the
transform it is a box in the original image, which is cut out of the original's own pixels
(Zeiler and Fergus 2014, figure 2).
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.data import Source, read_rows
from fc7.engine.data.tiles import BLANK, fit_tile
from fc7.engine.features.extract import is_map
from fc7.engine.models import Network, receptive_field
from fc7.engine.store.patches import Patches

DEFAULT_TILE = 96


def crop_patches(
    source: Source,
    network: Network,
    patches: Patches,
    layer: str,
    channels: Sequence[int],
    tile: int = DEFAULT_TILE,
    threads: int = 2,
) -> NDArray[np.uint8]:
    """Cut the maximal patches of some channels out of their original images.

    Every image is read once, however many patches it has, and a few are in memory at a time.

    Args:
        source: the images that the patches' rows number.
        network: the network that the patches are of.
        patches: from `fc7.engine.store.patches.read_patches`.
        layer: the layer that `patches` belongs to, as the network names it.
        channels: which channels.
        tile: side in pixels of what comes back.
        threads: that read and decode.

    Returns:
        uint8 (len(channels), k, tile, tile, 3) in RGB. A patch keeps its proportions and lies in
        the middle of its tile; around it, and where there is no patch (row -1) or its image
        cannot be read any more, the tile is grey (128). The patch of a layer without positions,
        such as fc7, is all that the network sees of the image.

    Raises:
        LayerError: the network has no such layer.
        ValueError: `tile` is below 1.
    """
    if tile < 1:
        raise ValueError(f"tile is {tile}; it must be at least 1 pixel")
    chosen = np.asarray(channels, dtype=np.int64)
    rows, positions = patches.rows[chosen], patches.positions[chosen]
    out = np.full((*rows.shape, tile, tile, 3), BLANK, dtype=np.uint8)
    boxes = _boxes(network, layer)
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for channel, rank in np.argwhere(rows >= 0).tolist():
        places[int(rows[channel, rank])].append((channel, rank))
    images = read_rows(source, sorted(places), None, threads=threads, lookahead=2 * threads)
    for row in images:
        if row.image is None:
            continue
        height, width = row.image.shape[-2:]
        for channel, rank in places[row.number]:
            top, left, bottom, right = boxes[int(positions[channel, rank])].tolist()
            box = network.transform.to_original((top, left, bottom, right), height, width)
            crop = _cut(row.image, box)
            if crop.numel():
                out[channel, rank] = fit_tile(crop, tile)
    return out


def _boxes(network: Network, layer: str) -> NDArray[np.int64]:
    """Return the box in the network's input of every position: (positions, 4)."""
    if is_map(network.layer(layer)):
        return receptive_field(network, layer).boxes()
    height, width = network.input_size
    return np.array([(0, 0, height, width)], dtype=np.int64)


def _cut(image: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    """Cut a box out of uint8 (3, H, W), each edge rounded to whole pixels, at least one across."""
    height, width = image.shape[-2:]
    top, left, bottom, right = box
    if bottom <= top or right <= left:  # it saw padding alone
        return image[:, :0, :0]
    first_row, first_column = min(round(top), height - 1), min(round(left), width - 1)
    last_row, last_column = max(round(bottom), first_row + 1), max(round(right), first_column + 1)
    return image[:, first_row:last_row, first_column:last_column]
