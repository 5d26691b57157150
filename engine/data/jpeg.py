"""What a JPEG file says of itself before it is decoded: ITU-T T.81 (1992), annex B.

Reading the markers costs microseconds. It tells the size, so that a bomb is refused before any
memory is taken for it, the number of components, which chooses the decoder, and the orientation
that the camera noted.
"""

import re
from dataclasses import dataclass

_SOI, _SOS, _APP1 = 0xD8, 0xDA, 0xE1
# Start-of-frame markers of every coding process; C4, C8 and CC in their midst mean other things.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that stand alone, with no length after them.
_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What precedes the pixels.

    Attributes:
        height: rows, as stored (before the orientation is applied).
        width: columns, as stored.
        components: 1 greyscale, 3 colour, 4 CMYK or YCCK.
        orientation: 1 to 8 as in Exif tag 0x0112; 1 where nothing or nonsense is noted.
    """

    height: int
    width: int
    components: int
    orientation: int


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Walk the markers of a JPEG file from its start to its first scan.

    Returns None where the walk meets anything irregular before the scan: the file is no JPEG, is
    cut short, or is odd enough that a full decoder must judge it.
    """
    if data[:2] != b"\xff\xd8":
        return None
    frame: tuple[int, int, int] | None = None
    exif = xmp = b""
    at = 2
    while True:
        if data[at : at + 1] != b"\xff":
            return None
        while data[at : at + 1] == b"\xff":  # any number of fill bytes may precede the code
            at += 1
        if at + 3 > len(data):
            return None
        marker = data[at]
        at += 1
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        end = at + length
        if length < 2 or end > len(data):
            return None
        if marker == _SOS:
            break
        if marker in _SOF:
            if frame is not None or length < 8:
                return None
            frame = (
                int.from_bytes(data[at + 3 : at + 5], "big"),
                int.from_bytes(data[at + 5 : at + 7], "big"),
                data[at + 7],
            )
        elif marker == _APP1:
            if data.startswith(_EXIF, at + 2):
                # Exif longer than one segment goes on in the next, whose prefix is not repeated.
                exif += data[at + 2 + (len(_EXIF) if exif else 0) : end]
            elif data.startswith(_XMP, at + 2):
                xmp = data[at + 2 + len(_XMP) : end]
        at = end
    if frame is None:
        return None
    return JpegHeader(*frame, orientation=_orientation(exif, xmp))


def _orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation of the Exif block or, where it has none, of the XMP packet."""
    value: object = None
    if exif:
        from PIL import Image

        block = Image.Exif()
        try:
            block.load(exif)
            value = block.get(0x0112)
        except Exception:  # a mangled note about the image says nothing of the image
            value = None
    if value is None and (found := _XMP_ORIENTATION.search(xmp)):
        value = int(found[1])
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
