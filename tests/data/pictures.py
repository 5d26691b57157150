"""Pictures for these tests, and PIL's word on what they look like."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colour, hard edges and noise: an RGB image on which decoders can differ."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    colours = [128 + 100 * np.sin(x / 7 + seed), 128 + 100 * np.cos(y / 5), (x * y + 40 * x) % 256]
    noisy = np.stack(colours, axis=-1) + rng.normal(0, 10, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def jpeg(height: int = 24, width: int = 32, seed: int = 0, **options: Any) -> bytes:
    return encode(picture(height, width, seed), "JPEG", **options)


def as_pil_has_it(data: bytes) -> np.ndarray:
    """Decode with PIL alone: uint8 (H, W, 3)."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(image.convert("RGB"))
