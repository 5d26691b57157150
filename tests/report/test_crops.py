"""Crops of maximal patches against a cut made by hand, at sizes where nothing is resampled."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fc7.engine.data import open_source
from fc7.engine.data.tiles import BLANK, fit_tile
from fc7.engine.features.crops import crop_patches
from fc7.engine.models import Network, receptive_field
from fc7.engine.store.patches import Patches

SIDE = 128


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures, twice the network's input on a side, no two pixels of them related."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(11)
    for number in range(4):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def patches_at(layer: str, rows: list[list[int]], positions: list[list[int]]) -> Patches:
    shape = np.shape(rows)
    return Patches(
        layer,
        np.ones(shape, np.float32),
        np.array(rows, np.int64),
        np.array(positions, np.int32),
    )


def original(folder: Path, row: int) -> np.ndarray:
    with Image.open(folder / f"{row}.png") as image:
        return np.asarray(image)


def test_a_crop_is_the_originals_own_pixels(network: Network, noise: Path) -> None:
    # conv1 sees 7 x 7 of 64 pixels, with stride 2 and padding 3; the originals are twice as
    # large, so a patch is 14 x 14 of theirs, and with a tile of 14 nothing is resampled.
    rows, places = [[2, 0], [3, 2]], [[(5, 9), (20, 3)], [(2, 2), (29, 28)]]
    positions = [[y * 32 + x for y, x in pair] for pair in places]
    found = crop_patches(
        open_source(noise), network, patches_at("conv1", rows, positions), "conv1", [1, 0], tile=14
    )
    assert found.shape == (2, 2, 14, 14, 3)
    for out, channel in enumerate([1, 0]):
        for rank, (y, x) in enumerate(places[channel]):
            top, left = 2 * (2 * y - 3), 2 * (2 * x - 3)
            cut = original(noise, rows[channel][rank])[top : top + 14, left : left + 14]
            np.testing.assert_array_equal(found[out, rank], cut)


def test_a_patch_at_the_edge_keeps_its_proportions_in_grey(network: Network, noise: Path) -> None:
    # Position (0, 16) sees rows 0 to 4 of 64 and 7 columns: 8 x 14 pixels of the original.
    found = crop_patches(
        open_source(noise), network, patches_at("conv1", [[1]], [[16]]), "conv1", [0], tile=14
    )[0, 0]
    np.testing.assert_array_equal(found[3:11], original(noise, 1)[:8, 58:72])
    assert (found[:3] == BLANK).all()
    assert (found[11:] == BLANK).all()


def test_a_layer_without_positions_shows_what_the_network_sees(
    network: Network, tmp_path: Path
) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (SIDE, 200, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "0.png")
    found = crop_patches(
        open_source(tmp_path), network, patches_at("fc7", [[0]], [[0]]), "fc7", [0], tile=SIDE
    )[0, 0]
    # 200 x 128 becomes 100 x 64, of which the middle 64 columns stay: 36 to 164 of the original.
    np.testing.assert_array_equal(found, wide[:, 36:164])


def test_missing_and_unreadable_patches_are_grey(network: Network, noise: Path) -> None:
    source = open_source(noise)
    (noise / "3.png").rename(noise / "gone")
    try:
        found = crop_patches(
            source, network, patches_at("conv5", [[3, -1, 0]], [[9, 0, 9]]), "conv5", [0], tile=8
        )
    finally:
        (noise / "gone").rename(noise / "3.png")
    assert (found[0, :2] == BLANK).all()
    assert (found[0, 2] != BLANK).any()


def test_every_crop_of_a_deep_layer_spans_its_receptive_field(
    network: Network, tmp_path: Path
) -> None:
    # Red tells the column and green the row of a pixel; blue is 0, unlike the grey beside a crop.
    ramp = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    ramp[:, :, 0] = np.arange(SIDE)
    ramp[:, :, 1] = np.arange(SIDE)[:, None]
    Image.fromarray(ramp).save(tmp_path / "0.png")
    field = receptive_field(network, "conv5")
    positions = list(range(64))
    found = crop_patches(
        open_source(tmp_path), network, patches_at("conv5", [[0] * 64], [positions]), "conv5", [0]
    )[0]
    for position, tile in zip(positions, found, strict=True):
        top, left, bottom, right = (2 * edge for edge in field.box(position))
        seen = tile[tile[:, :, 2] < 20].astype(int)
        # Resampling to 96 pixels and rounding move an edge by less than 2 of the original's.
        edges = [seen[:, 1].min(), seen[:, 0].min(), seen[:, 1].max() + 1, seen[:, 0].max() + 1]
        np.testing.assert_allclose(edges, (top, left, bottom, right), atol=2)


def test_tiles_enlarge_small_patches_crisply_and_keep_proportions() -> None:
    pixels = torch.arange(2 * 3 * 3, dtype=torch.uint8).reshape(3, 2, 3) * 10
    tile = fit_tile(pixels, 12)
    block = pixels.permute(1, 2, 0).repeat_interleave(4, 0).repeat_interleave(4, 1).numpy()
    np.testing.assert_array_equal(tile[2:10], block)
    assert (tile[[0, 1, 10, 11]] == BLANK).all()


def test_a_tile_below_one_pixel_is_refused(network: Network, noise: Path) -> None:
    with pytest.raises(ValueError, match="tile is 0"):
        crop_patches(
            open_source(noise), network, patches_at("fc7", [[0]], [[0]]), "fc7", [0], tile=0
        )
