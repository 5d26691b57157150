"""A mask as a file: a PNG of one bit a pixel, white on the object."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Return bool (H, W) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def decode_mask(file: bytes) -> NDArray[np.bool_]:
    """Return what `encode_mask` made a file of: bool (H, W); (0, 0) for no bytes, a bad row's."""
    if not file:
        return np.zeros((0, 0), np.bool_)
    # Not by Image.open, whose guard against bombs is for files of strangers.
    with PngImageFile(io.BytesIO(file)) as image:
        return np.array(image.convert("1"), dtype=np.bool_)
