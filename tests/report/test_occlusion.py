"""The report's occlusion maps: the rows it chooses, what it says of them, and how it copes."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from readers import Page, picture

from fc7.engine.attribution.colours import table
from fc7.engine.attribution.occlusion.job import OccludeOptions
from fc7.engine.attribution.occlusion.pictures import heat
from fc7.engine.attribution.occlusion.stored import occlusions
from fc7.engine.attribution.workflow import occlude
from fc7.engine.cli.main import app
from fc7.engine.data import open_source
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.report.answers import Answers, choose, read_answers
from fc7.engine.report.provenance import commands
from fc7.engine.report.subject import Subject
from fc7.engine.store import Run, open_store

SPEC = "shapes:30:6"
COARSE = OccludeOptions(window=32, stride=16, threads=1, part_rows=16)


@pytest.fixture(scope="module")
def trained() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def only_maps(trained: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of nothing but occlusion maps."""
    return occlude(SPEC, trained, tmp_path_factory.mktemp("maps") / "run", COARSE)


@pytest.fixture(scope="module")
def alone(only_maps: Run, trained: Network) -> Page:
    return Page(write_report(only_maps, network=trained).read_text(encoding="utf-8"))


def shown_rows(page: Page) -> list[int]:
    """The rows of the section's cards, in their order."""
    titles = [str(found.get("title")) for found in page.all("div", class_="key")]
    return [int(re.findall(r"\(row (\d+)\)", title)[-1]) for title in titles]


def test_a_run_of_nothing_but_maps_has_a_report(alone: Page, only_maps: Run) -> None:
    links = [found["href"] for found in alone.all("a") if str(found["href"]).startswith("#")]
    assert links == [
        "#main",
        "#top",
        "#filters",
        "#occlusion",
        "#speed",
        "#bad-rows",
        "#provenance",
    ]
    assert "Not shown" in alone.text
    assert "fc7 saliency and fc7 guided make them" in alone.text
    assert not re.search(r"\d+ ?layers?", alone.text)
    assert "fc7 occlude shapes:30:6 --model tiny-shapes --window 32 --stride 16" in alone.text
    assert len(shown_rows(alone)) == len(set(shown_rows(alone)))


def test_the_rows_shown_are_the_most_and_least_certain(alone: Page, only_maps: Run) -> None:
    probability = np.asarray(only_maps["occlusion.probability"])
    largest = np.asarray(only_maps["occlusion.largest"])
    wrong = np.asarray(only_maps["occlusion.predicted"]) != only_maps.labels
    taken: list[int] = []
    for rank, allowed in (
        (-probability, wrong),
        (-probability, ~wrong),
        (probability, wrong | True),
        (-largest, wrong | True),
    ):
        order = np.argsort(rank, kind="stable").tolist()
        taken += [row for row in order if allowed[row] and row not in taken][:4]
    assert shown_rows(alone) == taken
    agree = f"{(~wrong).mean() * 100:.0f} % of 30 predictions agree with the label"
    assert agree in alone.text
    assert len(alone.all("span", class_="wrong")) == len([row for row in taken if wrong[row]])
    assert len(alone.all("span", class_="right")) == len([row for row in taken if not wrong[row]])


def test_a_card_shows_the_rows_own_image_map_and_answer(
    alone: Page, only_maps: Run, trained: Network
) -> None:
    row = shown_rows(alone)[0]
    source = open_source(SPEC)
    pixels = source.decode(source.read(row)).permute(1, 2, 0).numpy().astype(float)
    images = [picture(str(found["src"])) for found in alone.all("img")]
    place = next(i for i, found in enumerate(alone.all("img")) if found.get("class") == "map")
    # WebP at quality 82 loses a few grey levels; another drawing differs by 40 and more.
    assert np.abs(images[place - 1] - pixels).mean() < 12
    drops = np.asarray(only_maps["occlusion"][row])
    np.testing.assert_array_equal(
        images[place], heat(drops, (64, 64), 32, 16, float(np.abs(drops).max()))
    )
    assert trained.labels is not None
    name = trained.labels[int(only_maps["occlusion.target"][row])]
    probability = float(only_maps["occlusion.probability"][row])
    assert f"{name} {probability * 100:.0f} %" in alone.text
    assert f"falls by {float(drops.max()):.3g} at most" in alone.text


def test_the_legend_is_the_scale(alone: Page) -> None:
    (bar,) = [found for found in alone.all("img") if "zero" in str(found["alt"])]
    np.testing.assert_array_equal(picture(str(bar["src"]))[0], table())


def test_all_jobs_are_shown_with_what_is_approximate(only_maps: Run, trained: Network) -> None:
    options = OccludeOptions(window=40, stride=24, target="label", growth=0.5, threads=1)
    occlude(SPEC, trained, only_maps.folder, options)
    text = Page(write_report(only_maps, network=trained).read_text(encoding="utf-8")).text
    assert "probability of the predicted class, 32 \u00d7 32 pixels of #808080 every 16" in text
    assert "probability of the label's class, 40 \u00d7 40 pixels of #808080 every 24" in text
    assert "approximate: growth up to 50 % of each side" in text


@pytest.mark.parametrize(
    "options",
    [
        {"window": 40, "stride": 24, "target": 3, "score": "logit", "fill": (1, 0, 0.5)},
        {"window": 50, "stride": 14, "refine": True},
        {"window": 40, "stride": 24, "growth": 0.5, "target": "label", "batch_rows": 1},
    ],
)
def test_the_command_makes_the_same_job(
    options: dict[str, Any], trained: Network, tmp_path: Path
) -> None:
    made = occlude("shapes:2:0", trained, tmp_path / "run", OccludeOptions(**options, threads=1))
    parts = {path: path.stat().st_mtime_ns for path in made.folder.rglob("part-*")}
    line, _ = commands(Subject(made, trained, None, 0))
    app([*shlex.split(line)[1:], "--device", "cpu"], standalone_mode=False)
    assert list(made.jobs()) == ["occlude"]
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("part-*")} == parts


def test_without_labels_that_are_classes_nothing_is_right_or_wrong(page: Page, run: Run) -> None:
    # Three folders of hostile names, sixteen classes.
    assert not page.all("span", class_="right")
    assert not page.all("span", class_="wrong")
    assert "agree with the label" not in page.text
    good = np.flatnonzero(run.good)
    rows = [row for row in shown_rows(page) if row in good]
    probability = np.asarray(run["occlusion.probability"])
    order = good[np.argsort(-probability[good], kind="stable")]
    assert rows[:4] == order[:4].tolist()


def test_an_unfinished_job_is_not_shown(trained: Network, tmp_path: Path) -> None:
    options = OccludeOptions(window=32, stride=32, threads=1, part_rows=2, parts="0::2")
    made = occlude("shapes:4:0", trained, tmp_path / "run", options)
    text = Page(write_report(made, network=trained).read_text(encoding="utf-8")).text
    assert "the run holds no occlusion maps" in text


def test_images_that_cannot_be_read_any_more_are_left_out(trained: Network, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 64), (40 * number, 90, 10)).save(folder / f"{number}.bmp")
    made = occlude(folder, trained, tmp_path / "run", OccludeOptions(window=32, stride=32))
    whole = (folder / "2.bmp").read_bytes()
    for number in (2, 4):  # of the same size, so that the source looks the same
        (folder / f"{number}.bmp").write_bytes(b"x" * len(whole))
    page = Page(write_report(made, network=trained).read_text(encoding="utf-8"))
    assert sorted(shown_rows(page)) == [0, 1, 3, 5]


def test_few_rows_are_never_shown_twice() -> None:
    for wrong in (None, np.array([True, False, False]), np.array([True, True, True])):
        answers = Answers(
            np.array([3, 5, 9]),
            np.array([0.1, 0.9, 0.5], np.float32),
            wrong,
            np.array([True, True, True]),
        )
        shown = [row for _, rows in choose(answers, 2) for row in rows]
        assert sorted(shown) == [3, 5, 9]


def test_what_is_not_a_number_is_not_the_most_certain(
    only_maps: Run, trained: Network, tmp_path: Path
) -> None:
    copy = shutil.copytree(only_maps.folder, tmp_path / "run")
    path = copy / "jobs/occlude/occlusion.probability/part-000000.npy"
    probability = np.load(path)
    probability[3] = np.nan
    np.save(path, probability)
    subject = Subject(open_store(copy), trained, None, 0)
    (stored, *_) = occlusions(subject.run)
    answers = read_answers(subject, stored, stored.classes)
    np.testing.assert_array_equal(np.delete(answers.probability[:16], 3), np.delete(probability, 3))
    assert answers.probability[3] == 0
