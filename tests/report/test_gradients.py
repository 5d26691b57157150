"""The report's saliency maps and guided gradients, and the command lines that made them."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readers import Page, picture

from fc7.engine.attribution.gradient_pictures import drawn
from fc7.engine.attribution.guided_patches import GuidedPatches
from fc7.engine.cli.main import app
from fc7.engine.data import open_source
from fc7.engine.models import Network
from fc7.engine.report import write_report
from fc7.engine.report.guided_sheet import CHANNELS_A_SHEET, draw_guided_patches
from fc7.engine.report.provenance import commands
from fc7.engine.report.subject import Subject
from fc7.engine.store import Run, open_store, run_stage
from fc7.engine.store.stored import stored_maps


def test_maps_are_drawn_as_they_are_stored(page: Page, run: Run) -> None:
    for name in ("saliency", "guided"):
        (stored, *_) = stored_maps(run, name)
        expected = {
            drawn(np.asarray(stored.maps[row])).tobytes() for row in np.flatnonzero(run.good)
        }
        shown = [
            picture(str(found["src"]))
            for found in page.all("img", class_="map")
            if str(found["alt"]).startswith(f"{name} for")
        ]
        assert len(shown) >= 4
        assert all(one.tobytes() in expected for one in shown)


def test_a_unit_is_named_and_its_strongest_come_first(page: Page, run: Run) -> None:
    assert "of conv5 2: guided gradient" in page.text
    values = np.nan_to_num(run["guided.value"][:])[run.good]
    rows = np.flatnonzero(run.good)[np.argsort(-values)][:8]
    keys = [run.rows.column("key")[int(row)].as_py() for row in rows]
    section = page.source[page.source.index('id="gradients"') :]
    section = section[section.index("Strongest") :]
    places = [section.find(f"(row {row})") for row in rows]
    assert -1 not in places, keys
    assert places == sorted(places)


def test_patches_stand_beside_their_gradients(page: Page, run: Run) -> None:
    job = run.job("guided-patches-conv5")
    pictures = job.result("pictures")
    gradients = [
        found for found in page.all("img") if str(found["alt"]).startswith("Guided gradient of")
    ]
    assert len(gradients) == pictures.shape[0] * pictures.shape[1]
    # WebP loses a little: each is nearest to the tile that it should be.
    tiles = pictures.reshape(-1, *pictures.shape[2:]).astype(np.float64)
    shown = [picture(str(found["src"])).astype(np.float64) for found in gradients]
    distances = [[float(np.abs(one - tile).mean()) for tile in tiles] for one in shown]
    assert np.argmin(distances, axis=1).tolist() == list(range(len(tiles)))


def test_the_command_lines_make_the_same_jobs_again(
    run: Run, network: Network, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / "run"))
    opened = open_store(copy)
    subject = Subject(opened, network, open_source(run.meta["source"]["spec"]), 0)
    lines = [shlex.split(line) for line in commands(subject)]
    made = {words[1]: words[1:] for words in lines if words[1] in ("saliency", "guided")}
    jobs = set(opened.jobs())
    for words in [line for line in lines if line[1] in ("saliency", "guided")]:
        with pytest.raises(SystemExit) as stopped:
            app(words[1:])
        assert not stopped.value.code
    assert set(open_store(copy).jobs()) == jobs
    assert set(made) == {"saliency", "guided"}


def test_many_channels_are_several_sheets(run: Run, network: Network, tmp_path: Path) -> None:
    copy = open_store(Path(shutil.copytree(run.folder, tmp_path / "run")))
    source = open_source(run.meta["source"]["spec"])
    count = len(copy.job("patches-fc7").result("rows"))
    assert count > 2 * CHANNELS_A_SHEET
    run_stage(copy, GuidedPatches(copy, source, network, "fc7", range(130), top=1, tile=8))
    made = draw_guided_patches(copy, source, network, "fc7", tmp_path / "fc7.png")
    assert [path.name for path in made] == ["fc7-1.png", "fc7-2.png", "fc7-3.png"]
    assert all(min(Image.open(path).size) > 60 for path in made)


def test_what_is_not_a_number_does_not_stop_the_page(
    run: Run, network: Network, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / "run"))
    for name in ("saliency", "guided"):
        for path in (copy / "jobs" / name / name).glob("part-*.npy"):
            maps = np.load(path)
            maps[::2], maps[1::3] = np.nan, np.inf
            np.save(path, maps)
    text = write_report(open_store(copy), network=network).read_text(encoding="utf-8")
    assert "Saliency and guided gradients" in text
