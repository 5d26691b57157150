"""Differences in windows: what a row of positions changes in a layer, and nothing else.

For each position a window of the layer's map holds, pixel by pixel, by how much covering the image
there changes it. Everywhere outside the window the difference is zero. Memory is channels last.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from fc7.engine.attribution.occlusion.incremental.layout import Copy, Layout


@dataclass
class Windows:
    """The differences that one row of positions makes to a layer of N images.

    Attributes:
        top: the first row of the map that the windows hold; the same for all positions.
        height: rows that they hold.
        layout: their columns.
        blocks: (N, members, height, width, C) for each group of the layout.
    """

    top: int
    height: int
    layout: Layout
    blocks: list[Tensor]

    @property
    def bottom(self) -> int:
        """The row behind the last."""
        return self.top + self.height


def pairs(
    target: Tensor, top: int, source: Windows, copies: Sequence[Copy]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield views of a target and of windows that show the same pixels of the map.

    Args:
        target: (N, members, height, width, C).
        top: the row of the map that the target begins with.
        source: the windows.
        copies: which columns of them show the same as which of the target.
    """
    first = max(top, source.top)
    last = min(top + target.shape[2], source.bottom)
    if first >= last:
        return
    to_rows, rows = slice(first - top, last - top), slice(first - source.top, last - source.top)
    for copy in copies:
        to_columns = slice(copy.target_offset, copy.target_offset + copy.width)
        columns = slice(copy.source_offset, copy.source_offset + copy.width)
        block = source.blocks[copy.source_group]
        yield (
            target[:, copy.target.slice, to_rows, to_columns],
            block[:, copy.source.slice, rows, columns],
        )


def pairs_of_map(
    target: Tensor, top: int, source: Tensor, copies: Sequence[Copy]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield views of a target and of a map that show the same pixels.

    Args:
        target: (N, members, height, width, C); may reach beyond the map.
        top: the row of the map that the target begins with.
        source: the map, (N, H, W, C), contiguous, or one for all images, (1, H, W, C).
        copies: which columns of the map show the same as which of the target.
    """
    n, height, _, c = source.shape
    first, last = max(top, 0), min(top + target.shape[2], height)
    if first >= last:
        return
    by_image, by_row, by_column, by_channel = source.stride()
    for copy in copies:
        columns = slice(copy.target_offset, copy.target_offset + copy.width)
        view = source.as_strided(
            (n, copy.source.length, last - first, copy.width, c),
            (by_image, copy.source.step * by_column, by_row, by_column, by_channel),
            source.storage_offset() + first * by_row + copy.source.first * by_column,
        )
        yield target[:, copy.target.slice, first - top : last - top, columns], view


def as_maps(block: Tensor) -> Tensor:
    """View (N, members, height, width, C) as maps, (N * members, C, height, width)."""
    return block.flatten(0, 1).permute(0, 3, 1, 2)


def as_block(maps: Tensor, images: int) -> Tensor:
    """View maps, (N * members, C, height, width), as a block of N images; copy if need be."""
    channels_last = maps.permute(0, 2, 3, 1).contiguous()
    return channels_last.view(images, -1, *channels_last.shape[1:])
