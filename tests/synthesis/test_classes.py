"""Class images as rows of a run: targets, resuming, what stands beside them, the verb."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fc7.engine.cli.main import app
from fc7.engine.data import open_source
from fc7.engine.data.targets import Target, TargetsSource, parse_units, spell_units
from fc7.engine.errors import BadImage, LayerError, OptionError, SourceError
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.store import Run
from fc7.engine.synthesis.class_figure import class_figure, name_of
from fc7.engine.synthesis.classes import ClassesOptions, seed_of
from fc7.engine.synthesis.stored import stored_classes
from fc7.engine.synthesis.workflow import classes, classes_with_summary, targets_of

QUICK = ClassesOptions(steps=5, batch_rows=4, part_rows=4)


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-cifar10", device="cpu")


def test_targets_are_rows_that_a_spec_names() -> None:
    source = open_source("targets:conv5:3-5,1:2")
    assert isinstance(source, TargetsSource)
    assert [source.key(row) for row in range(4)] == [
        "conv5-0003-0", "conv5-0003-1", "conv5-0004-0", "conv5-0004-1",
    ]  # fmt: skip
    assert source.target(7) == Target("conv5", 1, 1)
    again = open_source(source.spec)
    assert again.spec == "targets:conv5:3-5,1:2"
    assert again.digest() == source.digest()
    assert open_source("targets:conv5:3-5:2").digest() != source.digest()
    classes = open_source("targets:class:0-9")
    assert classes.rows()["label"].to_pylist() == list(range(10))
    assert classes.key(7) == "class-0007"
    with pytest.raises(BadImage, match="class-0007 is a target"):
        classes.decode(classes.read(7))
    with pytest.raises(IndexError):
        source.target(8)


@pytest.mark.parametrize("units", [[0], [3, 4, 5], [9, 0, 1, 7], list(range(0, 40, 3))])
def test_units_are_spelt_as_they_are_read(units: list[int]) -> None:
    assert parse_units(spell_units(units)) == units


@pytest.mark.parametrize(
    "spec",
    ["targets:", "targets:conv5", "targets:conv5:a", "targets:conv5:5-3", "targets:class:0-9:0",
     "targets:conv5:0-99999999", "targets:class:1,,2"],
)  # fmt: skip
def test_specs_that_name_nothing(spec: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


def test_seeds_are_of_the_target_alone() -> None:
    seeds = {
        seed_of(seed, layer, unit, start)
        for seed in (0, 1)
        for layer in (None, "conv5", "conv51")
        for unit in (0, 1, 11)
        for start in (0, 1)
    }
    assert len(seeds) == 36
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_what_stands_beside_an_image_is_of_that_image(tmp_path: Path, network: Network) -> None:
    run = classes(network, tmp_path / "run", classes=[3, "ship", 0], options=QUICK)
    assert run.rows["key"].to_pylist() == ["class-0003", "class-0008", "class-0000"]
    images = np.asarray(run["classes"])
    assert images.shape == (3, 3, 32, 32)
    assert images.dtype == np.uint8
    logits = network(torch.from_numpy(images.copy()).float() / 255)
    wanted = torch.tensor([3, 8, 0])
    # The default preset asks for the log-probability along with the logit.
    scores = (logits + logits.log_softmax(1)).gather(1, wanted[:, None])[:, 0]
    np.testing.assert_allclose(run["classes.score"], scores, rtol=1e-3, atol=1e-3)
    probability = logits.softmax(1).gather(1, wanted[:, None])[:, 0]
    np.testing.assert_allclose(run["classes.probability"], probability, atol=1e-3)
    assert np.asarray(run["classes.predicted"]).tolist() == logits.argmax(1).tolist()
    assert np.asarray(run["classes.steps"]).tolist() == [5, 5, 5]
    curves = np.asarray(run["classes.curve"])
    assert curves.shape == (3, 5)
    assert (curves[:, -1] > curves[:, 0]).all()


def test_stopped_in_the_middle_it_makes_the_same_images(tmp_path: Path, network: Network) -> None:
    """Parts made by another process, in another order, and after a stop within one."""
    source = targets_of(network)
    whole = classes_with_summary(source, network, tmp_path / "whole", QUICK)[0]

    class StopError(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.done:
            raise StopError

    halves = tmp_path / "halves"
    options = {"steps": 5, "batch_rows": 4, "part_rows": 4}
    with pytest.raises(StopError):
        classes_with_summary(source, network, halves, ClassesOptions(**options, report=stop))
    classes_with_summary(source, network, halves, ClassesOptions(**options, parts="2::3"))
    run, summary = classes_with_summary(source, network, halves, QUICK)
    assert summary.is_complete
    assert summary.computed < 10
    for name in whole.outputs():
        assert np.array_equal(np.asarray(run[name]), np.asarray(whole[name]), equal_nan=True), name


def test_other_options_are_another_job(tmp_path: Path, network: Network) -> None:
    for seed in (0, 1):
        options = ClassesOptions(steps=2, seed=seed)
        run = classes(network, tmp_path / "run", classes=[1], options=options)
    assert [one.name for one in stored_classes(run)] == ["classes", "classes-2"]
    assert not np.array_equal(run["classes"][0], run["classes-2"][0])


def test_units_of_a_layer_at_another_size(tmp_path: Path, network: Network) -> None:
    options = ClassesOptions(steps=3, size=(40, 48), neurons=True, preset="yosinski-1")
    run = classes(network, tmp_path / "run", layer="conv3", units=[2, 9], starts=2, options=options)
    assert run["classes"].shape == (4, 3, 40, 48)
    assert "classes.probability" not in run.outputs()
    stored = stored_classes(run)[0]
    assert stored.units().tolist() == [2, 2, 9, 9]
    assert name_of(stored, network, 9) == "conv3 9"
    picture = class_figure(stored, network)
    assert min(picture.size) > 100


def test_errors_name_cause_and_cure(tmp_path: Path, network: Network) -> None:
    out = tmp_path / "run"
    with pytest.raises(LayerError):
        classes(network, out, layer="conv9")
    for wrong, says in (
        ({"classes": [10]}, "0 to 9"),
        ({"classes": ["shipp"]}, "ship"),
        ({"classes": []}, "no class is named"),
        ({"layer": "conv3", "units": [4096]}, "name one from 0"),
        ({"units": [1]}, "which layer"),
        ({"classes": [1], "layer": "conv3"}, "no units"),
        ({"starts": 0}, "starts is 0"),
        ({"options": ClassesOptions(preset="lucit")}, "there are lucid"),
        ({"options": ClassesOptions(steps=0)}, "steps is 0"),
    ):
        with pytest.raises(OptionError, match=says) as caught:
            classes(network, out, **wrong)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert not out.exists()


def test_the_verb_makes_a_run_or_a_picture(tmp_path: Path) -> None:
    runner = CliRunner()
    common = ["--model", "tiny-cifar10", "--steps", "3", "--device", "cpu"]
    picture = tmp_path / "some.png"
    found = runner.invoke(
        app, ["classes", *common, "--classes", "0-2,ship", "--out", str(picture), "--json"]
    )
    assert found.exit_code == 0, found.output
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 200
    said = json.loads(found.stdout)
    assert [one["key"] for one in said["images"]] == [f"class-{n:04d}" for n in (0, 1, 2, 8)]
    run = tmp_path / "run"
    for _ in range(2):
        found = runner.invoke(
            app, ["classes", *common, "-l", "conv2", "--units", "0-4", "--out", str(run), "--json"]
        )
        assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["jobs"][0]["computed"] == 0
    assert len(Run(run)) == 5
    page = write_report(Run(run)).read_text()
    assert "What it would paint" in page
    assert "conv2 4" in page
    assert page.count('class="ascent"') == 5
