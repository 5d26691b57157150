"""The occlusion job: what a run holds, against covering every place by hand, and after stops."""

import copy
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fc7.engine.attribution.occlusion import Occlusion
from fc7.engine.attribution.occlusion.job import OccludeOptions
from fc7.engine.attribution.occlusion.refined import RefinedOcclusion
from fc7.engine.attribution.occlusion.stored import occlusions
from fc7.engine.attribution.workflow import occlude, occlude_with_summary
from fc7.engine.data import Source, open_source
from fc7.engine.errors import Fc7Error, FingerprintError, OptionError
from fc7.engine.features.workflow import ExtractOptions, extract
from fc7.engine.models import Network, load_model
from fc7.engine.models.targets import classes_of_labels
from fc7.engine.store import Run, open_store, verify

COARSE: dict[str, Any] = {"window": 27, "stride": 19, "threads": 1, "part_rows": 5}


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


def images_of(source: Source) -> torch.Tensor:
    """The images as a network of their own size takes them, (N, 3, H, W) in [0, 1]."""
    images = [source.decode(source.read(row)) for row in range(len(source))]
    return torch.stack(images).float() / 255


def by_hand(network: Network, image: torch.Tensor, target: int, fill: float) -> np.ndarray:
    """How much the probability falls at each place, every one in full and in float64."""
    model = copy.deepcopy(network.model).double()
    mean = torch.tensor(network.mean, dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor(network.std, dtype=torch.float64).view(3, 1, 1)

    def probability(pixels: torch.Tensor) -> float:
        with torch.no_grad():
            return float(model(((pixels - mean) / std)[None]).softmax(1)[0, target])

    whole = image.double()
    tops = range(0, 64 - 27 + 19, 19)  # ceil((64 - 27) / 19) + 1 = 3, the last one cut off
    drops = np.empty((len(tops), len(tops)))
    for row, top in enumerate(tops):
        for column, left in enumerate(tops):
            covered = whole.clone()
            covered[:, top : top + 27, left : left + 27] = fill
            drops[row, column] = probability(whole) - probability(covered)
    return drops


def test_a_run_holds_what_covering_by_hand_finds(tmp_path: Path, network: Network) -> None:
    options = OccludeOptions(**COARSE, fill=0.25, batch_rows=3)
    run = occlude("shapes:7:4", network, tmp_path / "run", options)
    images = images_of(open_source("shapes:7:4"))
    with torch.no_grad():
        probabilities = network(images).softmax(1).numpy()
    assert run["occlusion"].shape == (7, 3, 3)
    assert run["occlusion"].dtype == np.float32
    np.testing.assert_array_equal(run["occlusion.target"], probabilities.argmax(1))
    np.testing.assert_array_equal(run["occlusion.predicted"], run["occlusion.target"])
    np.testing.assert_allclose(run["occlusion.probability"], probabilities.max(1), rtol=1e-5)
    np.testing.assert_array_equal(run["occlusion.score"], run["occlusion.probability"])
    np.testing.assert_array_equal(
        run["occlusion.largest"], np.asarray(run["occlusion"]).max((1, 2))
    )
    for row in range(7):
        expected = by_hand(network, images[row], int(run["occlusion.target"][row]), 0.25)
        # Probabilities near 1 in float32, from logits of some units: some 1e-6 of rounding.
        np.testing.assert_allclose(run["occlusion"][row], expected, atol=2e-5)
        assert np.abs(expected).max() > 0.01
    assert verify(run) == []


def test_the_maps_are_those_of_the_function(tmp_path: Path, network: Network) -> None:
    options = OccludeOptions(**COARSE, score="logit", target="cross-plain", batch_rows=4)
    run = occlude("shapes:6:1", network, tmp_path / "run", options)
    images = images_of(open_source("shapes:6:1"))
    made = Occlusion(network, 27, 19, score="logit")
    # Batches never cross a part: 4, 1, then 1.
    expected = [
        made.maps(images[start:stop], [12] * (stop - start))
        for start, stop in ((0, 4), (4, 5), (5, 6))
    ]
    for name, part in (("", "drops"), (".score", "scores"), (".target", "targets")):
        whole = torch.cat([getattr(maps, part) for maps in expected])
        np.testing.assert_array_equal(run[f"occlusion{name}"], whole)
    with torch.no_grad():
        probabilities = network(images).softmax(1)
    np.testing.assert_allclose(run["occlusion.probability"], probabilities[:, 12], rtol=1e-4)
    np.testing.assert_array_equal(run["occlusion.predicted"], probabilities.argmax(1))


CHILD = """
import sys, time, torch
torch.set_num_threads(1)
from fc7.engine.attribution.occlusion.job import OccludeOptions
from fc7.engine.attribution.workflow import occlude
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.models import load_model

class Slow(ShapesSource):
    def decode(self, payload):
        time.sleep(0.3)
        return super().decode(payload)

network = load_model("tiny-shapes", device="cpu")
options = OccludeOptions(window=27, stride=19, threads=1, part_rows=2, batch_rows=2)
occlude(Slow(20, 9), network, sys.argv[1], options)
"""


def test_after_a_kill_the_bytes_are_the_same(tmp_path: Path, network: Network) -> None:
    folder = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)])
    deadline = time.monotonic() + 120
    while len(list(folder.glob("jobs/occlude/commits/part-*.json"))) < 2:
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    options = OccludeOptions(**{**COARSE, "part_rows": 2}, batch_rows=2)
    before = len(open_store(folder).job("occlude").committed())
    assert 2 <= before < 10
    run, summary = occlude_with_summary("shapes:20:9", network, folder, options)
    assert summary.computed == 20 - 2 * before
    whole = occlude("shapes:20:9", network, tmp_path / "whole", options)
    files = sorted(path.relative_to(folder) for path in folder.glob("jobs/*/*/part-*.npy"))
    assert len(files) == 6 * 10
    for file in files:
        assert (folder / file).read_bytes() == (whole.folder / file).read_bytes(), file
    assert verify(run) == []


def test_bad_files_keep_their_rows(tmp_path: Path, network: Network) -> None:
    folder, clean = tmp_path / "images", tmp_path / "clean"
    folder.mkdir()
    clean.mkdir()
    source = open_source("shapes:5:2")
    for row in range(5):
        picture = Image.fromarray(source.decode(source.read(row)).permute(1, 2, 0).numpy())
        picture.save(folder / f"{row}.png")
        picture.save(clean / f"{row}.png")
    (folder / "1b.png").write_bytes(b"")
    (folder / "3b.png").write_text("no image")
    options = OccludeOptions(**COARSE, batch_rows=1)
    run, summary = occlude_with_summary(folder, network, tmp_path / "run", options)
    assert [(row, status) for row, status, _ in summary.bad] == [(2, "empty"), (5, "not-an-image")]
    np.testing.assert_array_equal(np.flatnonzero(~run.good), [2, 5])
    whole = occlude(clean, network, tmp_path / "whole", options)
    for output in run.outputs():
        np.testing.assert_array_equal(np.asarray(run[output])[run.good], whole[output])
        assert not np.asarray(run[output])[~run.good].any()


def test_maps_asked_for_differently_stand_side_by_side(tmp_path: Path, network: Network) -> None:
    def asked(**options: Any) -> tuple[Run, str, int]:
        run, summary = occlude_with_summary(
            "shapes:4:0", network, tmp_path / "run", OccludeOptions(**{**COARSE, **options})
        )
        return run, summary.job, summary.computed

    extract("shapes:4:0", network, ["fc7"], tmp_path / "run", ExtractOptions(part_rows=3))
    assert asked()[1:] == ("occlude", 4)
    assert asked(target="disc-dots")[1:] == ("occlude-2", 4)
    assert asked(window=20)[1:] == ("occlude-3", 4)
    # The same in other words, which is none of them anew.
    assert asked(target="Disc-DOTS")[1:] == ("occlude-2", 0)
    assert asked(target=3)[1:] == ("occlude-2", 0)
    run, *found = asked(fill=network.mean, growth=1)
    assert found == ["occlude", 0]
    assert {"fc7", "occlusion", "occlusion-2", "occlusion-3.largest"} <= set(run.outputs())
    stored = occlusions(run)
    assert [one.name for one in stored] == ["occlusion", "occlusion-2", "occlusion-3"]
    assert [one.window for one in stored] == [27, 27, 20]
    assert [one.target for one in stored] == ["predicted", 3, "predicted"]
    assert stored[0].fill == tuple(network.mean)
    assert stored[0].size == network.input_size
    assert run.part_rows == 3, "a run that is there keeps its own"
    shutil.rmtree(run.folder / "jobs/occlude")
    assert asked(window=30)[1:] == ("occlude", 4)


@pytest.mark.parametrize("approximation", [{"refine": True}, {"growth": 0.4}])
def test_approximations_are_made_and_recorded(
    tmp_path: Path, network: Network, approximation: dict[str, Any]
) -> None:
    grid = {"window": 9, "stride": 11}
    options = OccludeOptions(**grid, **approximation, threads=1)
    run = occlude("shapes:2:0", network, tmp_path / "run", options)
    images = images_of(open_source("shapes:2:0"))
    made: Occlusion | RefinedOcclusion = (
        RefinedOcclusion(network, **grid)
        if "refine" in approximation
        else Occlusion(network, **grid, growth=0.4)
    )
    expected = made.maps(images).drops
    # The same operations, but for how many images they take at once.
    np.testing.assert_allclose(run["occlusion"], expected, atol=1e-6)
    exact = Occlusion(network, **grid).maps(images).drops
    assert float((expected - exact).abs().max()) > 1e-4, "as exact maps the test would see nothing"
    (stored,) = occlusions(run)
    assert stored.approximation is not None
    assert stored.approximation_words
    assert occlude_with_summary("shapes:2:0", network, run.folder, options)[1].computed == 0


def test_labels_are_classes_by_name(tmp_path: Path, network: Network) -> None:
    # Folders that are some of the classes, whose labels so are not the classes' numbers.
    names = ["square-plain", "cross-dots", "disc-stripes"]
    source = open_source("shapes:6:8")
    for row in range(6):
        path = tmp_path / "images" / names[row % 3] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.decode(source.read(row)).permute(1, 2, 0).numpy()).save(path)
    options = OccludeOptions(**COARSE, target="label")
    run = occlude(tmp_path / "images", network, tmp_path / "run", options)
    keys = run.rows["key"].to_pylist()
    assert network.labels is not None
    expected = [network.labels.index(key.split("/")[0]) for key in keys]
    assert run["occlusion.target"][:].tolist() == expected
    # Where nothing is known of a row, it is asked about what the network says.
    lines = [f"images/{key}\t{'' if row % 2 else expected[row]}" for row, key in enumerate(keys)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    some = occlude(tmp_path / "list.txt", network, tmp_path / "some", options)
    target, predicted = some["occlusion.target"][:], some["occlusion.predicted"][:]
    np.testing.assert_array_equal(target[::2], expected[::2])
    np.testing.assert_array_equal(target[1::2], predicted[1::2])
    assert (predicted[::2] != expected[::2]).any(), "or the test would not see the label"


@pytest.mark.parametrize(
    ("label_names", "highest", "names", "classes", "expected"),
    [
        (None, 2, None, 3, [0, 1, 2]),
        (None, 3, None, 3, None),
        (("b", "a"), 1, ("a", "b", "c"), 3, [1, 0]),
        (("b", "x"), 1, ("a", "b", "c"), 3, None),
        (("n01", "n02", "n03"), 2, ("a", "b", "c"), 3, [0, 1, 2]),
        (("crane", "a"), 1, ("crane", "a", "crane"), 3, None),
        (("crane", "a", "crane"), 2, ("crane", "a", "crane"), 3, [0, 1, 2]),
        (("x", "y"), 1, None, 2, [0, 1]),
        (("x", "y"), 1, None, 3, None),
    ],
)
def test_what_labels_mean(
    label_names: tuple[str, ...] | None,
    highest: int,
    names: tuple[str, ...] | None,
    classes: int,
    expected: list[int] | None,
) -> None:
    found = classes_of_labels(label_names, highest, names, classes)
    assert (None if found is None else found.tolist()) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 65}, "65 pixels, but the image only 64"),
        ({"stride": 0}, "stride 0"),
        ({"fill": 1.5}, "fill is 1.5"),
        ({"fill": (0.5, 0.5)}, "fill is"),
        ({"score": "loss"}, "no score 'loss'"),
        ({"target": 16}, "no class 16; tiny-shapes has 0 to 15"),
        ({"target": "-1"}, "no class -1"),
        ({"target": "cros-dots"}, "did you mean cross-dots"),
        ({"refine": True, "growth": 0.5}, "one of them"),
        ({"growth": 0.0}, "growth is 0"),
        ({"batch_rows": 0}, "batch_rows is 0"),
        ({"threads": 0}, "threads 0"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_written(
    tmp_path: Path, network: Network, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        occlude("shapes:3:0", network, tmp_path / "run", OccludeOptions(**options))
    assert not (tmp_path / "run").exists()


def test_classes_that_cannot_be_meant(tmp_path: Path) -> None:
    nameless = load_model("tiny-cifar10", device="cpu")
    with pytest.raises(OptionError, match=r"disc-plain.*not the 10 classes of tiny-cifar10"):
        occlude("shapes:20:0", nameless, tmp_path / "run", OccludeOptions(target="label"))
    nameless.labels = None
    with pytest.raises(OptionError, match="by name; give a number from 0 to 9"):
        occlude("shapes:3:0", nameless, tmp_path / "run", OccludeOptions(target="cat"))
    nameless.labels = (*"abcdefgh", "crane", "crane")
    with pytest.raises(OptionError, match=r"2 classes.*8 or 9"):
        occlude("shapes:3:0", nameless, tmp_path / "run", OccludeOptions(target="Crane"))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "images" / "a.png")
    with pytest.raises(OptionError, match=r"no row of .* has a label"):
        occlude(tmp_path / "images", nameless, tmp_path / "run", OccludeOptions(target="label"))


def test_another_batch_network_or_source_is_refused(tmp_path: Path, network: Network) -> None:
    run = occlude("shapes:3:0", network, tmp_path / "run", OccludeOptions(**COARSE))
    before = {path: path.read_bytes() for path in run.folder.rglob("part-*.npy")}
    with pytest.raises(FingerprintError, match="batch_rows"):
        occlude("shapes:3:0", network, run.folder, OccludeOptions(**COARSE, batch_rows=2))
    stranger = load_model("tiny-shapes", weights="random", device="cpu")
    refused: list[tuple[str, Network]] = [("shapes:3:0", stranger), ("shapes:3:1", network)]
    for spec, other in refused:
        with pytest.raises(Fc7Error, match="another --out"):
            occlude(spec, other, run.folder, OccludeOptions(**COARSE))
    assert {path: path.read_bytes() for path in run.folder.rglob("part-*.npy")} == before


def test_slices_of_a_job_array_make_one_run(tmp_path: Path, network: Network) -> None:
    whole = occlude("shapes:11:3", network, tmp_path / "whole", OccludeOptions(**COARSE))
    for parts in ("0::2", "1::2"):
        options = OccludeOptions(**COARSE, parts=parts)
        run, summary = occlude_with_summary("shapes:11:3", network, tmp_path / "run", options)
        assert summary.is_complete == (parts == "1::2")
    np.testing.assert_array_equal(run["occlusion"], whole["occlusion"])


def test_half_precision_is_asked_for_and_keeps_the_ranks(tmp_path: Path, network: Network) -> None:
    half = load_model("tiny-shapes", device="cpu", precision="bf16")
    source = open_source("shapes:6:41")
    options = OccludeOptions(**COARSE)
    exact = np.asarray(occlude(source, network, tmp_path / "fp32", options)["occlusion"][:])
    run = occlude(source, half, tmp_path / "bf16", options)
    found = np.asarray(run["occlusion"][:])
    assert run.jobs()["occlude"].fingerprint["network"]["precision"] == "bf16"
    # bf16 keeps 8 bits, so a share of 2^-8 is lost of each difference in each of eight layers, and
    # not of the activations that differ: ranks change only between places that are nearly alike.
    assert not np.array_equal(found, exact)
    for one, other in zip(exact, found, strict=True):
        ranks = [np.argsort(np.argsort(each.ravel())) for each in (one, other)]
        assert np.corrcoef(ranks)[0, 1] > 0.97
