"""Bytes of an image file to a uint8 RGB tensor, or the reason why not.

PIL is the reference: whatever it decodes, turned upright as its Exif orientation says and
converted to RGB, is what comes out here, within 2 grey levels. JPEGs of one or three components,
nearly all there is, go through torchvision's libjpeg-turbo, which does the same arithmetic and
hands over a tensor without a detour. A torchvision without decoders costs speed, never a result.
Everything else, and every JPEG that torchvision refuses,
is PIL's to judge, so a file is good here exactly if PIL can read it whole.

One departure, on purpose: PIL turns 16-bit greyscale to 8 bits by clipping at 255, which leaves
a white picture. Here the high byte is taken.
"""

import contextlib
import functools
import io
import struct
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from fc7.engine.data.jpeg import JpegHeader, read_jpeg_header
from fc7.engine.errors import BadImage

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000
"""Images with more pixels than this are refused before they are decoded."""

PIL_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What PIL is asked to recognise. The others need outside programs (EPS), have no signature and
so claim random bytes (TGA), or hold no photographs."""

_SIGNATURES = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"RIFF", "WEBP"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """Decode an image file to uint8 (3, H, W) in RGB, turned upright by its Exif orientation.

    Of an animation, the first frame. Transparency is dropped, not blended: the colours are
    those stored. The tensor's memory may be in channels-last order.

    Args:
        data: the whole file: JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000 or AVIF.
        max_pixels: the largest height x width accepted, checked before anything is decoded.

    Raises:
        BadImage: "empty" for no bytes, "too-large", "truncated" for an image that ends early,
            "not-an-image" for anything else that cannot be decoded.
    """
    if not data:
        raise BadImage("empty", "the file has 0 bytes")
    header = read_jpeg_header(data)
    if header is not None:
        _check_pixels(header.height, header.width, max_pixels)
        if header.components in (1, 3):
            image = _decode_jpeg(data, header)
            if image is not None:
                return image
    return _decode_with_pil(data, max_pixels)


def _check_pixels(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise BadImage(
            "too-large", f"{height} x {width} pixels are more than the {max_pixels} allowed"
        )


@functools.cache
def _torchvision_decoder() -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return uint8 (bytes,) -> uint8 (3, H, W), or None in a torchvision without decoders.

    They are deprecated since 0.29, which says so at every call.
    """
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    warnings.filterwarnings(
        "ignore", "The image decoding and encoding capabilities", DeprecationWarning
    )
    return functools.partial(decode_jpeg, mode=ImageReadMode.RGB)


def _decode_jpeg(data: bytes, header: JpegHeader) -> torch.Tensor | None:
    """Decode a JPEG through torchvision: uint8 (3, H, W), or None where it refuses."""
    decode = _torchvision_decoder()
    if decode is None:
        return None
    try:
        # A copy, since torch cannot promise to leave immutable bytes alone; 1/200 of the cost.
        image = decode(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    except RuntimeError:
        return None
    return _upright(image, header.orientation)


def _upright(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """Undo an Exif orientation, 1 to 8: (3, H, W) -> (3, H, W) or (3, W, H)."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    # What is left is a mirror image along the axes named.
    mirrored = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation)
    return image.flip(mirrored) if mirrored else image


def _decode_with_pil(data: bytes, max_pixels: int) -> torch.Tensor:
    """Decode anything PIL reads: uint8 (3, H, W)."""
    from PIL import Image

    try:
        image = _open_with_pil(data)
        if image is not None:
            _check_pixels(image.height, image.width, max_pixels)
            pixels = _rgb(image)
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("too-large", _one_line(error)) from None
    except MemoryError:
        raise BadImage("too-large", "there is not enough memory to decode it") from None
    except Exception as error:  # decoders of hostile bytes fail with nearly any type
        raise _verdict(data, error) from None
    if image is None:
        raise _verdict(data, None)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _open_with_pil(data: bytes) -> "Image.Image | None":
    """Open lazily, as PIL.Image.open does but for its pixel limit, which is one per process.

    Returns None where no format claims the bytes.
    """
    from PIL import Image

    Image.init()
    for name in PIL_FORMATS:
        if name not in Image.OPEN:  # built without it
            continue
        factory, accept = Image.OPEN[name]
        accepted = True if accept is None else accept(data[:16])
        # A string is a format recognised that this PIL was built without.
        if not accepted or isinstance(accepted, str):
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    return None


def _rgb(image: "Image.Image") -> np.ndarray:
    """Load, turn upright and convert: uint8 (H, W, 3), writable."""
    from PIL import Image, ImageOps

    image.load()
    # Sixteen bits are mode I;16, or I where PIL has no narrower mode for the format.
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    with contextlib.suppress(Exception):  # a mangled note about the image says nothing of it
        image = ImageOps.exif_transpose(image)
    if deep:
        grey = (np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        # The same colours as going straight to RGB, without PIL's warning about the detour.
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    assert isinstance(image, Image.Image)
    return np.array(image)


def _verdict(data: bytes, error: Exception | None) -> BadImage:
    """Name what is wrong with bytes that did not decode: cut short, or never an image."""
    name = next((name for mark, name in _SIGNATURES if data.startswith(mark)), None)
    if name is None and error is None:
        return BadImage("not-an-image", f"no image format begins with {data[:8]!r}")
    detail = _one_line(error) if error is not None else "its header makes no sense"
    if _ends_early(data, name) or "truncated" in detail.lower():
        return BadImage("truncated", f"{name or 'the image'} ends after {len(data)} bytes")
    return BadImage("not-an-image", f"broken {name or 'image'}: {detail}")


def _ends_early(data: bytes, name: str | None) -> bool:
    """Whether a file that did not decode also lacks the end that its format prescribes."""
    if name == "JPEG":
        return b"\xff\xd9" not in data[-65536:]
    if name == "PNG":
        return b"IEND" not in data[-65536:]
    if name == "GIF":
        return not data.endswith(b";")
    if name == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
