"""Extraction against PIL, torchvision's transforms and hooks in float64, one image at a time."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from fc7.engine.data import Transform, open_source
from fc7.engine.errors import FingerprintError, LayerError, StoreError
from fc7.engine.features.patches import TopPatches
from fc7.engine.features.workflow import (
    ExtractOptions,
    extract,
    extract_with_summaries,
    index,
    project,
)
from fc7.engine.models import Network, load_model
from fc7.engine.store import Run, open_store, run_fold
from fc7.engine.store.network import network_of
from fc7.engine.store.patches import read_patches
from fc7.engine.store.vectors import vector_layers

LAYERS = ["conv1", "conv3", "conv5", "fc6", "fc7"]
EXACT = ExtractOptions(dtype="float32", part_rows=7, batch_rows=3)


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


def paint(folder: Path, count: int, size: Callable[[int], tuple[int, int]], kind: str) -> Path:
    """Write `count` smooth random pictures of (width, height) `size(number)`."""
    rng = np.random.default_rng(7)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        picture = coarse.resize(size(number), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:03d}.{kind}", quality=95)
    return folder


def reference(network: Network, folder: Path, layers: list[str]) -> dict[str, np.ndarray]:
    """Activations in float64: PIL decodes, torchvision transforms, hooks copy, no batching."""
    model: nn.Module = copy.deepcopy(network.model).double()
    kept: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}

    def keep(layer: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            kept[layer].append(output.detach().clone())

        return hook

    modules = dict(model.named_modules())
    for layer in layers:
        modules[network.layer(layer).path].register_forward_hook(keep(layer))
    height, _ = network.input_size
    transform = v2.Compose(
        [
            v2.Resize(height, antialias=True),
            v2.CenterCrop(height),
            v2.PILToTensor(),
            v2.ToDtype(torch.float64, scale=True),
            v2.Normalize(network.mean, network.std),
        ]
    )
    for path in sorted(folder.iterdir()):
        with torch.no_grad():
            model(transform(Image.open(path).convert("RGB"))[None])
    return {layer: torch.cat(values).numpy() for layer, values in kept.items()}


def check_map(run: Run, layer: str, maps: np.ndarray, tolerance: float) -> None:
    flat = maps.reshape(*maps.shape[:2], -1)
    np.testing.assert_allclose(np.asarray(run[f"{layer}.max"]), flat.max(2), atol=tolerance)
    # Where two places tie within rounding either may win: the value there must be the maximum.
    chosen = np.asarray(run[f"{layer}.argmax"]).astype(np.int64)[..., None]
    there = np.take_along_axis(flat, chosen, axis=2)[..., 0]
    np.testing.assert_allclose(there, flat.max(2), atol=2 * tolerance)


def test_equals_the_reference_where_nothing_is_resized(tmp_path: Path, network: Network) -> None:
    # 17 lossless pictures of the network's own size: what differs is float32 rounding alone. Five
    # layers of sums over up to 2,400 terms near 1 leave about 1e-5 of the largest activation.
    height, width = network.input_size
    folder = paint(tmp_path / "images", 17, lambda _: (width, height), "png")
    run = extract(folder, network, LAYERS, tmp_path / "run", EXACT)
    expected = reference(network, folder, LAYERS)
    for layer in LAYERS:
        tolerance = 1e-5 * float(np.abs(expected[layer]).max())
        if expected[layer].ndim == 4:
            check_map(run, layer, expected[layer], tolerance)
            assert expected[layer].min() < 0, "the layer's own output, before its ReLU"
        else:
            np.testing.assert_allclose(np.asarray(run[layer]), expected[layer], atol=tolerance)


def test_odd_sizes_drift_little(tmp_path: Path, network: Network) -> None:
    # Decoder and resize may each round by a grey level, 1/255 of a pixel's range: the norm of the
    # drift stays under 2 % of the spread over the data set.
    folder = paint(tmp_path / "images", 13, lambda n: (65 + 31 * (n % 5), 200 - 13 * n), "jpg")
    run = extract(folder, network, ["fc7"], tmp_path / "run", EXACT)
    expected = reference(network, folder, ["fc7"])["fc7"]
    drift = np.linalg.norm(np.asarray(run["fc7"]) - expected, axis=1)
    spread = np.linalg.norm(expected - expected.mean(0), axis=1)
    assert (drift / spread).max() < 0.02


def test_whole_maps_agree_with_their_maxima(tmp_path: Path, network: Network) -> None:
    options = ExtractOptions(dtype="float32", maps=True, part_rows=5, batch_rows=2)
    run = extract("shapes:12:3", network, ["conv2", "conv5"], tmp_path / "run", options)
    for layer in ("conv2", "conv5"):
        maps = np.asarray(run[layer])
        flat = maps.reshape(*maps.shape[:2], -1)
        np.testing.assert_array_equal(np.asarray(run[f"{layer}.max"]), flat.max(2))
        np.testing.assert_array_equal(np.asarray(run[f"{layer}.argmax"]), flat.argmax(2))


def full_sort(run: Run, layer: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort every stored value: (C, k) values and rows, ties by the lower row."""
    values = np.asarray(run[f"{layer}.max" if f"{layer}.max" in run else layer], np.float64)
    order = np.lexsort((np.broadcast_to(np.arange(len(values))[:, None], values.shape), -values), 0)
    return np.take_along_axis(values, order, 0)[:k].T, order[:k].T


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_patches_are_the_first_of_a_full_sort(tmp_path: Path, network: Network, dtype: str) -> None:
    options = ExtractOptions(dtype=dtype, part_rows=16, batch_rows=8)
    run = extract("shapes:75:5", network, ["conv5", "fc6"], tmp_path / "run", options)
    for layer in ("conv5", "fc6"):
        top = read_patches(run, layer)
        values, rows = full_sort(run, layer, 9)
        np.testing.assert_array_equal(top.rows, rows)
        np.testing.assert_array_equal(top.values, values)
    top, places = read_patches(run, "conv5"), np.asarray(run["conv5.argmax"])
    channels = np.arange(len(top.rows))[:, None]
    np.testing.assert_array_equal(top.positions, places[top.rows, channels])
    outputs = run.job("extract").outputs
    run_fold(run, TopPatches.of(outputs, "conv5", 4))
    np.testing.assert_array_equal(read_patches(run, "conv5").rows, full_sort(run, "conv5", 4)[1])


def test_fewer_images_than_patches(tmp_path: Path, network: Network) -> None:
    run = extract("shapes:3:0", network, ["conv5"], tmp_path / "run", EXACT)
    top = read_patches(run, "conv5")
    assert (top.rows[:, 3:] == -1).all()
    assert (np.sort(top.rows[:, :3]) == [0, 1, 2]).all()


def test_layers_join_a_run_and_leave_it_alone(tmp_path: Path, network: Network) -> None:
    run = extract("shapes:20:0", network, ["fc7"], tmp_path / "run", EXACT)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run/jobs/extract").rglob("part-*")}
    extract("shapes:20:0", network, ["conv5", "fc7", "pixels"], tmp_path / "run", EXACT)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    whole = extract("shapes:20:0", network, ["conv5", "fc7"], tmp_path / "whole", EXACT)
    for output in ("fc7", "conv5.max", "conv5.argmax"):
        np.testing.assert_array_equal(np.asarray(run[output]), np.asarray(whole[output]))
    assert run["pixels"].shape == (20, 3, 32, 32)


def test_a_changed_network_source_or_option_is_refused(tmp_path: Path, network: Network) -> None:
    extract("shapes:9:0", network, ["fc7"], tmp_path / "run", EXACT)
    other = load_model("tiny-shapes", weights="random", seed=1, device="cpu")
    with pytest.raises(FingerprintError, match=r"network\.weights: \"default\" then, \"random\""):
        extract("shapes:9:0", other, ["fc6"], tmp_path / "run", EXACT)
    with pytest.raises(FingerprintError, match=r"source\.digest"):
        extract("shapes:9:1", network, ["fc7"], tmp_path / "run", EXACT)
    with pytest.raises(FingerprintError, match="dtype"):
        extract("shapes:9:0", network, ["fc7"], tmp_path / "run", ExtractOptions(batch_rows=3))
    with pytest.raises(LayerError, match="fc7"):
        extract("shapes:9:0", network, ["fc77"], tmp_path / "new", EXACT)
    assert not (tmp_path / "new").exists(), "a wrong layer is found before anything is written"


def test_bad_files_keep_their_rows(tmp_path: Path, network: Network) -> None:
    folder = paint(tmp_path / "images", 9, lambda _: (80, 70), "jpg")
    whole = (folder / "000.jpg").read_bytes()
    (folder / "002.jpg").write_bytes(b"")
    (folder / "005.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "008.jpg").write_text("not an image at all")
    run = extract(folder, network, ["conv5", "fc7"], tmp_path / "run", EXACT)
    status = run.rows.column("status").to_pylist()
    assert status == [
        {2: "empty", 5: "truncated", 8: "not-an-image"}.get(row, "ok") for row in range(9)
    ]
    good = np.flatnonzero(run.good)
    assert not np.asarray(run["fc7"])[~run.good].any()
    assert set(np.unique(read_patches(run, "conv5").rows)) <= {*good, -1}
    # The others are what they would be without the bad ones; batches differ, so rounding may.
    clean = tmp_path / "clean"
    clean.mkdir()
    for row in good:
        (clean / f"{row:03d}.jpg").write_bytes((folder / f"{row:03d}.jpg").read_bytes())
    expected = np.asarray(extract(clean, network, ["fc7"], tmp_path / "run2", EXACT)["fc7"])
    np.testing.assert_allclose(np.asarray(run["fc7"])[good], expected, rtol=1e-4, atol=1e-4)


def test_a_run_leads_back_to_its_network(tmp_path: Path) -> None:
    network = load_model(
        "tiny-shapes", weights="random", seed=3, device="cpu", mean=(0.1, 0.2, 0.3)
    )
    extract("shapes:5:0", network, ["fc7"], tmp_path / "run", EXACT)
    again = network_of(open_store(tmp_path / "run"), device="cpu")
    assert again.describe() == network.describe()


class InPlace(nn.Module):
    """Every ReLU writes over what it reads, as in torchvision's AlexNet and VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.fc6 = nn.Linear(5 * 16, 7)
        self.relu6 = nn.ReLU(inplace=True)
        self.fc7 = nn.Linear(7, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = nn.functional.adaptive_avg_pool2d(self.relu1(self.conv1(images)), 4)
        return self.fc7(self.relu6(self.fc6(features.flatten(1))))


@pytest.mark.parametrize("maps", [False, True])
def test_an_in_place_relu_changes_nothing_stored(tmp_path: Path, maps: bool) -> None:
    torch.manual_seed(0)
    transform = Transform(resize=64, crop=64)
    network = Network(InPlace(), "in-place", weights="own", transform=transform, device="cpu")
    options = ExtractOptions(dtype="float32", maps=maps)
    layers = ["conv1", "fc6", "fc7"]
    run = extract("shapes:6:2", network, layers, tmp_path / "run", options)
    source = open_source("shapes:6:2")
    images = torch.stack([source.decode(source.read(row)) for row in range(6)]).float() / 255
    model: InPlace = network.model
    with torch.no_grad():
        conv1 = model.conv1(network.normalise(images))
        pooled = nn.functional.adaptive_avg_pool2d(conv1.relu(), 4).flatten(1)
        fc6 = model.fc6(pooled)
        fc7 = model.fc7(fc6.relu())
    # The same float32 operations on the same machine, in batches of another size.
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(np.asarray(run["fc6"]), fc6, **close)
    np.testing.assert_allclose(np.asarray(run["fc7"]), fc7, **close)
    np.testing.assert_allclose(np.asarray(run["conv1.max"]), conv1.flatten(2).amax(2), **close)
    assert float(fc6.min()) < 0 > float(conv1.min())
    if maps:
        np.testing.assert_allclose(np.asarray(run["conv1"]), conv1, **close)


def test_neighbours_are_sought_before_the_logits(tmp_path: Path, network: Network) -> None:
    run = extract("shapes:5:0", network, ["fc8", "conv5", "fc6"], tmp_path / "run", EXACT)
    assert vector_layers(run) == ["fc8", "fc6"]
    extract("shapes:5:0", network, ["fc7", "pixels"], tmp_path / "run", EXACT)
    assert vector_layers(run) == ["fc8", "fc6", "fc7"]


def test_maps_too_large_for_float16_are_counted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = InPlace()
    model.conv1.weight.data.mul_(1e7)
    transform = Transform(resize=64, crop=64)
    network = Network(model, "in-place", weights="own", transform=transform, device="cpu")
    options = ExtractOptions(maps=True)
    run, summaries = extract_with_summaries(
        "shapes:3:0", network, ["conv1"], tmp_path / "run", options
    )
    infinite = {name: int(np.isinf(np.asarray(run[name])).sum()) for name in summaries[0].nonfinite}
    assert infinite["conv1"] > infinite["conv1.max"] > 0
    assert {name: n["infinite"] for name, n in summaries[0].nonfinite.items()} == infinite


@pytest.mark.parametrize("wrong", [{"batch_rows": 0}, {"threads": 0}, {"part_rows": 0}])
def test_less_than_one_is_refused(tmp_path: Path, network: Network, wrong: dict[str, int]) -> None:
    with pytest.raises(StoreError, match="1 or more"):
        extract("shapes:3:0", network, ["fc7"], tmp_path / "run", ExtractOptions(**wrong))


def test_nothing_is_sought_with_k_below_1(tmp_path: Path, network: Network) -> None:
    run = extract("shapes:9:0", network, ["fc7"], tmp_path / "run", EXACT)
    before = read_patches(run, "fc7").rows
    with pytest.raises(StoreError, match="k is 0"):
        run_fold(run, TopPatches.of(run.job("extract").outputs, "fc7", 0))
    with pytest.raises(StoreError, match="k is -4"):
        index(run, "fc7", k=-4)
    with pytest.raises(StoreError, match="sample of 1"):
        project(run, "fc7", "pca", sample=1)
    np.testing.assert_array_equal(read_patches(run, "fc7").rows, before)


def test_pixels_alone_need_no_layer(tmp_path: Path, network: Network) -> None:
    run = extract("shapes:5:0", network, ["pixels"], tmp_path / "run", EXACT)
    source = open_source("shapes:5:0")
    whole = np.stack([source.decode(source.read(row)).numpy() for row in range(5)])
    # 64 x 64 to 32 x 32 is the mean of every 2 x 2, rounded.
    means = whole.reshape(5, 3, 32, 2, 32, 2).astype(np.float64).mean((3, 5))
    np.testing.assert_allclose(np.asarray(run["pixels"]), means, atol=0.5 + 1e-3)
