import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import as_pil_has_it, encode, jpeg, picture
from PIL import Image

from fc7.engine.data import decode_image
from fc7.engine.data.jpeg import read_jpeg_header
from fc7.engine.errors import BadImage

# The promise is 2 grey levels. libjpeg-turbo's arithmetic is the same in torchvision and in PIL,
# so the same version gives 0; the rest is for releases that differ in it.
LEVELS = 2

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")

SIZES = [(1, 1), (2, 3), (7, 5), (16, 16), (33, 97), (64, 17)]


def assert_as_pil(data: bytes, levels: int = LEVELS) -> torch.Tensor:
    image = decode_image(data)
    expected = as_pil_has_it(data)
    assert image.dtype == torch.uint8
    assert tuple(image.shape) == (3, *expected.shape[:2])
    difference = image.permute(1, 2, 0).numpy().astype(int) - expected
    assert np.abs(difference).max() <= levels
    return image


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "quality": 30}])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg(size: tuple[int, int], mode: str, options: dict, subsampling: int) -> None:
    data = encode(picture(*size).convert(mode), "JPEG", subsampling=subsampling, **options)
    assert_as_pil(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 are nonsense and change nothing
def test_exif_orientation(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture(20, 33), form, exif=exif)
    image = assert_as_pil(data)
    assert tuple(image.shape[1:]) == ((33, 20) if 5 <= orientation <= 8 else (20, 33))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("form", ["attribute", "element"])
def test_xmp_orientation(orientation: int, form: str) -> None:
    note = {
        "attribute": f'<x tiff:Orientation="{orientation}"/>',
        "element": f"<tiff:Orientation>{orientation}</tiff:Orientation>",
    }[form]
    assert_as_pil(jpeg(20, 33, xmp=note.encode()))


def test_mangled_exif_does_not_cost_the_image() -> None:
    data = jpeg(20, 33, exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnonsense")
    assert tuple(decode_image(data).shape) == (3, 20, 33)


def palette_with_transparency() -> Image.Image:
    image = picture(21, 34).quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


OTHERS = {
    "png": (picture(21, 34), "PNG", {}),
    "png-rgba": (picture(21, 34).convert("RGBA"), "PNG", {}),
    "png-grey-alpha": (picture(21, 34).convert("LA"), "PNG", {}),
    "png-palette": (picture(21, 34).quantize(16), "PNG", {}),
    "png-palette-transparent": (palette_with_transparency(), "PNG", {}),
    "png-1bit": (picture(21, 34).convert("1"), "PNG", {}),
    "gif": (picture(21, 34).quantize(64), "GIF", {}),
    "gif-animated": (
        picture(21, 34).quantize(64),
        "GIF",
        {"save_all": True, "append_images": [picture(21, 34, seed=3).quantize(64)]},
    ),
    "webp": (picture(21, 34), "WEBP", {}),
    "webp-lossless": (picture(21, 34), "WEBP", {"lossless": True}),
    "bmp": (picture(21, 34), "BMP", {}),
    "tiff": (picture(21, 34), "TIFF", {}),
    "tiff-lzw": (picture(21, 34), "TIFF", {"compression": "tiff_lzw"}),
    "ppm": (picture(21, 34), "PPM", {}),
    "jpeg-cmyk": (picture(21, 34).convert("CMYK"), "JPEG", {}),
    "jpeg-rgb": (picture(21, 34), "JPEG", {"keep_rgb": True}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_pils(name: str) -> None:
    image, form, options = OTHERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
        data = encode(image, form, **options)
        decode_image(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's reference path remarks on transparency
        assert_as_pil(data, levels=LEVELS if form == "JPEG" else 0)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_keeps_its_high_byte(form: str) -> None:
    deep = (np.arange(64 * 50).reshape(64, 50) * 20).astype(np.uint16)
    image = decode_image(encode(Image.fromarray(deep), form))
    assert torch.equal(image, torch.from_numpy((deep >> 8).astype(np.uint8)).expand(3, -1, -1))


def test_header_of_a_jpeg() -> None:
    header = read_jpeg_header(jpeg(20, 33))
    assert header is not None
    assert (header.height, header.width, header.components, header.orientation) == (20, 33, 3, 1)
    assert read_jpeg_header(encode(picture(4, 4), "PNG")) is None
    assert read_jpeg_header(jpeg()[:100]) is None


def status_of(data: bytes, **options: int) -> str:
    with pytest.raises(BadImage) as caught:
        decode_image(data, **options)
    assert "\n" not in str(caught.value)
    return caught.value.status


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_too_large_is_told_before_decoding(form: str) -> None:
    data = encode(picture(20, 30).quantize(8) if form == "GIF" else picture(20, 30), form)
    assert tuple(decode_image(data, max_pixels=600).shape) == (3, 20, 30)
    assert status_of(data, max_pixels=599) == "too-large"
    # The pixels are gone, the header is there: it is the header that was looked at.
    if form in ("JPEG", "PNG", "GIF"):
        assert status_of(data[: len(data) * 3 // 4], max_pixels=599) == "too-large"


def test_a_bomb_is_refused_without_pils_warnings() -> None:
    bomb = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert status_of(bytes(bomb)) == "too-large"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "empty"),
        (b"\xff", "not-an-image"),
        (b"hello, this is text" * 50, "not-an-image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 200, "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not-an-image"),
        (b"\xff\xd8\xff\xd9", "not-an-image"),
    ],
)
def test_status(data: bytes, status: str) -> None:
    assert status_of(data) == status


@pytest.mark.parametrize("form", ["JPEG", "progressive", "PNG", "GIF", "WEBP", "lossless"])
def test_truncation_is_found_wherever_pil_finds_it(form: str) -> None:
    options = {"progressive": {"progressive": True}, "lossless": {"lossless": True}}.get(form, {})
    name = {"progressive": "JPEG", "lossless": "WEBP"}.get(form, form)
    image = picture(40, 50)
    whole = encode(image.quantize(64) if name == "GIF" else image, name, **options)
    signature = {"JPEG": 2, "PNG": 8, "GIF": 4, "WEBP": 4}[name]
    # Everywhere near the end, where an end marker may be all that is missing, and at many places.
    cuts = {*range(len(whole) - 40, len(whole)), *range(signature, len(whole), 23)}
    for cut in cuts:
        data = whole[:cut]
        try:
            as_pil_has_it(data)
        except Exception:
            assert status_of(data) == "truncated", cut
        else:
            # PIL reads on without the trailer of a PNG or a GIF; a JPEG's it wants.
            assert_as_pil(data)
            assert name in ("PNG", "GIF")
            assert cut > len(whole) - 40


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_rubbish_after_the_end_is_fine(form: str) -> None:
    image = picture(24, 32)
    data = encode(image.quantize(64) if form == "GIF" else image, form)
    assert torch.equal(decode_image(data + b"rubbish" * 99), decode_image(data))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_random_bytes_are_an_image_or_a_bad_image(data: bytes, start: bytes) -> None:
    try:
        image = decode_image(start + data, max_pixels=10_000)
    except BadImage:
        return
    assert image.dtype == torch.uint8


FLIPPED = [
    jpeg(),
    jpeg(progressive=True),
    jpeg(exif=Image.Exif().tobytes()),
    encode(picture(24, 32), "PNG"),
    encode(picture(24, 32).quantize(16), "GIF"),
    encode(picture(24, 32), "WEBP"),
    encode(picture(24, 32), "BMP"),
    encode(picture(24, 32), "TIFF"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL remarks on broken Exif and TIFF tags
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FLIPPED), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7))))
def test_flipped_bits_give_what_pil_gives(data: bytes, flips: list[tuple[float, int]]) -> None:
    broken = bytearray(data)
    for place, bit in flips:
        broken[min(int(place * len(data)), len(data) - 1)] ^= 1 << bit
    broken = bytes(broken)
    try:
        image = decode_image(broken, max_pixels=1_000_000)
    except BadImage as bad:
        if bad.status == "too-large":
            return
        with pytest.raises(Exception):  # noqa: B017, PT011 - PIL fails with nearly any type
            as_pil_has_it(broken)
        return
    deep = Image.open(io.BytesIO(broken)).mode.startswith("I")
    if not deep:
        difference = image.permute(1, 2, 0).numpy().astype(int) - as_pil_has_it(broken)
        assert np.abs(difference).max() <= LEVELS


def test_without_torchvisions_decoder_pil_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from fc7.engine.data import decode

    monkeypatch.setattr("torchvision.io.decode_jpeg", None)
    monkeypatch.delattr("torchvision.io.decode_jpeg")
    decode._torchvision_decoder.cache_clear()
    try:
        assert decode._torchvision_decoder() is None
        assert_as_pil(jpeg(20, 33), levels=0)
    finally:
        monkeypatch.undo()
        decode._torchvision_decoder.cache_clear()


def test_real_photographs(request: pytest.FixtureRequest) -> None:
    folder = request.config.getoption("--images")
    if folder is None:
        pytest.skip("needs real photographs: pass --images FOLDER")
    files = sorted(Path(folder).rglob("*.[jJ][pP]*[gG]"))[::10][:60]
    assert files
    for file in files:
        assert_as_pil(file.read_bytes())
