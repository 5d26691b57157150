"""Guided gradients of maximal patches: each is that of its neuron, cut to what the neuron sees."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fc7.engine.attribution import guided_patches
from fc7.engine.attribution.gradient_pictures import in_own_colours, over_image, peak_of
from fc7.engine.attribution.guided import guided_maps
from fc7.engine.attribution.guided_patches import GuidedPatches
from fc7.engine.data import Source, open_source
from fc7.engine.data.tiles import BLANK, fit_tile
from fc7.engine.errors import OptionError, StoreError
from fc7.engine.features.workflow import ExtractOptions, extract
from fc7.engine.models import Network, load_model, receptive_field
from fc7.engine.store import Progress, Run, open_store, run_stage
from fc7.engine.store.patches import read_patches


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def source() -> Source:
    return open_source("shapes:30:9")


@pytest.fixture(scope="module")
def run(network: Network, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("patches") / "run"
    return extract(source, network, ["conv3", "fc7"], folder, ExtractOptions(top_k=4))


def test_each_is_the_gradient_of_its_neuron(run: Run, network: Network, source: Source) -> None:
    seen: list[Progress] = []
    for layer, channels in (("conv3", [5, 0, 60]), ("fc7", [7])):
        stage = GuidedPatches(
            run, source, network, layer, channels, top=3, tile=24, report=seen.append
        )
        job = run_stage(run, stage)
        patches = read_patches(run, layer)
        boxes = receptive_field(network, layer).boxes()
        assert job.result("rows").tolist() == patches.rows[channels, :3].tolist()
        for place, channel in enumerate(channels):
            for rank in range(3):
                image = source.decode(source.read(int(patches.rows[channel, rank])))
                x = network.transform(image)[None].float() / 255
                position = int(patches.positions[channel, rank])
                unit = channel
                if layer == "conv3":
                    unit = (channel, *divmod(position, network.layer(layer).shape[2]))
                (gradient,) = guided_maps(network, x, layer=layer, unit=unit)
                top, left, bottom, right = boxes[position if layer == "conv3" else 0]
                cut = gradient[:, top:bottom, left:right].numpy()
                assert job.result("peaks")[place, rank] == pytest.approx(
                    float(np.abs(cut).max()), rel=1e-4
                )
                # Outside of what it sees nothing flows back.
                assert float(gradient.abs().sum()) == pytest.approx(float(np.abs(cut).sum()))
                expected = fit_tile(torch.from_numpy(in_own_colours(cut)).permute(2, 0, 1), 24)
                found = job.result("pictures")[place, rank].astype(np.int64)
                assert np.abs(found - expected).max() <= 1
        assert (seen[-1].done, seen[-1].total) == (3 * len(channels), 3 * len(channels))


def test_fewer_images_than_patches_leave_grey(network: Network, tmp_path: Path) -> None:
    source = open_source("shapes:2:9")
    run = extract(source, network, ["conv3"], tmp_path / "run", ExtractOptions(top_k=4))
    job = run_stage(run, GuidedPatches(run, source, network, "conv3", [0], top=4, tile=16))
    assert (job.result("rows")[0, 2:] == -1).all()
    assert (job.result("pictures")[0, 2:] == BLANK).all()


def test_an_image_that_is_gone_leaves_grey(network: Network, tmp_path: Path) -> None:
    drawn = open_source("shapes:3:9")
    folder = tmp_path / "data"
    folder.mkdir()
    for row in range(3):
        picture = drawn.decode(drawn.read(row)).permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(folder / f"{row}.png")
    run = extract(folder, network, ["conv3"], tmp_path / "run", ExtractOptions(top_k=3))
    source = open_source(folder)
    (folder / "1.png").write_bytes(b"no image any more")
    job = run_stage(run, GuidedPatches(run, source, network, "conv3", [0, 1], top=3, tile=16))
    rows, pictures = job.result("rows"), job.result("pictures")
    for channel in range(2):
        for rank in range(3):
            grey = bool((pictures[channel, rank] == BLANK).all())
            assert grey == (rows[channel, rank] == 1)


def test_after_a_stop_it_goes_on_to_the_same_bytes(
    run: Run, network: Network, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guided_patches, "CHECKPOINT_SECONDS", 0.0)
    whole, stopped = (
        open_store(Path(shutil.copytree(run.folder, tmp_path / name))) for name in "ab"
    )
    channels, done = list(range(12)), []
    run_stage(whole, GuidedPatches(whole, source, network, "conv3", channels, top=4, tile=16))

    def stop(progress: Progress) -> None:
        done.append(progress.done)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(
            stopped,
            GuidedPatches(stopped, source, network, "conv3", channels, 4, tile=16, report=stop),
        )
    assert done == [16, 32]
    resumed: list[Progress] = []
    job = run_stage(
        stopped,
        GuidedPatches(
            stopped, source, network, "conv3", channels, 4, tile=16, report=resumed.append
        ),
    )
    assert [progress.done for progress in resumed] == [48]
    for name in ("channels", "rows", "pictures", "peaks"):
        expected = whole.job("guided-patches-conv3").result(name)
        assert np.array_equal(job.result(name), expected)
    assert not (job.folder / "checkpoints").exists()


def test_other_options_make_it_again(run: Run, network: Network, source: Source,
                                     tmp_path: Path) -> None:  # fmt: skip
    copy = open_store(Path(shutil.copytree(run.folder, tmp_path / "run")))
    first = run_stage(copy, GuidedPatches(copy, source, network, "conv3", [1], top=2, tile=8))
    assert first.result("pictures").shape == (1, 2, 8, 8, 3)
    second = run_stage(copy, GuidedPatches(copy, source, network, "conv3", None, top=1, tile=8))
    assert second.result("pictures").shape == (network.layer("conv3").shape[0], 1, 8, 8, 3)


def test_what_is_not_there_is_named(run: Run, network: Network, source: Source) -> None:
    for options, says in (
        ({"channels": [999]}, "no channel 999 in conv3; it has 0 to"),
        ({"top": 5}, "holds 4 patches a channel"),
        ({"top": 0}, "top is 0"),
        ({"tile": 0, "top": 1}, "tile 0"),
        ({"rule": "soft", "top": 1}, "no rule 'soft'"),
    ):
        with pytest.raises(OptionError, match=says):
            GuidedPatches(run, source, network, "conv3", **options)
    with pytest.raises(StoreError, match="no patches-conv2"):
        GuidedPatches(run, source, network, "conv2")


def test_pictures_of_hostile_maps() -> None:
    zero = np.zeros((3, 4, 5), np.float32)
    assert (in_own_colours(zero) == BLANK).all()
    assert peak_of(zero) == 0
    lone = zero.copy()
    lone[0, 0, 0] = -2  # less than one value in a hundred: the largest is the scale's end
    assert peak_of(np.tile(lone, (1, 10, 10))) > 0
    assert in_own_colours(lone)[0, 0].tolist() == [1, BLANK, BLANK]
    for bad in (np.nan, np.inf, -np.inf):
        wild = lone.copy()
        wild[1] = bad
        assert in_own_colours(wild).shape == (4, 5, 3)
        picture = np.full((8, 10, 3), 200, np.uint8)
        assert over_image(picture, wild).shape == (8, 10, 3)
        assert over_image(picture, wild[1]).shape == (8, 10, 3)
