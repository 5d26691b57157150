"""Maximal patches beside their guided gradients, as a picture: a block for each channel."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fc7.engine.attribution.guided_patches import guided_patches_job
from fc7.engine.data import Source
from fc7.engine.drawing.sheet import INK, PAPER, save_picture
from fc7.engine.features.crops import crop_patches
from fc7.engine.models import Network
from fc7.engine.store import Run
from fc7.engine.store.patches import Patches, read_patches

CHANNELS_A_SHEET = 64

_TILE, _GAP, _BETWEEN, _MARGIN, _HEAD = 64, 3, 12, 28, 26
_BLOCKS_A_LINE = 4


def draw_guided_patches(
    run: Run, source: Source, network: Network, layer: str, path: Path
) -> list[Path]:
    """Draw what a run holds of a layer's guided patches; patches left, gradients right.

    Args:
        run: the run, with the layer's guided patches.
        source: its images.
        network: its network.
        layer: the layer's name.
        path: the picture; its ending says the format. Of more than 64 channels there are several,
            with numbers before the ending.

    Returns:
        The pictures' paths.

    Raises:
        StoreError: the run has no guided patches of that layer.
        OptionError: no such format.
    """
    count = len(run.job(guided_patches_job(layer)).result("channels"))
    sheets = range(0, count, CHANNELS_A_SHEET)
    made = []
    for number, first in enumerate(sheets, 1):
        part = range(first, min(first + CHANNELS_A_SHEET, count))
        blocks = [
            (f"{layer} {channel}", patches, gradients)
            for channel, patches, gradients in blocks_of(run, source, network, layer, part)
        ]
        name = path if len(sheets) == 1 else path.with_stem(f"{path.stem}-{number}")
        save_picture(partial(draw_blocks, blocks), name)
        made.append(name)
    return made


def blocks_of(
    run: Run,
    source: Source,
    network: Network,
    layer: str,
    part: Sequence[int],
    tile: int | None = None,
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield channels with their patches and guided gradients, uint8 (K, tile, tile, 3) each.

    Args:
        run: as for `draw_guided_patches`, likewise the next three.
        source: likewise.
        network: likewise.
        layer: likewise.
        part: which of the channels that the run holds gradients of, by place.
        tile: side in pixels of the patches; that of the gradients if None.
    """
    job, top = run.job(guided_patches_job(layer)), read_patches(run, layer)
    channels, pictures = job.result("channels")[list(part)], job.result("pictures")
    k = pictures.shape[1]
    patches = Patches(layer, top.values[:, :k], top.rows[:, :k], top.positions[:, :k])
    side = tile or pictures.shape[2]
    tiles = crop_patches(source, network, patches, layer, channels.tolist(), side)
    for place, channel, crops in zip(part, channels.tolist(), tiles, strict=True):
        yield channel, crops, np.asarray(pictures[place])


def draw_blocks(
    blocks: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]],
) -> Image.Image:
    """Draw blocks, some a line: a name, a square of patches, and one of their gradients.

    Args:
        blocks: names, and uint8 (K, tile, tile, 3) twice.
    """
    side = math.ceil(math.sqrt(len(blocks[0][1])))
    square = side * _TILE + (side - 1) * _GAP
    width, height = 2 * square + _BETWEEN, square + _HEAD
    columns = min(_BLOCKS_A_LINE, len(blocks))
    lines = -(-len(blocks) // columns)
    size = (
        _MARGIN + columns * (width + _MARGIN),
        _MARGIN + lines * (height + _MARGIN),
    )
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (name, patches, gradients) in enumerate(blocks):
        left = _MARGIN + number % columns * (width + _MARGIN)
        top = _MARGIN + number // columns * (height + _MARGIN)
        pen.text((left, top), name, INK, font_size=15)
        for offset, tiles in ((0, patches), (square + _BETWEEN, gradients)):
            for place, tile in enumerate(tiles):
                picture = Image.fromarray(np.ascontiguousarray(tile)).resize((_TILE, _TILE))
                x = left + offset + place % side * (_TILE + _GAP)
                sheet.paste(picture, (x, top + _HEAD + place // side * (_TILE + _GAP)))
    return sheet
