"""One image file, as it is and as the network sees it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fc7.engine.data import MAX_PIXELS, Source, Transform
from fc7.engine.data.files import one_image
from fc7.engine.drawing.sheet import PANEL
from fc7.engine.errors import BadImage, SourceError
from fc7.engine.models import Network


@dataclass(frozen=True)
class Photograph:
    """An image file, decoded.

    Attributes:
        name: the file's name without its folder.
        source: a source of one row, the image.
        original: uint8 (3, H, W), the image itself.
        seen: uint8 (3, h, w), what the network sees of it.
        picture: uint8 (h', w', 3), the same at the image's own resolution where that is finer.
    """

    name: str
    source: Source
    original: Tensor
    seen: Tensor
    picture: NDArray[np.uint8]


def open_photograph(file: str | Path, network: Network, max_pixels: int = MAX_PIXELS) -> Photograph:
    """Decode an image file for a network.

    Args:
        file: the image.
        network: whose transform it goes through.
        max_pixels: the largest height x width that is decoded.

    Raises:
        SourceError: the file cannot be used.
    """
    source, original = one_image(file, max_pixels)
    try:
        seen = network.transform(original)
    except BadImage as error:
        raise SourceError(f"{file}: {error.status} ({error})") from error
    picture = as_seen(original, network.transform, seen)
    return Photograph(Path(file).name, source, original, seen, picture)


def as_seen(original: Tensor, transform: Transform, seen: Tensor) -> NDArray[np.uint8]:
    """Return what the network sees of an image, at the image's own resolution where that is finer.

    Args:
        original: uint8 (3, H, W).
        transform: the network's.
        seen: uint8 (3, h, w), what it makes of the image.

    Returns:
        uint8 (h', w', 3), of the proportions of `seen`.
    """
    height, width = original.shape[-2:]
    rows, columns = seen.shape[-2:]
    top, left, bottom, right = transform.to_original((0, 0, rows, columns), height, width)
    corner = transform.to_original((0, 0, 1, 1), height, width)
    is_padded = corner[2] <= corner[0] or corner[3] <= corner[1]
    scale = PANEL / max(rows, columns)
    finer = (bottom - top) > rows and (right - left) > columns
    if is_padded or not finer or scale <= 1:
        return np.ascontiguousarray(seen.permute(1, 2, 0).numpy())
    whole = Image.fromarray(np.ascontiguousarray(original.permute(1, 2, 0).numpy()))
    shape = round(columns * scale), round(rows * scale)
    box = (left, top, right, bottom)
    return np.array(whole.resize(shape, Image.Resampling.LANCZOS, box=box))
