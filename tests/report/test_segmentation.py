"""The section of masks: which rows it shows, and that what it shows is theirs."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from readers import Page, picture

from fc7.engine.attribution.segmentation.job import SegmentOptions
from fc7.engine.attribution.segmentation.pictures import overlaid
from fc7.engine.attribution.segmentation.stored import segmentations
from fc7.engine.attribution.workflow import segment
from fc7.engine.cli.main import app
from fc7.engine.data import open_source
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.report.answers import Answers, choose
from fc7.engine.report.provenance import commands
from fc7.engine.report.segmentation import kinds
from fc7.engine.report.subject import Subject
from fc7.engine.store import Run

SPEC = "shapes:30:6"
QUICK: dict[str, Any] = {"iterations": 1, "threads": 1}


@pytest.fixture(scope="module")
def trained() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def only_masks(trained: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    options = SegmentOptions(**QUICK, part_rows=16)
    return segment(SPEC, trained, tmp_path_factory.mktemp("masks") / "run", options)


@pytest.fixture(scope="module")
def alone(only_masks: Run, trained: Network) -> Page:
    return Page(write_report(only_masks, network=trained).read_text(encoding="utf-8"))


def shown_rows(page: Page) -> list[int]:
    """The rows of the section's cards, in order."""
    section = page.source.split('id="segmentation"')[1].split("</section>")[0]
    return [int(row) for row in re.findall(r"\(row (\d+)\)", section)]


def test_a_run_of_nothing_but_masks_has_a_report(alone: Page) -> None:
    links = [found["href"] for found in alone.all("a") if str(found["href"]).startswith("#")]
    assert "#segmentation" in links
    assert "#occlusion" not in links
    assert "fc7 segment shapes:30:6 --model tiny-shapes --iterations 1" in alone.text
    assert "object from the quantile 0.95 of the map, smoothed by 0.1 of its side" in alone.text
    assert "All were found by GrabCut." in alone.text


def test_the_rows_shown_say_the_most(alone: Page, only_masks: Run) -> None:
    probability = np.asarray(only_masks["segment.probability"])
    area = np.asarray(only_masks["segment.area"])
    wrong = np.asarray(only_masks["segment.predicted"]) != only_masks.labels
    taken: list[int] = []
    for rank, allowed in (
        (-probability, wrong),
        (-probability, ~wrong),
        (probability, wrong | True),
        (-area, wrong | True),
        (area, wrong | True),
    ):
        order = np.argsort(rank, kind="stable").tolist()
        taken += [row for row in order if allowed[row] and row not in taken][:4]
    assert shown_rows(alone) == taken
    assert len(alone.all("span", class_="wrong")) == len([row for row in taken if wrong[row]])
    share = f"The masks cover {float(np.median(area)) * 100:.0f} % of an image in the median"
    assert share in alone.text


def test_a_card_shows_the_rows_own_image_and_mask(alone: Page, only_masks: Run) -> None:
    row = shown_rows(alone)[0]
    source = open_source(SPEC)
    pixels = source.decode(source.read(row)).permute(1, 2, 0).numpy()
    images = [picture(str(found["src"])) for found in alone.all("img")]
    place = next(i for i, found in enumerate(alone.all("img")) if "cut out" in str(found["alt"]))
    expected = overlaid(pixels, segmentations(only_masks)[0].mask(row))
    # WebP at quality 82 loses some grey levels, more along an outline; another row's differ by 40.
    assert np.abs(images[place - 1] - pixels.astype(float)).mean() < 12
    assert np.abs(images[place] - expected.astype(float)).mean() < 12


def test_images_of_their_own_sizes_keep_their_proportions(page: Page, run: Run) -> None:
    pictures = [found for found in page.all("img") if "cut out" in str(found["alt"])]
    assert pictures
    for found in pictures:
        assert picture(str(found["src"])).shape == (96, 128, 3)
    assert not set(shown_rows(page)) - set(np.flatnonzero(run.good).tolist())


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "guided", "target": 3, "foreground": 0.9, "probable": 0.7, "side": 40},
        {"foreground": 0.25, "probable": 0.25, "background": 0.1, "blur": 0.0},
        {"target": "label", "batch_rows": 1, "part_rows": 3},
    ],
)
def test_the_command_makes_the_same_job(
    options: dict[str, Any], trained: Network, tmp_path: Path
) -> None:
    made = segment("shapes:2:0", trained, tmp_path / "run", SegmentOptions(**QUICK, **options))
    parts = {path: path.stat().st_mtime_ns for path in made.folder.rglob("part-*")}
    line, _ = commands(Subject(made, trained, None, 0))
    app([*shlex.split(line)[1:], "--device", "cpu"], standalone_mode=False)
    assert list(made.jobs()) == ["segment"]
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("part-*")} == parts


def test_what_grabcut_did_not_find_is_said(trained: Network, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        # Images of two pixels: too few for GrabCut.
        Image.new("RGB", (2, 1), (80 * number, 90, 10)).save(folder / f"{number}.png")
    made = segment(folder, trained, tmp_path / "run", SegmentOptions(**QUICK))
    how = [segmentations(made)[0].how[int(one)] for one in made["segment.how"]]
    assert set(how) <= {"threshold", "flat"}
    page = Page(write_report(made, network=trained).read_text(encoding="utf-8"))
    for name in set(how):
        assert f"mask{'' if how.count(name) == 1 else 's'} {name}" in page.text
    assert "instead of GrabCut" in page.text


def test_empty_masks_are_not_shown_as_small_ones() -> None:
    answers = Answers(
        rows=np.array([3, 5, 9]),
        probability=np.array([0.1, 0.9, 0.5], np.float32),
        wrong=None,
        labelled=np.zeros(3, np.bool_),
    )
    areas = np.array([0.3, 0.0, 0.1], np.float32)
    assert [(name, order.tolist()) for name, order in kinds(areas)] == [
        ("Largest", [0, 2, 1]),
        ("Smallest", [2, 0]),
    ]
    assert list(choose(answers, 1, kinds(areas))) == [
        ("Most certain", [5]),
        ("Least certain", [3]),
        ("Largest", [9]),
    ]
