"""A contact sheet of maximal patches: a line for each channel, strongest first."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fc7.engine.data import open_source
from fc7.engine.errors import FingerprintError, StoreError
from fc7.engine.features.crops import crop_patches
from fc7.engine.models import Network
from fc7.engine.store import Run
from fc7.engine.store.atomic import publish, temporary_beside
from fc7.engine.store.network import network_of
from fc7.engine.store.patches import read_patches

_GAP, _MARGIN = 4, 56
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def draw_patches(
    run: Run,
    layer: str,
    channels: Sequence[int],
    path: Path,
    network: Network | None = None,
    tile: int = 96,
) -> None:
    """Draw the maximal patches of some channels of a layer into a picture, PNG by its name.

    Args:
        run: the run, with the layer's maximal patches and its images still in place.
        layer: the layer's name.
        channels: one line of patches for each.
        path: the picture; its ending says the format.
        network: the run's network, loaded when not given.
        tile: side of a patch in pixels.

    Raises:
        StoreError: no such format, no patches of that layer in the run, its images have changed,
            or its network cannot be had any more.
        SourceError: its images are not where they were.
    """
    from PIL import Image, ImageDraw

    if path.suffix.lower() not in Image.registered_extensions():
        raise StoreError(f"{path}: no picture ends with {path.suffix!r}; write .png")
    patches = read_patches(run, layer)
    source = open_source(run.meta["source"]["spec"])
    try:
        run.check_source(source)
    except FingerprintError as error:
        raise StoreError(
            f"the images of {run.folder} have changed, so no patch can be cut out of them; put "
            f"back {run.meta['source']['spec']} as it was"
        ) from error
    crops = crop_patches(source, network or network_of(run), patches, layer, channels, tile)
    lines, columns = crops.shape[:2]
    step = tile + _GAP
    sheet = Image.new("RGB", (_MARGIN + columns * step, _GAP + lines * step), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for line, channel in enumerate(channels):
        top = _GAP + line * step
        pen.text((_MARGIN - 10, top + tile // 2), str(channel), _INK, anchor="rm", font_size=16)
        for column in range(columns):
            sheet.paste(
                Image.fromarray(np.ascontiguousarray(crops[line, column])),
                (_MARGIN + column * step, top),
            )
    temporary = temporary_beside(path).with_suffix(path.suffix)
    try:
        sheet.save(temporary)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
