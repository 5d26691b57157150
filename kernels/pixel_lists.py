"""Windows of a map, one for each position, as one list of their pixels.

Covering a place of an image changes a window of every layer's map, and another window for another
place: the position. What is known of N images' windows is one array (N, M, C): position after
position, each window row by row, a pixel's channels side by side. Outside its window every
position's value is zero.

Where the windows lie is the same for all images, and is a `PixelList`: made once, on the device,
it tells a kernel which pixel of which position an entry is, and where another pixel of that
position is found.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LARGEST_SIDE", "Bounds", "PixelList", "Residual", "Slides", "pixel_list"]

LARGEST_SIDE = 2**15 - 1  # of a map: a pixel's row and column share 32 bits


@dataclass(frozen=True)
class Slides:
    """How a kernel slides over a map: pairs of down and across, in pixels."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def taps(self) -> int:
        """Pixels that one output reads."""
        return self.kernel[0] * self.kernel[1]

    @property
    def constants(self) -> dict[str, int]:
        """The same for a Triton kernel: KERNEL_Y, KERNEL_X, STRIDE_Y and so on."""
        return {
            f"{field.name.upper()}_{axis}": number
            for field in fields(self)
            for axis, number in zip("YX", getattr(self, field.name), strict=True)
        }


@dataclass(frozen=True, eq=False)
class PixelList:
    """The windows of P positions on a map, M pixels together.

    Attributes:
        size: height and width of the map.
        boxes: (P, 4) int32, (top, left, bottom, right) in pixels, half open, inside the map.
        starts: (P,) int64, the entry that each window begins with.
        owners: (M,) int32, the position that each entry belongs to.
        pixels: (M,) int32, row * 2^16 + column of each entry.
    """

    size: tuple[int, int]
    boxes: Tensor
    starts: Tensor
    owners: Tensor
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def positions(self) -> int:
        """How many windows there are."""
        return len(self.boxes)

    @property
    def rows(self) -> Tensor:
        """(M,) int32, the row of each entry."""
        return self.pixels >> 16

    @property
    def columns(self) -> Tensor:
        """(M,) int32, the column of each entry."""
        return self.pixels & 0xFFFF

    @property
    def on_map(self) -> Tensor:
        """(M,) int64, row * width + column of each entry."""
        return self.rows.long() * self.size[1] + self.columns

    def places(self, owners: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the entries of pixels of positions, M for one outside the window; int64.

        Args:
            owners: positions, integers of any shape.
            rows: of the map, also beyond it; shapes broadcast.
            columns: likewise.
        """
        top, left, bottom, right = self.boxes[owners].long().unbind(-1)
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        entries = self.starts[owners] + (rows - top) * (right - left) + columns - left
        return torch.where(inside, entries, len(self))

    def places_of(self, other: "PixelList") -> Tensor:
        """Return the entry of each pixel of another list, (M',) int64; M where there is none."""
        return self.places(other.owners, other.rows, other.columns)

    def spread(self, differences: Tensor) -> Tensor:
        """Return whole maps, zero outside the windows: (N, M, C) -> (N, P, H, W, C)."""
        height, width = self.size
        n, _, c = differences.shape
        maps = differences.new_zeros((n, self.positions * height * width, c))
        maps.index_copy_(1, self.owners.long() * (height * width) + self.on_map, differences)
        return maps.view(n, self.positions, height, width, c)

    def gather(self, maps: Tensor) -> Tensor:
        """Return the windows of whole maps: (N, P, H, W, C) -> (N, M, C)."""
        places = self.owners.long() * (self.size[0] * self.size[1]) + self.on_map
        return maps.flatten(1, 3).index_select(1, places)


class Residual(NamedTuple):
    """What is added: (N, M', C') differences of the same positions in a list of their own."""

    differences: Tensor
    pixels: PixelList


class Bounds(NamedTuple):
    """min(b, 0) and -max(b, 0) of the map b in front of a ReLU, (N, H, W, C') each."""

    low: Tensor
    high: Tensor


def pixel_list(boxes: Tensor, size: tuple[int, int]) -> PixelList:
    """Return the list of the pixels of windows, where the boxes are.

    Args:
        boxes: (P, 4) integers, (top, left, bottom, right) in pixels, half open; an empty one has
            no entries.
        size: height and width of the map.

    Raises:
        ValueError: the boxes are no such, reach beyond the map, or hold 2^31 pixels or more; or a
            side of the map is larger than 2^15 - 1.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.is_floating_point():
        raise ValueError(f"expected integers (P, 4), got {boxes.dtype} {tuple(boxes.shape)}")
    if not 1 <= min(size) <= max(size) <= LARGEST_SIDE:
        raise ValueError(f"expected sides of 1 to {LARGEST_SIDE} pixels, got {size}")
    top, left, bottom, right = boxes.long().unbind(1)
    fits = (top >= 0) & (left >= 0) & (bottom >= top) & (right >= left)
    if not bool((fits & (bottom <= size[0]) & (right <= size[1])).all()):
        raise ValueError(f"expected boxes inside a map of {size[0]} x {size[1]} pixels")
    areas = (bottom - top) * (right - left)
    ends = areas.cumsum(0)
    entries = int(ends[-1]) if len(ends) else 0
    if entries >= 2**31:
        raise ValueError(f"expected less than 2^31 pixels, got {entries}")
    owners = torch.repeat_interleave(areas, output_size=entries)
    starts = ends - areas
    inside = torch.arange(entries, device=boxes.device) - starts[owners]
    width = (right - left)[owners]
    pixels = (top[owners] + inside // width) * 2**16 + left[owners] + inside % width
    return PixelList(size, boxes.int().contiguous(), starts, owners.int(), pixels.int())
