"""The report's importances: the bars, what is said of them, and whose patches are shown."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from readers import Page

from fc7.engine.attribution.importance.job import ImportanceOptions
from fc7.engine.attribution.importance.stored import read_stored
from fc7.engine.attribution.importance.workflow import importance
from fc7.engine.cli.main import app
from fc7.engine.features.workflow import ExtractOptions, extract
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.report.importance import half, outline
from fc7.engine.report.provenance import commands
from fc7.engine.report.subject import Subject
from fc7.engine.store import Run, open_store

SPEC = "shapes:24:6"


@pytest.fixture(scope="module")
def trained() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def made(trained: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("importance") / "run"
    options = ImportanceOptions(part_rows=16, threads=1)
    return importance(SPEC, trained, folder, options)


def heights(path: str) -> list[float]:
    return [1 - float(top) for top in re.findall(r"V([\d.]+)H", path)]


def test_bars_are_the_importances_in_order(made: Run, trained: Network) -> None:
    page = Page(write_report(made, network=trained).read_text(encoding="utf-8"))
    stored = read_stored(made)
    figures = [found for found in page.all("svg") if found.get("class") == "ranks"]
    paths = [str(found["d"]) for found in page.all("path") if "d" in found]
    assert len(figures) == 5
    assert len(paths) == 10
    for place, (layer, scores) in enumerate(zip(stored.layers, stored.taylor, strict=True)):
        ordered = np.sort(scores)[::-1]
        light, dark = heights(paths[2 * place]), heights(paths[2 * place + 1])
        np.testing.assert_allclose(dark + light, ordered / ordered[0], atol=6e-4)
        assert ordered[: len(dark)].sum() >= scores.sum() / 2 > ordered[: len(dark) - 1].sum()
        says = f"half of it in {len(dark)} of {layer.channels} channels"
        assert says in page.text
        assert says in str(figures[place]["aria-label"])
        assert f"most: {int(scores.argmax())}\u00a0(" in page.text
    share = stored.right / stored.labelled
    assert f"over 24 images, {share * 100:.0f} % of them right" in page.text


def test_the_patches_are_those_of_the_most_important(
    made: Run, trained: Network, tmp_path: Path
) -> None:
    copy = open_store(shutil.copytree(made.folder, tmp_path / "run"))
    extract(SPEC, trained, ["conv5"], copy.folder, ExtractOptions(threads=1))
    path = write_report(copy, network=trained, channels_per_layer=6)
    text = path.read_text(encoding="utf-8")
    section = text[text.index('<section id="importance"') :]
    section = section[: section.index("</section>")]
    shown = [int(channel) for channel in re.findall(r"<b>channel (\d+)</b>", section)]
    scores = read_stored(copy).taylor[4]
    assert shown == np.argsort(-scores, kind="stable")[:3].tolist()


def test_the_command_makes_the_same_job(made: Run, trained: Network) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("part-*")}
    lines = commands(Subject(made, trained, None, 0))
    assert [line.split()[1] for line in lines] == ["importance", "report"]
    app([*shlex.split(lines[0])[1:], "--device", "cpu", "--json"], standalone_mode=False)
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("part-*")} == before


def test_without_importances_the_page_says_so(trained: Network, tmp_path: Path) -> None:
    options = ImportanceOptions(part_rows=2, threads=1, parts="0:1")
    begun = importance("shapes:4:1", trained, tmp_path / "run", options)
    page = Page(write_report(begun, network=trained).read_text(encoding="utf-8"))
    assert "the run holds no importances; fc7 importance makes them" in page.text


def test_shapes_of_bars() -> None:
    assert half(np.array([1.0, 4.0, 2.0])) == 1
    assert half(np.array([1.0, 1.0, 1.0, 1.0])) == 2
    assert half(np.zeros(3)) == 0
    assert outline(np.array([1.0, 0.5, 0.25]), 1, 3) == "M1 1V0.500H2V0.750H3V1Z"
    assert outline(np.array([1.0]), 0, 0) == "M0 1V1Z"
