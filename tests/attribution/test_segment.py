"""Seeds and GrabCut on pictures whose object is known, and on what nobody would call a picture."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from fc7.engine.attribution.segment import segment, segment_image
from fc7.engine.attribution.segmentation.grabcut import Cutout, cut_out, shrunk
from fc7.engine.attribution.segmentation.masks import decode_mask, encode_mask
from fc7.engine.attribution.segmentation.pictures import fitted, overlaid, seeds_picture
from fc7.engine.attribution.segmentation.seeds import (
    BACKGROUND,
    FOREGROUND,
    PROBABLY_BACKGROUND,
    PROBABLY_FOREGROUND,
    Recipe,
    sampled,
    seeds_of,
    smoothed,
)
from fc7.engine.data import Transform
from fc7.engine.errors import OptionError
from fc7.engine.models import load_model

RAW = Recipe(blur=0)


def disc(height: int, width: int, radius: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red disc on blue with some noise, its mask, and a map that is high in its middle."""
    down, across = np.mgrid[:height, :width]
    distance = np.hypot(down - 0.4 * height, across - 0.6 * width)
    mask = distance < radius * min(height, width)
    image = np.where(mask[:, :, None], (200, 40, 50), (40, 60, 190)).astype(np.int16)
    image += np.random.default_rng(0).integers(-15, 16, image.shape, dtype=np.int16)
    saliency = np.exp(-((distance / (radius * min(height, width))) ** 2))
    return image.clip(0, 255).astype(np.uint8), mask, saliency.astype(np.float32)


@pytest.mark.parametrize("size", [(64, 64), (50, 91), (97, 40)])
@pytest.mark.parametrize("resolution", [1, 3])
def test_the_object_is_cut_out_along_its_edge(size: tuple[int, int], resolution: int) -> None:
    image, mask, saliency = disc(*size)
    found = segment_image(image, saliency[resolution // 2 :: resolution, ::resolution])
    assert found.dtype == np.bool_
    assert found.shape == size
    # The disc's rim is as sharp as its pixels: the cut may miss a few at most.
    assert (found != mask).sum() <= 4


def test_a_larger_image_is_cut_at_a_smaller_size() -> None:
    image, mask, saliency = disc(600, 430)
    recipe = Recipe(side=75)
    found = cut_out(image, saliency, recipe)
    assert found.seeds.shape == (75, 54)
    assert found.mask.shape == mask.shape
    # A working pixel is 8 wide: half of one along the rim of 129 pixels' radius.
    assert (found.mask != mask).sum() < 2 * np.pi * 129 * 4
    again = cut_out(shrunk(image, 75), saliency, recipe, (600, 430))
    np.testing.assert_array_equal(again.mask, found.mask)
    assert shrunk(image, 600) is image


def test_only_the_largest_part_is_the_object() -> None:
    image, mask, saliency = disc(60, 80)
    image[52:58, 3:9] = image[mask][0]  # the object's colours in a corner, and background
    found = segment_image(image, saliency)
    assert not found[50:, :12].any()
    assert (found != mask).sum() <= 4


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 2), (5, 1), (3, 65), (7, 7)])
@pytest.mark.parametrize(
    "kind", ["flat", "zeros", "nan", "inf", "spike", "dip", "halves", "random", "one colour"]
)
def test_nothing_is_too_strange(size: tuple[int, int], kind: str) -> None:
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    saliency = random.random(size)
    if kind in ("flat", "zeros"):
        saliency[:] = 0.1 * (kind == "flat")
    elif kind in ("nan", "inf"):
        saliency[0, -1] = float(kind)
    elif kind in ("spike", "dip"):
        saliency[:] = 0.5
        saliency[-1, 0] += 0.25 * (1 if kind == "spike" else -1)
    elif kind == "halves":
        saliency[:] = np.arange(saliency.size).reshape(size) >= saliency.size / 2
    elif kind == "one colour":
        image[:] = 128
    found = cut_out(image, saliency, RAW)
    assert found.mask.shape == size
    constant = saliency.min() == saliency.max()
    empty = {"flat": "flat", "zeros": "flat", "nan": "not-finite", "inf": "not-finite"}
    expected = empty.get(kind) or ("flat" if constant else None)
    if expected:
        assert found.how == expected
        assert not found.mask.any()
    else:
        # Five Gaussians on either side want as many pixels.
        assert found.how in ("grabcut", "threshold")
        assert found.how == "threshold" or saliency.size >= 10
        assert found.mask.any()


def test_where_grabcut_cannot_be_asked_the_map_answers() -> None:
    saliency = np.arange(9.0).reshape(3, 3)
    found = cut_out(np.zeros((3, 3, 3), np.uint8), saliency, Recipe(0.8, 0.8, 0.2, blur=0))
    assert found.how == "threshold"
    assert np.flatnonzero(found.mask).tolist() == [7, 8]  # from 6.4, the quantile 0.8


def test_the_mask_depends_on_its_image_alone() -> None:
    random = np.random.default_rng(1)
    images = [disc(40, 50)[0] + random.integers(0, 40, (40, 50, 3), np.uint8) for _ in range(8)]
    maps = [random.random((12, 12)).astype(np.float32) for _ in range(8)]

    def cut(n: int) -> Cutout:
        return cut_out(images[n], maps[n], Recipe())

    alone = [cut(n).mask for n in range(8)]
    assert len({mask.tobytes() for mask in alone}) > 1
    for n in (5, 2, 2, 7, 0):
        np.testing.assert_array_equal(cut(n).mask, alone[n])
    with ThreadPoolExecutor(3) as pool:
        for n, found in enumerate(pool.map(cut, range(8))):
            np.testing.assert_array_equal(found.mask, alone[n])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # The quantiles 0.3, 0.6 and 0.9 of eleven values are the fourth, the seventh, the tenth.
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "BBBBbbfffFF"),
        ([5, 4, 10, 0, 1, 9, 2, 3, 8, 6, 7], "bbFBBFBBfff"),
        ([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], "BBBBBFFFFFF"),
        # All three are one value, which takes the side of which there is nothing else.
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "BBBBBBBBBBF"),
        ([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "BFFFFFFFFFF"),
        ([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2], "BbbbbbbbbbF"),
    ],
)
def test_seeds_are_quantiles_whatever_is_tied(values: list[int], expected: str) -> None:
    letters = {
        BACKGROUND: "B",
        PROBABLY_BACKGROUND: "b",
        PROBABLY_FOREGROUND: "f",
        FOREGROUND: "F",
    }
    saliency = np.array([values], dtype=np.float64)
    recipe = Recipe(0.9, 0.6, 0.3, blur=0)
    seeds = seeds_of(saliency, recipe, (0, 0, 1, 11), (1, 11), (1, 11))
    assert seeds is not None
    assert "".join(letters[value] for value in seeds[0].tolist()) == expected


def bilinear(saliency: np.ndarray, y: float, x: float) -> float:
    """A map's value at a place, in cells, between the middles of its cells."""
    rows, columns = saliency.shape
    y, x = (min(max(p - 0.5, 0), n - 1) for p, n in ((y, rows), (x, columns)))
    top, left = min(int(y), max(rows - 2, 0)), min(int(x), max(columns - 2, 0))
    total = 0.0
    for i in (0, 1):
        for j in (0, 1):
            weight = (1 - abs(y - top - i)) * (1 - abs(x - left - j))
            if weight > 0:
                total += weight * saliency[top + i, left + j]
    return total


@pytest.mark.parametrize(
    ("box", "size", "shape"),
    [
        ((0, 0, 30, 20), (30, 20), (30, 20)),
        ((3.5, 2.0, 21.25, 19.0), (30, 20), (15, 10)),
        ((-4.0, 5.0, 33.0, 9.5), (30, 20), (11, 20)),
    ],
)
def test_a_map_is_placed_by_interpolation(box: Any, size: Any, shape: Any) -> None:
    saliency = np.random.default_rng(0).random((5, 7))
    found = sampled(saliency, box, size, shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            y, x = (row + 0.5) * size[0] / shape[0], (column + 0.5) * size[1] / shape[1]
            if not (box[0] <= y < box[2] and box[1] <= x < box[3]):
                assert np.isnan(found[row, column])
                continue
            down = (y - box[0]) / (box[2] - box[0]) * 5
            across = (x - box[1]) / (box[3] - box[1]) * 7
            assert found[row, column] == pytest.approx(bilinear(saliency, down, across), abs=1e-12)


@pytest.mark.parametrize(
    "transform",
    [Transform(32, 24), Transform(40, 40), Transform(None, 96), Transform((24, 32), None)],
)
@pytest.mark.parametrize("size", [(60, 90), (90, 61), (33, 32)])
def test_what_the_network_saw_lies_where_it_was(
    transform: Transform, size: tuple[int, int]
) -> None:
    top, left = size[0] // 2 - 3, size[1] // 2 - 2
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[:, top : top + 9, left : left + 9] = 255
    seen = transform(image)[0].numpy().astype(np.float64)
    placed = sampled(seen, transform.extent(*size), size, size)
    known = ~np.isnan(placed)
    weights = np.where(known, placed, 0)
    middle = [
        float((weights * grid).sum() / weights.sum()) for grid in np.mgrid[: size[0], : size[1]]
    ]
    # Two antialiased resizes keep a centre of mass within a part of a pixel.
    assert middle == pytest.approx([top + 4, left + 4], abs=0.6)
    clipped = transform.to_original((0, 0, *transform.output_size(*size)), *size)
    limits = (*size, *size)
    extent = transform.extent(*size)
    assert clipped == pytest.approx(
        [min(max(e, 0), n) for e, n in zip(extent, limits, strict=True)]
    )


def test_beyond_the_map_nothing_is_known_for_certain() -> None:
    image, mask, saliency = disc(60, 90)
    # The map covers the right two thirds only; the quantiles are of what it covers.
    box = (0.0, 30.0, 60.0, 90.0)
    part = saliency[:, 30:]
    seeds = seeds_of(part, RAW, box, (60, 90), (60, 90))
    assert seeds is not None
    assert (seeds[:, :30] == PROBABLY_BACKGROUND).all()
    assert (seeds[:, 30:] == BACKGROUND).mean() == pytest.approx(0.3, abs=0.001)
    assert (seeds[:, 30:] == FOREGROUND).mean() == pytest.approx(0.05, abs=0.002)  # ties
    found = cut_out(image, part, RAW, box=box)
    assert (found.mask != mask).sum() <= 4
    # A sliver's crop may lie between the middles of all working pixels.
    thin = cut_out(image, part, RAW, box=(10.0, 20.1, 11.0, 20.2))
    assert thin.how == "flat"


def test_the_blur_is_a_gaussian_of_a_share_of_the_side() -> None:
    spike = np.zeros((41, 61), np.float32)
    spike[20, 30] = 1
    found = smoothed(spike, 0.05)
    down, across = np.mgrid[-20:21, -30:31]
    expected = np.exp(-(down**2 + across**2) / (2 * 3.05**2))
    np.testing.assert_allclose(found, expected / expected.sum(), atol=2e-4)
    np.testing.assert_array_equal(smoothed(spike, 0), spike)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 8), (65, 3), (40, 130)])
def test_a_mask_is_a_file_of_single_bits(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    file = encode_mask(mask)
    assert file == encode_mask(mask.copy())
    np.testing.assert_array_equal(decode_mask(file), mask)
    assert decode_mask(b"").shape == (0, 0)
    assert file[24] == 1, "the header's bits a pixel"


def test_pictures_show_the_object_and_darken_the_rest() -> None:
    image, mask, _ = disc(60, 90)
    over = overlaid(image, mask)
    changed = (over != image).any(2)
    assert changed[~mask].all()
    assert changed[mask].mean() < 0.2, "the outline alone"
    assert over[~mask].mean() < 0.4 * image[~mask].mean()
    small = fitted(mask, (20, 30))
    assert small.mean() == pytest.approx(mask.mean(), abs=0.02)
    np.testing.assert_array_equal(fitted(mask, (120, 180))[::2, ::2], mask)
    colours = seeds_picture(np.array([[0, 1], [2, 3]], np.uint8), (2, 2)).astype(int)
    red, blue = colours[..., 0] - colours[..., 2], colours[..., 2] - colours[..., 0]
    assert red[0, 1] > red[1, 1] > red[1, 0]
    assert blue[0, 0] > blue[1, 0] > blue[1, 1]


def test_a_batch_is_its_images_one_by_one() -> None:
    network = load_model("tiny-shapes", device="cpu")
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images = (images * 255).round() / 255
    found = segment(network, images, [1, 2, 3])
    assert found.shape == (3, 64, 64)
    assert found.dtype == torch.bool
    again = torch.cat([segment(network, images[n : n + 1], [n + 1]) for n in (2, 0, 1)])
    # Convolutions of one image or three may round differently; seeds may flip with that.
    assert (again[[1, 2, 0]] != found).double().mean() < 0.02
    assert segment(network, images[:0]).shape == (0, 64, 64)
    with pytest.raises(OptionError, match="no class 16"):
        segment(network, images, [1, 2, 16])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foreground": 1.5}, "foreground 1.5"),
        ({"probable": 0.97}, "probable 0.97"),
        ({"background": 0.95}, "background is 0.95"),
        ({"background": float("nan")}, "background is nan"),
        ({"iterations": 0}, "iterations is 0"),
        ({"side": 0}, "side 0"),
        ({"blur": -0.1}, "blur is -0.1"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Recipe(**options)


@pytest.mark.parametrize(
    ("image", "saliency"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4))),
        (np.zeros((4, 4, 3)), np.zeros((4, 4))),
        (np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4))),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4))),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int64)),
    ],
)
def test_a_wrong_argument_is_named(image: Any, saliency: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        segment_image(image, saliency)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    image, _, saliency = disc(20, 20)
    with pytest.raises(OptionError, match=r"pip install 'fc7\[segment\]'") as caught:
        segment_image(image, saliency)
    assert "\n" not in str(caught.value)
