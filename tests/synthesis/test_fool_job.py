"""The job of adversarial examples: what it keeps, and that all it says is of what it keeps."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fc7.engine.cli.main import main
from fc7.engine.data import open_source
from fc7.engine.errors import FingerprintError, OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.store import Run, verify
from fc7.engine.synthesis.attack_options import AttackOptions
from fc7.engine.synthesis.fool import fool_images
from fc7.engine.synthesis.fool_figure import figure, fool_file
from fc7.engine.synthesis.fool_job import FoolOptions
from fc7.engine.synthesis.fool_workflow import fool, fool_with_summary
from fc7.engine.synthesis.stored_fool import stored_fools

DATA, ROWS = "shapes:6:7", 6
QUICK: dict[str, Any] = {"batch_rows": 3, "part_rows": 4, "threads": 1, "step": 0.2}


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture(scope="module")
def seen() -> Tensor:
    source = open_source(DATA)
    return torch.stack([source.decode(source.read(row)) for row in range(ROWS)])


@pytest.fixture(scope="module")
def run(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    options = FoolOptions(**QUICK)
    return fool(DATA, network, tmp_path_factory.mktemp("fool") / "run", options)


def test_what_is_read_back_is_what_was_judged(network: Network, seen: Tensor, run: Run) -> None:
    (stored,) = stored_fools(run)
    images = np.stack([stored.adversarial(row, seen[row].numpy()) for row in range(ROWS)])
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    adversarial, clean = torch.from_numpy(images), seen.float() / 255
    with torch.no_grad():
        before, after = network(clean), network(adversarial)
        coarse = network((adversarial * 255).round() / 255)
    target = torch.from_numpy(run["fool.target"][:].copy())
    np.testing.assert_array_equal(run["fool.predicted"][:], before.argmax(1))
    np.testing.assert_array_equal(run["fool.became"][:], after.argmax(1))
    np.testing.assert_array_equal(run["fool.success"][:], after.argmax(1) == target)
    np.testing.assert_array_equal(run["fool.success_8bit"][:], coarse.argmax(1) == target)
    assert run["fool.success"][:].all()
    for name, logits, classes in (
        ("probability", before, before.argmax(1)),
        ("target_before", before, target),
        ("target_after", after, target),
        ("certainty", after, after.argmax(1)),
    ):
        expected = logits.softmax(1).gather(1, classes[:, None])[:, 0]
        np.testing.assert_allclose(run[f"fool.{name}"][:], expected, rtol=1e-3, atol=1e-6)
    change = (adversarial - clean).flatten(1)
    np.testing.assert_allclose(run["fool.l2"][:], change.norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(run["fool.linf"][:], change.abs().amax(1), rtol=1e-5)
    labels = open_source(DATA).rows()["label"].to_numpy()
    assert not (run["fool.target"][:] == labels).any()
    assert not (run["fool.target"][:] == run["fool.predicted"][:]).any()
    assert run["fool"].dtype == np.float16


def test_equals_the_function(network: Network, seen: Tensor, run: Run) -> None:
    """In a batch of as many; the change was rounded to float16 since."""
    goals = torch.from_numpy(run["fool.target"][:].copy())
    options = AttackOptions(step=0.2)
    found = fool_images(network, seen.float() / 255, goals, options, batch_rows=3)
    np.testing.assert_array_equal(run["fool.evaluations"][:], found.evaluations)
    change = (found.images - seen.float() / 255).numpy()
    np.testing.assert_allclose(run["fool"][:], change, rtol=2**-10, atol=1e-6)


def test_parts_made_apart_are_the_same_bits(network: Network, run: Run, tmp_path: Path) -> None:
    """Rows that lead no company to another part come out as they did in it."""
    out = tmp_path / "run"
    first = FoolOptions(**QUICK, parts="1::2")
    made, summary = fool_with_summary(DATA, network, out, first)
    assert not summary.is_complete
    made, summary = fool_with_summary(DATA, network, out, FoolOptions(**QUICK))
    assert summary.is_complete
    assert summary.computed == 4
    for name in run.job("fool").outputs:
        np.testing.assert_array_equal(made[name][:], run[name][:], err_msg=name)
    other = fool(DATA, network, tmp_path / "other", FoolOptions(**{**QUICK, "part_rows": 6}))
    for name in run.job("fool").outputs:
        np.testing.assert_array_equal(other[name][:], run[name][:], err_msg=name)
    assert verify(made) == []


def test_another_question_is_another_job(network: Network, tmp_path: Path) -> None:
    out, few = tmp_path / "run", {**QUICK, "steps": 2}
    fool("shapes:2:7", network, out, FoolOptions(**few))
    run = fool("shapes:2:7", network, out, FoolOptions(**few, target="untargeted"))
    assert {"fool", "fool-2"} <= set(run.outputs())
    assert [one.untargeted for one in stored_fools(run)] == [False, True]
    same = fool("shapes:2:7", network, out, FoolOptions(**few, target="untargeted"))
    assert "fool-3" not in same.outputs()
    np.testing.assert_array_equal(run["fool-2.target"][:], run["fool-2.predicted"][:])
    with pytest.raises(FingerprintError, match="batch_rows"):
        fool("shapes:2:7", network, out, FoolOptions(**{**few, "batch_rows": 2}))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_kept_stays_in_the_box(network: Network, tmp_path: Path, dtype: str) -> None:
    few = {**QUICK, "step": None}
    options = FoolOptions(**few, method="fgsm", epsilon=8 / 255, dtype=dtype)
    run = fool("shapes:3:7", network, tmp_path / "run", options)
    assert run["fool"].dtype == np.dtype(dtype)
    assert float(np.abs(run["fool"][:].astype(np.float64)).max()) <= 8 / 255
    assert (run["fool.linf"][:] <= 8 / 255 + 2**-24).all()
    assert (run["fool.evaluations"][:] == 1).all()


def test_options_that_no_job_takes(network: Network, tmp_path: Path) -> None:
    for options, says in (
        ({"dtype": "int8"}, "no dtype 'int8'; there are float16 and float32"),
        ({"batch_rows": 0}, "batch_rows is 0"),
        ({"target": 16}, "no class 16"),
        ({"method": "magic"}, "no method 'magic'"),
    ):
        with pytest.raises(OptionError, match=says):
            fool(DATA, network, tmp_path / "run", FoolOptions(**options))
    assert not (tmp_path / "run").exists()


def typed(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    patch.setattr(sys, "argv", ["fc7", *map(str, words)])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_verb(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["fool", "shapes:3:7", "-m", "tiny-shapes", "--device", "cpu", "--batch", "3"]
    words += ["--step", "0.2", "--threads", "1", "--out", tmp_path / "run"]
    code, out, err = typed(capsys, monkeypatch, *words)
    assert (code, out) == (0, "")
    assert re.search(r"100 % of 3 images fool the network, \d+ % after rounding to 8 bits", err)
    code, out, _ = typed(capsys, monkeypatch, *words, "--json")
    assert code == 0
    outcome = json.loads(out)
    assert outcome["outcome"]["success"] == 1
    assert outcome["jobs"][0]["computed"] == 0
    words[words.index("shapes:3:7") :] = ["shapes:3:7", "-m", "tiny-shapes", "--target", "tench"]
    code, out, err = typed(capsys, monkeypatch, *words, "-o", tmp_path / "other")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "no class 'tench' in tiny-shapes" in err
    assert not (tmp_path / "other").exists()


def test_one_image_is_a_picture(
    network: Network,
    seen: Tensor,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "shape.png"
    Image.fromarray(seen[0].permute(1, 2, 0).numpy()).save(file)
    found = fool_file(file, network, FoolOptions(target="untargeted"))
    assert found.success
    assert found.became != found.predicted == found.target
    sheet = figure(found)
    assert [caption for _, caption in sheet.panels][:2] == [
        f"{found.predicted} {found.columns['probability'] * 100:.0f} %",
        f"{found.became} {found.columns['certainty'] * 100:.0f} %",
    ]
    factor = float(re.findall(r"difference, ([\d.]+) times", sheet.panels[2][1])[0])
    # The panel's middle grey is 128; the largest change reaches at least half of what is left.
    drawn = np.asarray(sheet.panels[2][0], np.float64) - 128
    most = np.abs(found.adversarial - found.clean).max()
    assert abs(np.abs(drawn).max() - 255 * factor * most) <= 1
    assert np.abs(drawn).max() >= 63
    words = ["fool", file, "-m", "tiny-shapes", "--device", "cpu", "-o", tmp_path / "fooled.png"]
    code, out, err = typed(capsys, monkeypatch, *words, "--target", "untargeted", "--json")
    assert code == 0, err
    assert json.loads(out)["became"] == found.became
    with Image.open(tmp_path / "fooled.png") as picture:
        assert picture.width > 3 * 300


def test_the_report_shows_it(network: Network, run: Run) -> None:
    page = write_report(run, network=network).read_text(encoding="utf-8")
    section = page.split('id="fool"')[1].split("</section>")[0]
    assert "100 % of 6 attacks fool the network" in section
    shown = [int(row) for row in re.findall(r"\(row (\d+)\)", section)]
    order = np.argsort(run["fool.l2"][:], kind="stable").tolist()
    assert shown[:4] == order[:4]
    assert sorted(shown) == list(range(ROWS))
    assert section.count("<img") == 3 * ROWS
    assert "up the margin by steps of 0.2" in section
    command = f"fc7 fool {DATA} --model tiny-shapes --step 0.2 --batch 3 --part-rows 4 --out"
    assert f"{command} {run.folder}" in page
