"""Images to files and back."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fc7.engine.data import MAX_PIXELS
from fc7.engine.data.files import one_image
from fc7.engine.errors import OptionError

FORMATS = ("png", "webp")
_WEBP_QUALITY = 90


def check_format(form: str) -> None:
    """Raise OptionError where pictures cannot be written so."""
    if form not in FORMATS:
        raise OptionError(f"no format {form!r}; there are {' and '.join(FORMATS)}")


def rounded(images: Tensor) -> Tensor:
    """Return images in [0, 1] at the nearest of the 256 levels that a file has."""
    return images.mul(255).round_().clamp_(0, 255).div_(255)


def encode_picture(image: Tensor, form: str = "png") -> bytes:
    """Return an image, float (3, H, W) in [0, 1], as a file: png, without loss, or webp, with."""
    buffer = io.BytesIO()
    Image.fromarray(as_array(image)).save(buffer, form.upper(), quality=_WEBP_QUALITY)
    return buffer.getvalue()


def as_array(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return an image, float (3, H, W) in [0, 1], as uint8 (H, W, 3); what is NaN is black."""
    levels = image.detach().nan_to_num(0).mul(255).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy())


def digest_of_picture(image: Tensor) -> str:
    """Return the SHA-256 of an image's 256 levels, in hexadecimal."""
    return hashlib.sha256(as_array(image).tobytes()).hexdigest()


def fit(image: Tensor, side: int | None) -> Tensor:
    """Resize uint8 (3, H, W) so that the longer side has so many pixels; not at all if None."""
    from torchvision.transforms.v2 import functional

    height, width = image.shape[-2:]
    if side is None or max(height, width) == side:
        return image
    scale = side / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    resized: Tensor = functional.resize(image, size, antialias=True)
    return resized


def read_picture(file: str | Path, side: int | None = None, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Return an image file as float32 (3, H, W) in [0, 1].

    Args:
        file: the image.
        side: pixels of the longer side that it is resized to; as it is if None.
        max_pixels: the largest height x width that is decoded.

    Raises:
        SourceError: the file cannot be used.
    """
    _, image = one_image(file, max_pixels)
    return fit(image, side).float().div_(255).contiguous()
