"""Arrays to pictures inside the page: WebP for photographs, PNG for filters and maps."""

import base64
import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.report.markup import Markup, element

WEBP_QUALITY = 82
# Viridis (van der Walt and Smith, 2015) at nine equal steps: ordered in lightness, also in grey
# and for colour-blind readers.
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 45, 123),
        (59, 82, 139),
        (44, 114, 142),
        (33, 145, 140),
        (40, 174, 128),
        (94, 201, 98),
        (173, 220, 48),
        (253, 231, 37),
    ],
    dtype=np.float64,
)
# Enough that no step shows, few enough that a small map's palette does not outweigh its pixels.
_LEVELS = 64


def webp(pixels: NDArray[np.uint8], quality: int = WEBP_QUALITY) -> bytes:
    """Encode uint8 (H, W, 3) RGB as a lossy WebP file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8 (H, W, 3) RGB as a lossless PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def heatmap(values: NDArray[np.floating[Any]]) -> bytes:
    """Encode (H, W), 0 to its own maximum, as a PNG file in viridis; no positive value is 0."""
    from PIL import Image

    peak = float(values.max(initial=0.0))
    scaled = np.clip(values / peak, 0, 1) if peak > 0 else np.zeros(values.shape)
    image = Image.fromarray(np.round(scaled * (_LEVELS - 1)).astype(np.uint8), mode="P")
    image.putpalette(viridis_palette().reshape(-1).tolist())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def viridis_palette() -> NDArray[np.uint8]:
    """Return the colours of `heatmap`, dark to light: uint8 (64, 3)."""
    places = np.linspace(0, len(_VIRIDIS) - 1, _LEVELS)
    steps = np.arange(len(_VIRIDIS))
    channels = [np.interp(places, steps, _VIRIDIS[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)


def data_uri(file: bytes) -> str:
    """Return an encoded picture as a `data:` URI; its kind is read off its first bytes."""
    kind = "png" if file.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"


def image(file: bytes, alt: str, **attributes: object) -> Markup:
    """Return an `<img>` with the encoded picture inside; `attributes` as for `element`."""
    return element("img", src=data_uri(file), alt=alt, decoding="async", **attributes)


def centre_square(picture: Tensor, side: int) -> Tensor:
    """Cut the middle square out of uint8 (3, H, W), shrunk to at most uint8 (3, side, side)."""
    height, width = picture.shape[-2:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = as_pixels(picture[:, top : top + short, left : left + short])
    return torch.from_numpy(resize(square, min(side, short))).permute(2, 0, 1)


def resize(square: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize uint8 (s, s, 3) to uint8 (side, side, 3), bicubic and antialiased."""
    from PIL import Image

    if len(square) == side:
        return square
    # PIL rather than torch: on pictures this small, waking torch's threads is the whole cost.
    resized = Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC)
    return np.array(resized)


def as_pixels(picture: Tensor) -> NDArray[np.uint8]:
    """Turn uint8 (3, H, W) into uint8 (H, W, 3), as encoders want it."""
    return np.ascontiguousarray(picture.permute(1, 2, 0).cpu().numpy())
