"""Tiles of an image, in which a network's features are those of the whole, each in one tile.

Along an axis, position j of a layer sees the pixels from o + j s to o + j s + f, with f the size,
s the stride and o the offset of its receptive field. Cuts c lie at multiples of the coarsest
stride. Between two of them a tile owns, of each layer, the positions with c <= j s < c', and its
pixels are all that these see:

    c - before ... c' + after,    before = max -o,    after = max (o + f - s)

before in whole strides, as far as the image goes. A tile thus begins where windows of each stride
begin, and its length differs from the image's by whole strides: it is padded as the image is. Of
what a position is computed from, nothing lies outside what it sees, so that the padding of an edge
which is not the image's reaches none of the tile's own positions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.models import Network, ReceptiveField, receptive_field


@dataclass(frozen=True)
class Reach:
    """What a layer's positions see along an axis of an image, in pixels.

    Attributes:
        size: from the first to the last pixel of one position.
        stride: from one position to the next.
        offset: of what position 0 sees, or would if the image went on.
        count: of positions.
    """

    size: int
    stride: int
    offset: int
    count: int


@dataclass(frozen=True)
class Span:
    """What a tile takes up along an axis.

    Attributes:
        pixels: of the image.
        own: by layer, its positions among the image's.
        inside: by layer, the same among those that the tile alone has.
    """

    pixels: slice
    own: Mapping[str, slice]
    inside: Mapping[str, slice]


@dataclass(frozen=True)
class Tile:
    """A window of an image, and the positions that it alone owns."""

    rows: Span
    columns: Span

    def crop(self, images: Tensor) -> Tensor:
        """Return its pixels of images, (N, 3, H, W) -> (N, 3, h, w), in the same memory."""
        return images[..., self.rows.pixels, self.columns.pixels]

    def of_image(self, layer: str, features: Tensor) -> Tensor:
        """Return its own of the image's positions, (N, C, H, W) -> (N, C, h, w)."""
        return features[..., self.rows.own[layer], self.columns.own[layer]]

    def of_tile(self, layer: str, features: Tensor) -> Tensor:
        """Return its own of the tile's positions, (N, C, H, W) -> (N, C, h, w)."""
        return features[..., self.rows.inside[layer], self.columns.inside[layer]]


@dataclass(frozen=True)
class Tiling:
    """The tiles of images of one size.

    Attributes:
        tiles: row by row.
        grids: by layer, rows and columns of positions of the image.
    """

    tiles: tuple[Tile, ...]
    grids: Mapping[str, tuple[int, int]]

    def share(self, tile: Tile, layer: str) -> float:
        """Return which part of the layer's positions is the tile's own."""
        rows, columns = tile.rows.own[layer], tile.columns.own[layer]
        own: int = (rows.stop - rows.start) * (columns.stop - columns.start)
        return own / math.prod(self.grids[layer])


def tiling_of(network: Network, layers: Sequence[str], size: tuple[int, int], tile: int) -> Tiling:
    """Divide images of a height and width in pixels into tiles with sides of at most `tile`.

    Args:
        network: whose layers they are.
        layers: that have places, by canonical name or module path.
        size: of the images.
        tile: in pixels; sides are as equal as may be.

    Raises:
        LayerError: there is no such layer.
        ModelError: the network does not run on images of that size.
        OptionError: a layer does not see images in even steps, or what its positions see does not
            fit a tile.
    """
    down, across = (
        {layer: _reach(network, layer, size, axis) for layer in layers} for axis in range(2)
    )
    rows, columns = spans(size[0], tile, down), spans(size[1], tile, across)
    return Tiling(
        tuple(Tile(row, column) for row in rows for column in columns),
        {layer: (down[layer].count, across[layer].count) for layer in layers},
    )


def spans(length: int, tile: int, reaches: Mapping[str, Reach]) -> list[Span]:
    """Divide an axis of so many pixels into tiles of at most `tile`; one if that holds all.

    Raises:
        OptionError: what positions see does not fit a tile.
    """
    unit = math.lcm(*(reach.stride for reach in reaches.values()))
    before = _up(max(-reach.offset for reach in reaches.values()), unit)
    after = max(reach.offset + reach.size - reach.stride for reach in reaches.values())
    most = (tile - before - after - (unit - 1)) // unit * unit
    if length <= tile:
        cuts = [0]
    elif most < unit:
        deepest = max(reaches, key=lambda layer: reaches[layer].size)
        raise OptionError(
            f"tile is {tile}, and the positions of {deepest} see {reaches[deepest].size} pixels; "
            f"it must be {before + after + 2 * unit - 1} or more"
        )
    else:
        # Behind the last position of any layer nothing begins: each tile has some of each.
        end = min(length, *(reach.count * reach.stride for reach in reaches.values()))
        core = _up(math.ceil(end / math.ceil(end / most)), unit)
        cuts = list(range(0, end, core))
    found = []
    for start, stop in zip(cuts, [*cuts[1:], None], strict=True):
        first = max(0, start - before)
        # Shorter than the image by a multiple of the unit.
        last = length if stop is None else length - max(0, length - stop - after) // unit * unit
        own = {
            layer: slice(
                start // reach.stride, reach.count if stop is None else stop // reach.stride
            )
            for layer, reach in reaches.items()
        }
        inside = {
            layer: slice(
                own[layer].start - first // reach.stride, own[layer].stop - first // reach.stride
            )
            for layer, reach in reaches.items()
        }
        found.append(Span(slice(first, last), own, inside))
    return found


def _up(value: int, unit: int) -> int:
    """Return the least multiple of the unit that is no less; 0 for what is below 0."""
    return max(0, -(-value // unit) * unit)


def _reach(network: Network, layer: str, size: tuple[int, int], axis: int) -> Reach:
    """Read what a layer sees along an axis off an image as long, but no wider than need be."""
    height, width = network.input_size
    probe = (size[0], width) if axis == 0 else (height, size[1])
    field = receptive_field(network, layer, probe)
    reach = Reach(field.size[axis], field.stride[axis], field.offset[axis], field.grid[axis])
    if reach.stride < 1 or not _is_even(field, axis):
        raise OptionError(
            f"{layer} of {network.name} does not see an image in even steps, so it is not to be "
            "had in tiles; ask for a layer before it, or for images that fit one tile"
        )
    return reach


def _is_even(field: ReceptiveField, axis: int) -> bool:
    """Say whether all positions see what position 0 does, a stride further each, up to the edges.

    Positions that an edge cuts off may see less, for what is pooled need not reach the edge.
    """
    corners = np.moveaxis(field.corners.reshape(*field.grid, 4), axis, 0)
    start, end = corners[..., axis], corners[..., axis + 2]
    first = field.offset[axis] + field.stride[axis] * np.arange(len(start))[:, None]
    last, length = first + field.size[axis], field.input_size[axis]
    inside = (first >= 0) & (last <= length)
    exact = (start == first) & (end == last)
    within = (start >= np.maximum(first, 0)) & (end <= np.minimum(last, length))
    return bool((within & (exact | ~inside)).all())
