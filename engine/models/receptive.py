"""Receptive fields: which pixels of the image a position of a layer can see.

They are read off one pass through the network without its weights, in which every tensor carries
the boxes of input pixels that its elements depend on (the rules are in `rules`). That holds for
branches, dilation, ceil_mode, adaptive pooling and any way of writing the network; a function
without a rule counts as seeing all that its arguments see, so a box may be too large where the
network does something unusual, and is never too small.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fc7.engine.errors import LayerError, ModelError
from fc7.engine.models.boxes import bounding_box
from fc7.engine.models.dryrun import dry_run
from fc7.engine.models.layers import Layer
from fc7.engine.models.network import Network, first_line
from fc7.engine.models.tracking import FieldTracker

Box = tuple[int, int, int, int]
# Inputs this many times larger are tried, one axis at a time, until a position fits inside.
_ENLARGEMENTS = (1, 4, 32)


@dataclass(frozen=True)
class ReceptiveField:
    """What the positions of one layer see of an image of a given size.

    Args:
        input_size: height and width of the image in pixels.
        grid: rows and columns of positions; (1, 1) for a layer without them.
        size: height and width in pixels that an interior position sees: one that no edge of the
            image cuts off. The whole image where no position is interior at any size.
        stride: pixels from one interior position to the next, down and across; 0 where there are
            no interior positions.
        offset: (top, left) in pixels of what position (0, 0) would see if no edge cut it off:
            interior position (y, x) sees from offset + (y, x) * stride.
        corners: int (rows * columns, 4): top, left, bottom, right of each position, half open,
            within the image. All zeros for a position that sees padding only.
    """

    input_size: tuple[int, int]
    grid: tuple[int, int]
    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]
    corners: npt.NDArray[np.int64]

    @property
    def is_global(self) -> bool:
        """Whether every position sees all of the image."""
        return bool((self.corners == (0, 0, *self.input_size)).all())

    def box(self, position: int | tuple[int, int]) -> Box:
        """Return (top, left, bottom, right), half open and within the image, of a position.

        Args:
            position: its number, row by row, or (row, column).

        Raises:
            IndexError: the layer has no such position.
        """
        rows, columns = self.grid
        if isinstance(position, tuple):
            row, column = position
        else:
            row, column = divmod(int(position), columns)
        if not (0 <= row < rows and 0 <= column < columns):
            raise IndexError(f"no position {position}; the layer has {rows} x {columns}")
        top, left, bottom, right = self.corners[row * columns + column].tolist()
        return top, left, bottom, right

    def boxes(self) -> npt.NDArray[np.int64]:
        """Return the boxes of all positions, row by row: (rows * columns, 4)."""
        return self.corners.copy()


def receptive_field(
    network: Network, layer: str, input_size: tuple[int, int] | None = None
) -> ReceptiveField:
    """Return what each position of a layer can see of the image.

    Args:
        network: whose layer it is.
        layer: a canonical name or a module path. The last two of three axes are positions; a
            layer of another shape has one position, which sees what all of it sees.
        input_size: height and width of the image in pixels; the network's own if None.

    Raises:
        LayerError: there is no such layer, or it is not reached.
        ModelError: the network does not run on images of that size.
    """
    target = network.layer(layer)
    size = input_size or network.input_size
    try:
        shape, corners = _corners(network.model, target, size)
    except LayerError:
        raise
    except Exception as error:
        raise ModelError(
            f"{network.name} does not run on images of {size[0]} x {size[1]} pixels: "
            f"{first_line(error)}"
        ) from error
    inside = [_interior(network.model, target, size, axis, shape) for axis in range(2)]
    return ReceptiveField(
        input_size=size,
        grid=shape,
        size=(inside[0][0], inside[1][0]),
        stride=(inside[0][1], inside[1][1]),
        offset=(inside[0][2], inside[1][2]),
        corners=corners,
    )


def _corners(
    model: nn.Module, layer: Layer, size: tuple[int, int], for_real: bool = True
) -> tuple[tuple[int, int], npt.NDArray[np.int64]]:
    """Return the grid of a layer's positions and their boxes, (rows * columns, 4)."""
    field = dry_run(model, size, lambda: FieldTracker(layer), for_real=for_real).found
    if field is None:
        height, width = size
        raise LayerError(f"the pass does not reach {layer.name} on images of {height} x {width}")
    grid = (1, 1)
    if field[0].ndim == 4:
        grid = (field[0].shape[2], field[0].shape[3])
        sides = [side.amax((0, 1)) for side in field]
    else:
        sides = [torch.tensor([side]) for side in bounding_box(field)]
    top, left, bottom, right = (side.reshape(-1).double().numpy() for side in sides)
    boxes = np.stack([-top, -left, bottom, right], axis=1)
    # A box empty along one axis is empty.
    boxes[~np.isfinite(boxes).all(axis=1)] = 0
    return grid, boxes.astype(np.int64)


def _interior(
    model: nn.Module, layer: Layer, size: tuple[int, int], axis: int, grid: tuple[int, int]
) -> tuple[int, int, int]:
    """Return size, stride and offset along an axis, from an image large enough to show them."""
    for factor in _ENLARGEMENTS if layer.is_spatial else ():
        larger = (size[0] * factor, size[1]) if axis == 0 else (size[0], size[1] * factor)
        try:
            # Where the skeleton does not run, a pass costs as much as the image is large.
            shape, corners = _corners(model, layer, larger, for_real=factor <= 4)
        except Exception:
            break  # made for one size of image
        if factor > 1 and shape[axis] == grid[axis]:
            break  # adaptive pooling, or no positions: it grows with the image
        lines = corners.reshape(*shape, 4)
        line = lines[:, shape[1] // 2] if axis == 0 else lines[shape[0] // 2]
        start, end = line[:, axis], line[:, axis + 2]
        # A position that an edge cuts off sees as far as any position does on that side, which
        # may be a pixel or more short of the edge itself.
        whole = (start > start.min()) & (end < end.max())
        neighbours = np.flatnonzero(whole[:-1] & whole[1:])
        if len(neighbours):
            first = int(neighbours[len(neighbours) // 2])
            stride = int(start[first + 1] - start[first])
            begin = int(start[first])
            return int(end[first]) - begin, stride, begin - first * stride
    return size[axis], 0, 0
