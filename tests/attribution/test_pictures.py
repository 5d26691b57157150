"""Pictures of occlusion maps: colours that mean what they say, on the pixels they belong to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fc7.engine.attribution.colours import colours, levels, table
from fc7.engine.attribution.occlusion.figure import OccludedImage, draw, save_figure
from fc7.engine.attribution.occlusion.grid import places
from fc7.engine.attribution.occlusion.job import OccludeOptions
from fc7.engine.attribution.occlusion.one_image import occlude_image
from fc7.engine.attribution.occlusion.pictures import heat, overlaid, peak_of, strongest_window
from fc7.engine.data import Transform
from fc7.engine.drawing.photograph import as_seen
from fc7.engine.drawing.sheet import PANEL
from fc7.engine.errors import OptionError, SourceError
from fc7.engine.models import load_model

# Height, width, window, stride: overlapping, side by side, with gaps, and with a last place that
# is cut off or covers nothing.
GRIDS = [(23, 31, 7, 4), (20, 20, 5, 5), (17, 26, 3, 8), (9, 9, 9, 1), (16, 12, 1, 1)]


def grid_of(height: int, width: int, window: int, stride: int) -> tuple[int, int]:
    return tuple(-((window - side) // stride) + 1 for side in (height, width))  # type: ignore[return-value]


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB, 0 to 255, to OKLab by its inventor's matrices in this direction."""
    encoded = rgb.astype(np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.transpose(to_cones)) @ np.transpose(to_lab)


def test_the_scale_is_even_and_symmetrical_to_the_eye() -> None:
    lab = oklab(table())
    assert lab.shape == (255, 3)
    # Eight steps at a time, since colours of 8 bits are off by half a level each.
    steps = np.linalg.norm(lab[8:] - lab[:-8], axis=1)[np.r_[0:120, 127:247]]
    for half in (steps[:120], steps[120:]):
        assert half.max() < 1.25 * half.min()
    assert abs(lab[0, 0] - lab[254, 0]) < 0.01
    np.testing.assert_allclose(lab[127, 1:], 0, atol=0.002)
    assert (np.diff(lab[:128, 0]) > -0.002).all()
    assert (np.diff(lab[127:, 0]) < 0.002).all()
    # Told apart without red and green, by blue against yellow.
    assert lab[254, 2] - lab[0, 2] > 0.15


def test_zero_is_neutral_and_the_largest_change_is_an_end() -> None:
    values = np.array([-2.0, -1.0, 0.0, 1e-9, 2.0, np.nan, 7.0])
    np.testing.assert_array_equal(levels(values, 2.0), [0, 64, 127, 127, 254, 127, 254])
    np.testing.assert_array_equal(colours(values, 2.0), table()[levels(values, 2.0)])
    assert len({tuple(colour) for colour in table().tolist()}) == 255
    red, green, blue = table()[127].tolist()
    assert red == green == blue
    np.testing.assert_array_equal(levels(values, 0.0), [127] * 7)


@pytest.mark.parametrize("grid", GRIDS)
def test_every_pixel_has_the_colour_of_the_place_nearest_to_it(
    grid: tuple[int, int, int, int],
) -> None:
    height, width, window, stride = grid
    shape = grid_of(*grid)
    drops = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    drops.flat[3 % drops.size] = np.nan
    peak = peak_of(drops)
    found = heat(drops, (height, width), window, stride, peak)
    covered = list(places((height, width), window, stride))
    for y in range(height):
        for x in range(width):
            away = {}
            for (top, left, bottom, right), value in zip(covered, drops.flat, strict=True):
                if top < bottom and left < right:  # the middle of a pixel is half a pixel in
                    dy, dx = (top + bottom) / 2 - y - 0.5, (left + right) / 2 - x - 0.5
                    away.setdefault((abs(dy), abs(dx)), []).append(value)
            nearest = min(away, key=lambda d: d[0]), min(away, key=lambda d: d[1])
            allowed = away[nearest[0][0], nearest[1][1]]
            colours_of = [colours(np.array(value), peak).tolist() for value in allowed]
            assert found[y, x].tolist() in colours_of, (y, x)
    if not (np.nan_to_num(drops) == 0).all():
        largest = np.unravel_index(np.nan_to_num(np.abs(drops)).argmax(), shape)
        end = table()[254 if drops[largest] > 0 else 0]
        assert (found == end).all(-1).any() or not _covers(covered, shape, largest)


def _covers(boxes: list[tuple[int, int, int, int]], shape: tuple[int, int], place: object) -> bool:
    top, left, bottom, right = boxes[int(np.ravel_multi_index(place, shape))]  # type: ignore[call-overload]
    return top < bottom and left < right


def test_a_map_can_be_drawn_larger_than_the_image() -> None:
    drops = np.array([[1.0, -1.0], [0.0, 0.5]], np.float32)
    small = heat(drops, (8, 8), 4, 4, 1.0)
    large = heat(drops, (8, 8), 4, 4, 1.0, (24, 40))
    np.testing.assert_array_equal(large[1::3, 2::5], small)
    np.testing.assert_array_equal(small[0, 0], table()[254])
    np.testing.assert_array_equal(small[0, 7], table()[0])
    np.testing.assert_array_equal(small[7, 0], table()[127])


def test_an_overlay_is_the_image_where_the_map_is_zero() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    drops = np.zeros((4, 4), np.float32)
    light = image @ [0.2126, 0.7152, 0.0722]
    # A fifth of the colour is left, and seven tenths of the darkness.
    grey = light[..., None] + 0.2 * (image - light[..., None])
    expected = 255 - 0.7 * (255 - grey)
    nothing = overlaid(image, drops, (20, 20), 5, 5, 0.0)
    np.testing.assert_allclose(nothing, expected, atol=0.5 + 1e-9)
    drops[0, 0], drops[3, 3] = 0.5, -0.25
    some = overlaid(image, drops, (20, 20), 5, 5, 0.5)
    # Places are 5 pixels apart, and the map is linear between their middles.
    np.testing.assert_array_equal(some[8:12, 8:12], nothing[8:12, 8:12])
    for place, end, strength in (((2, 2), 254, 1.0), ((17, 17), 0, 0.5)):
        opaque = 0.72 * strength**0.75
        colour = table()[end].astype(float)
        blend = expected[place] + opaque * (colour - expected[place])
        np.testing.assert_allclose(some[place], blend, atol=0.5 + 1e-9)
    assert overlaid(image[::2], drops, (20, 20), 5, 5, 0.5).shape == (10, 20, 3)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_strongest_window_is_where_the_fall_is_largest(
    grid: tuple[int, int, int, int],
) -> None:
    height, width, window, stride = grid
    boxes = list(places((height, width), window, stride))
    for number in range(len(boxes)):
        drops = np.full(grid_of(*grid), -5.0, np.float32)
        drops.flat[number] = -1.0  # the least rise, where nothing falls
        assert strongest_window(drops, (height, width), window, stride) == boxes[number]


def occluded(**changes: object) -> OccludedImage:
    fields: dict[str, object] = {
        "key": "a.png",
        "image": np.full((40, 40, 3), 90, np.uint8),
        "size": (40, 40),
        "drops": np.array([[0.0, 0.3], [-0.1, 0.6]], np.float32),
        "window": 20,
        "stride": 20,
        "fill": (0.5, 0.5, 0.5),
        "score": "probability",
        "target": "disc",
        "probability": 0.93,
        "predicted": "disc",
    }
    return OccludedImage(**{**fields, **changes})  # type: ignore[arg-type]


def panels_of(sheet: Image.Image, width: int, height: int) -> list[np.ndarray]:
    """The three panels, found by their frames' colour in the picture."""
    pixels = np.asarray(sheet)
    line = (pixels == (208, 204, 196)).all(-1)
    tops = np.flatnonzero(line.sum(1) > 3 * width)
    top = int(tops[0])
    lefts = np.flatnonzero(line[top + 1 : top + height].all(0))[0:6:2]
    return [pixels[top + 1 : top + 1 + height, x + 1 : x + 1 + width] for x in lefts.tolist()]


def test_the_figure_shows_image_map_and_overlay() -> None:
    found = occluded()
    image, drawn, both = panels_of(draw(found), PANEL, PANEL)
    assert (image == 90).all()
    quarter = PANEL // 4
    # 0.3 of 0.6 lies between two levels.
    for row, column, allowed in (
        (1, 1, (127,)),
        (1, 3, (190, 191)),
        (3, 1, (106,)),
        (3, 3, (254,)),
    ):
        there = drawn[row * quarter, column * quarter].tolist()
        assert there in [table()[level].tolist() for level in allowed]
    # The strongest place is the lower right quarter, and framed.
    half = PANEL // 2
    frame = both[half + 1, half + 10 : PANEL - 10]
    assert (frame == frame[0]).all()
    assert (frame[0] < 40).all()
    assert (both[half - 2, half + 10 : PANEL - 10] > 40).all()
    assert (both[half, half + 10 : PANEL - 10] == 255).all()


def test_no_frame_where_nothing_falls() -> None:
    for drops in (np.zeros((2, 2), np.float32), np.full((2, 2), -0.1, np.float32)):
        *_, both = panels_of(draw(occluded(drops=drops)), PANEL, PANEL)
        assert len(np.unique(both.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "x" * 5000, "predicted": "a\nb\tc" * 900, "key": "\u4e2d\u0301\x00\ud800" * 99},
        {"target": "", "predicted": "", "key": "", "probability": 0.0},
        {"drops": np.full((2, 2), np.nan, np.float32), "probability": float("nan")},
        {"size": (40, 21), "image": np.zeros((400, 210, 3), np.uint8)},
        {"size": (8, 640), "image": np.zeros((8, 640, 3), np.uint8), "window": 4},
        {"approximation": "coarse to fine " * 50, "score": "logit"},
    ],
)
def test_hostile_figures_are_drawn(changes: dict[str, object], tmp_path: Path) -> None:
    found = occluded(**changes)
    if changes.get("window") == 4:
        found = occluded(**changes, drops=np.ones((2, 33), np.float32))
    sheet = draw(found)
    assert sheet.width == 3 * round(found.size[1] * PANEL / max(found.size)) + 2 * 20 + 32 + 132
    # Nothing is written over the border of the picture, nor over a panel.
    pixels = np.asarray(sheet)
    assert (pixels[:, :31] == 255).all()
    assert (pixels[:, -4:] == 255).all()


def test_pictures_have_the_format_that_their_name_says(tmp_path: Path) -> None:
    for name, kind in (("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.webp", "WEBP")):
        save_figure(occluded(), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.format == kind
    with pytest.raises(OptionError, match=r"no picture ends with '\.foo'"):
        save_figure(occluded(), tmp_path / "a.foo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.JPG", "c.webp"]


@pytest.mark.parametrize("size", [(450, 650), (651, 450), (400, 401)])
def test_a_photograph_is_shown_as_seen_only_finer(size: tuple[int, int]) -> None:
    transform = Transform(resize=256, crop=224)
    for axis in (0, 1):
        ramp = 255 * np.indices(size)[axis] / size[axis]
        both_ways = np.round(np.stack([ramp, 255 - ramp, ramp])).astype(np.uint8)
        original = torch.from_numpy(both_ways)
        seen = transform(original)
        finer = as_seen(original, transform, seen)
        assert finer.shape == (PANEL, PANEL, 3)
        again = Image.fromarray(finer).resize((224, 224), Image.Resampling.BOX)
        up, down, _ = (np.asarray(again, float) - seen.permute(1, 2, 0).numpy()).mean((0, 1))
        # A pixel is about a grey level of the ramp, and a shift by half a one moves the channels
        # apart by twice half a level; rounding goes to the same side in both but for some of it.
        assert abs(up - down) / 2 < 0.25


def test_small_and_padded_images_are_shown_as_they_are_seen() -> None:
    original = torch.arange(3 * 50 * 70, dtype=torch.uint8).reshape(3, 50, 70)
    for transform in (Transform(resize=64, crop=64), Transform(resize=None, crop=90)):
        seen = transform(original)
        np.testing.assert_array_equal(
            as_seen(original, transform, seen), seen.permute(1, 2, 0).numpy()
        )


def test_one_image_is_asked_about_by_name(tmp_path: Path) -> None:
    network = load_model("tiny-cifar10", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    options = OccludeOptions(window=16, stride=8, target="dog", fill=(1, 0, 0), growth=0.5)
    found = occlude_image(tmp_path / "a.png", network, options)
    assert (found.key, found.target, found.fill) == ("a.png", "dog", (1, 0, 0))
    assert "50 %" in found.approximation
    assert found.drops.shape == (3, 3)
    with torch.no_grad():
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        probabilities = network(tensor).softmax(1)[0]
    assert found.probability == pytest.approx(float(probabilities[5]), rel=1e-4)
    assert network.labels is not None
    assert found.predicted == network.labels[int(probabilities.argmax())]
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])
    for name in ("b.png", "c.png"):
        with pytest.raises(SourceError, match=name):
            occlude_image(tmp_path / name, network, options)
