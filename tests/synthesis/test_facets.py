"""Facets as rows of a run: which rows they are of, their starts, resuming, the verb."""

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
from fc7.engine.data.facet_targets import FacetsSource, FacetTarget
from fc7.engine.errors import ASKED_WRONG, BadImage, Fc7Error, LayerError, OptionError, SourceError
from fc7.engine.features.workflow import ExtractOptions, extract
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.store import Run
from fc7.engine.synthesis.facet_figure import facet_figure
from fc7.engine.synthesis.facet_rows import classes_of_run, rows_of_unit
from fc7.engine.synthesis.facet_workflow import facets, facets_with_summary, plan_of
from fc7.engine.synthesis.facets import FacetsOptions, mean_image
from fc7.engine.synthesis.objectives import any_class
from fc7.engine.synthesis.stored_facets import stored_facets

QUICK: dict[str, Any] = {"steps": 6, "nearest": 3, "batch_rows": 4, "part_rows": 4}


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Run:
    """A run of 96 images with vectors, logits and what excites conv5."""
    folder = tmp_path_factory.mktemp("facets") / "run"
    options = ExtractOptions(part_rows=40, top_k=5)
    return extract("shapes:96:5", network, ["conv5", "fc7", "fc8"], folder, options)


def test_facets_are_rows_that_a_spec_names() -> None:
    source = open_source("facets:class:3x2,0+12x3")
    assert isinstance(source, FacetsSource)
    assert [source.key(row) for row in range(5)] == [
        "class-0003-facet-0", "class-0003-facet-1", "class-0000+0012-facet-0",
        "class-0000+0012-facet-1", "class-0000+0012-facet-2",
    ]  # fmt: skip
    assert source.target(4) == FacetTarget(None, (0, 12), 2)
    assert source.rows()["label"].to_pylist() == [3, 3, None, None, None]
    again = open_source(source.spec)
    assert again.spec == "facets:class:3x2,0+12x3"
    assert again.digest() == source.digest()
    assert open_source("facets:class:3x2,0+12x2").digest() != source.digest()
    units = open_source("facets:conv5:17x2")
    assert units.key(1) == "conv5-0017-facet-1"
    with pytest.raises(BadImage, match="is a facet"):
        units.decode(units.read(0))
    with pytest.raises(IndexError):
        source.target(5)


@pytest.mark.parametrize(
    "spec",
    ["facets:", "facets:class", "facets:class:3", "facets:class:3x0", "facets:class:+x1",
     "facets:class:3x2,", "facets:conv5:1+2x3", "facets:class:3x99999999", "facets::3x1"],
)  # fmt: skip
def test_specs_that_name_nothing(spec: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


def test_rows_of_a_class_are_its_labels_or_what_is_predicted(held: Run, network: Network) -> None:
    labels = held.labels
    assert np.array_equal(classes_of_run(held, network, 16), labels)
    predicted = classes_of_run(held, network, 16, "predicted")
    assert np.array_equal(predicted, np.asarray(held["fc8"]).argmax(1))
    assert not np.array_equal(predicted, labels)
    with pytest.raises(OptionError, match="rows by 'guess'"):
        classes_of_run(held, network, 16, "guess")


def test_rows_of_a_unit_excite_it_most(held: Run, network: Network) -> None:
    values = np.asarray(held["conv5.max"])[:, 7].astype(np.float64)
    best = sorted(range(96), key=lambda row: (-values[row], row))[:10]
    assert rows_of_unit(held, "conv5", 7, 10).tolist() == sorted(best)
    excited = rows_of_unit(held, "conv5", 7, 96)
    assert excited.tolist() == np.flatnonzero(values > 0).tolist()
    logits = np.asarray(held["fc8"])[:, 2].astype(np.float64)
    assert rows_of_unit(held, "fc8", 2, 1).tolist() == [int(logits.argmax())]
    assert len(rows_of_unit(held, "fc8", 2, 96)) == 96
    with pytest.raises(OptionError, match="holds no conv4"):
        rows_of_unit(held, "conv4", 0, 5)
    with pytest.raises(OptionError, match="unit 4096"):
        rows_of_unit(held, "conv5", 4096, 5)


def test_mean_images_are_means(network: Network) -> None:
    source = open_source("shapes:30:5")
    rows = np.array([3, 29, 3, 11])
    expected = np.mean([source.decode(source.read(row)).numpy() / 255 for row in rows], axis=0)
    found = mean_image(source, network, rows)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)
    assert found.dtype == torch.float32


def test_what_stands_beside_an_image_is_of_that_facet(
    tmp_path: Path, held: Run, network: Network
) -> None:
    options = FacetsOptions(facets=3, **QUICK)
    run = facets(held, tmp_path / "run", [[0, 1, 2, 3], 9], options=options, network=network)
    assert run.rows["key"].to_pylist()[2:4] == [
        "class-0000+0001+0002+0003-facet-2", "class-0009-facet-0",
    ]  # fmt: skip
    images, starts = np.asarray(run["facets"]), np.asarray(run["facets.start"])
    assert images.shape == starts.shape == (6, 3, 64, 64)
    near, members = np.asarray(run["facets.nearest"]), np.asarray(run["facets.members"])
    labels = held.labels
    assert members[:3].sum() == (labels < 4).sum()
    assert members[3:].sum() == (labels == 9).sum()
    source = open_source("shapes:96:5")
    for row in range(6):
        own = near[row][near[row] >= 0]
        assert len(own) == min(3, members[row])
        assert set(labels[own]) <= ({0, 1, 2, 3} if row < 3 else {9})
        expected = np.mean([source.decode(source.read(each)).numpy() for each in own], axis=0)
        assert np.abs(starts[row] - expected).max() <= 0.5 + 1e-4
    logits = network(torch.from_numpy(images.copy()).float() / 255)
    unions = [(0, 1, 2, 3)] * 3 + [(9,)] * 3
    for row, union in enumerate(unions):
        score = float(logits[row, list(union)].double().exp().sum().log())
        assert run["facets.score"][row] == pytest.approx(score, rel=1e-3, abs=1e-3)
        share = float(logits[row].softmax(0)[list(union)].sum())
        assert run["facets.probability"][row] == pytest.approx(share, abs=1e-3)
    assert np.asarray(run["facets.predicted"]).tolist() == logits.argmax(1).tolist()
    assert np.isfinite(np.asarray(run["facets.curve"])).all()
    began = torch.from_numpy(starts.copy()).float() / 255
    rose = logits - network(began)
    assert (any_score(rose, unions) > 0).all()
    picture = facet_figure(stored_facets(run)[0], network)
    assert min(picture.size) > 400


def any_score(logits: torch.Tensor, unions: list[tuple[int, ...]]) -> torch.Tensor:
    return torch.stack(
        [line[list(union)].amax() for line, union in zip(logits, unions, strict=True)]
    )


def test_stopped_in_the_middle_it_makes_the_same_images(
    tmp_path: Path, held: Run, network: Network
) -> None:
    """Parts made in another order, after a stop within one, by plans that were made anew."""
    asked = [[0, 1, 2, 3], 4, 9]
    options = FacetsOptions(facets=3, **QUICK)
    whole = facets(held, tmp_path / "whole", asked, options=options, network=network)

    class StopError(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.done:
            raise StopError

    halves = tmp_path / "halves"
    for extra, error in (({"report": stop}, StopError), ({"parts": "2::3"}, None), ({}, None)):
        again = FacetsOptions(facets=3, **QUICK, **extra)
        plan = plan_of(held, network, asked, options=again)
        if error is not None:
            with pytest.raises(error):
                facets_with_summary(plan, network, halves, again)
            continue
        run, summary = facets_with_summary(plan, network, halves, again)
    assert summary.is_complete
    assert summary.computed < 9
    for name in whole.outputs():
        assert np.array_equal(np.asarray(run[name]), np.asarray(whole[name]), equal_nan=True), name
    # Among others, at another place, in passes as large: the same images to the bit.
    other = facets(held, tmp_path / "other", [9, 4], options=options, network=network)
    assert np.array_equal(np.asarray(other["facets"])[:3], np.asarray(whole["facets"])[6:])


def test_other_rows_or_options_are_another_job(tmp_path: Path, held: Run, network: Network) -> None:
    out = tmp_path / "run"
    for nearest, pull in ((3, None), (2, None), (3, 0.0), (3, None)):
        options = FacetsOptions(facets=2, **QUICK | {"nearest": nearest}, pull=pull)
        run = facets(held, out, [1], options=options, network=network)
    assert [one.name for one in stored_facets(run)] == ["facets", "facets-2", "facets-3"]
    assert not np.array_equal(run["facets"][0], run["facets-3"][0])


def test_units_of_a_layer(tmp_path: Path, held: Run, network: Network) -> None:
    options = FacetsOptions(facets=2, rows_of_a_unit=12, **QUICK)
    run = facets(
        held, tmp_path / "run", layer="conv5", units=[7, 2], options=options, network=network
    )
    assert run.rows["key"].to_pylist() == [
        "conv5-0007-facet-0", "conv5-0007-facet-1", "conv5-0002-facet-0", "conv5-0002-facet-1",
    ]  # fmt: skip
    assert "facets.probability" not in run.outputs()
    assert np.asarray(run["facets.members"])[:2].sum() == 12
    stored = stored_facets(run)[0]
    assert [target.units for target in stored.targets()] == [(7,), (7,), (2,), (2,)]
    assert min(facet_figure(stored, network).size) > 400


def test_few_rows_make_few_facets(tmp_path: Path, held: Run, network: Network) -> None:
    labels = held.labels
    one_row = tmp_path / "one"
    first = extract("shapes:20:5", network, ["fc7", "fc8"], one_row, ExtractOptions(top_k=0))
    known = classes_of_run(first, network, 16)
    alone = int(np.flatnonzero(np.bincount(known, minlength=16) == 1)[0])
    run = facets(first, tmp_path / "out", [alone], options=FacetsOptions(**QUICK), network=network)
    row = int(np.flatnonzero(known == alone)[0])
    assert np.asarray(run["facets.nearest"]).tolist() == [[row, -1, -1]]
    source = open_source("shapes:20:5")
    assert np.array_equal(run["facets.start"][0], source.decode(source.read(row)).numpy())
    few = extract("shapes:9:5", network, ["fc7"], tmp_path / "few", ExtractOptions(top_k=0))
    absent = int(np.flatnonzero(np.bincount(few.labels, minlength=16) == 0)[0])
    with pytest.raises(OptionError, match="no row of the run excites"):
        facets(few, tmp_path / "none", [absent], network=network)
    with pytest.raises(OptionError, match="neither labels nor logits"):
        classes_of_run(few, network, 16, "predicted")
    count = int((labels == 3).sum())
    with pytest.raises(OptionError, match=f"has {count} rows in the run, fewer than {count + 1}"):
        plan_of(held, network, [3], options=FacetsOptions(facets=count + 1))


def test_errors_name_cause_and_cure(tmp_path: Path, held: Run, network: Network) -> None:
    out = tmp_path / "run"
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"classes": [16]}, "0 to 15"),
        ({"classes": ["disk"]}, "no class 'disk'"),
        ({"classes": []}, "no class is named"),
        ({"classes": [[]]}, "union of no classes"),
        ({}, "no class is named"),
        ({"layer": "conv9", "units": [1]}, "conv9"),
        ({"layer": "conv4", "units": [1]}, "holds no conv4"),
        ({"layer": "conv5"}, "no unit of conv5 is named"),
        ({"layer": "conv5", "units": [4096]}, "name one from 0"),
        ({"layer": "conv5", "units": [1], "classes": [1]}, "no units"),
        ({"units": [1]}, "which layer"),
        ({"classes": [1], "options": FacetsOptions(by="fc6")}, "holds no fc6; it has"),
        ({"classes": [1], "options": FacetsOptions(facets=0)}, "facets is 0"),
        ({"classes": [1], "options": FacetsOptions(steps=2)}, "one for each stage"),
        ({"classes": [1], "options": FacetsOptions(nearest=0)}, "nearest is 0"),
        ({"classes": [1], "options": FacetsOptions(pull=-1.0)}, "pull is -1"),
        ({"classes": [1], "options": FacetsOptions(by="conv5.max", pull=1.0)}, "nothing pulls"),
        ({"classes": [1], "options": FacetsOptions(batch_rows=0)}, "batch"),
    ]
    for asked, says in wrongs:
        with pytest.raises(Fc7Error, match=says) as caught:
            facets(held, out, network=network, **asked)
        assert isinstance(caught.value, ASKED_WRONG), asked
        assert "\n" not in str(caught.value)
    assert isinstance(LayerError("x"), ASKED_WRONG)
    assert not out.exists()


def test_the_verb_makes_a_run_or_a_picture(tmp_path: Path, held: Run) -> None:
    runner = CliRunner()
    common = [str(held.folder), "--steps", "6", "--device", "cpu", "--json"]
    picture, out = tmp_path / "some.png", tmp_path / "run"
    found = runner.invoke(
        app, ["facets", *common, "--class", "0+1,5", "--facets", "2", "--out", str(picture)]
    )
    assert found.exit_code == 0, found.output
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 400
    said = json.loads(found.stdout)
    assert said["facets"][0]["key"] == "class-0000+0001-facet-0"
    for _ in range(2):
        found = runner.invoke(
            app, ["facets", *common, "-l", "conv5", "--unit", "3", "--most", "3", "-o", str(out)]
        )
        assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["jobs"][0]["computed"] == 0
    page = write_report(Run(out)).read_text()
    assert "The kinds of image that excite it" in page
    assert page.count('class="ascent"') == len(Run(out))
    assert page.count('class="near"') == len(Run(out))
    for wrong in (["--facets", "some"], ["--class", "x"], ["--class", "1", "--by", "fc6"], []):
        found = runner.invoke(app, ["facets", *common, *wrong, "-o", str(tmp_path / "no")])
        assert found.exit_code != 0
    assert any_class([1]).layers == (None,)
