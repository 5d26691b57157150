"""Textures of a data set: what a run holds, how it resumes, its report, and the verb."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fc7.engine.cli.main import main
from fc7.engine.data.shape_drawing import render
from fc7.engine.errors import FingerprintError, OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.report.provenance import commands
from fc7.engine.report.subject import Subject
from fc7.engine.store import Run, verify
from fc7.engine.style.texture import TextureOptions, synthesise
from fc7.engine.style.texture_job import sample_keys, texture, texture_with_summary
from fc7.engine.style.texture_options import TextureJobOptions
from fc7.engine.synthesis.picture_files import as_array, read_picture

QUICK: dict[str, Any] = {
    "size": (32, 48),
    "layers": ("relu1", "pool2"),
    "evaluations": 3,
    "threads": 1,
    "part_rows": 3,
    "batch_rows": 2,
}
SIZES = [(20, 30), (33, 24), (20, 30), (20, 30)]


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Patches of two sizes, and a file that is bad."""
    images = tmp_path / "patches"
    images.mkdir()
    for row, (height, width) in enumerate(SIZES):
        drawn = Image.fromarray(render(8, row)[0].transpose(1, 2, 0))
        drawn.crop((9, 9, 9 + width, 9 + height)).save(images / f"{row}.png")
    (images / "2b.png").write_text("no image")
    return images


def picture(file: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(file)) as opened:
        return np.asarray(opened)


def test_a_run_holds_what_the_function_makes(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    run = texture(folder, network, tmp_path / "run", TextureJobOptions(**QUICK, samples=2))
    assert run.good.tolist() == [True, True, True, False, True]
    assert run["texture"][3] == run["texture.2"][3] == b""
    options = TextureOptions(size=(32, 48), layers=("relu1", "pool2"), evaluations=3)
    for row in (0, 1, 4):
        patch = read_picture(folder / run.rows["key"][row].as_py())[None].expand(2, -1, -1, -1)
        for sample, name in enumerate(("texture", "texture.2")):
            # As the job does, as many at once as it takes together.
            made = synthesise(network, patch, options, sample_keys(0, [row, row], sample))
            assert np.array_equal(picture(run[name][row]), as_array(made.images[0]))
            assert run["texture.before"][row, sample] == made.before[0].item()
            assert run["texture.after"][row, sample] == made.after[0].item()
            losses = [made.losses[f"style {layer}"][0].item() for layer in ("relu1", "pool2")]
            assert run["texture.losses"][row, sample].tolist() == losses
            curves = torch.stack([made.curves[f"style {one}"][0] for one in ("relu1", "pool2")])
            assert np.array_equal(run["texture.curves"][row, sample], curves.numpy())
    assert (run["texture.after"][:][run.good] < run["texture.before"][:][run.good]).all()
    assert verify(run) == []


def test_a_part_at_a_time_makes_the_same_bytes(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    whole = texture(folder, network, tmp_path / "whole", TextureJobOptions(**QUICK))
    for parts in ("1::2", "0::2"):
        options = TextureJobOptions(**QUICK, parts=parts)
        run, summary = texture_with_summary(folder, network, tmp_path / "run", options)
    assert summary.is_complete
    files = sorted(
        path.relative_to(run.folder) for path in run.folder.glob("jobs/*/texture*/part-*")
    )
    assert files
    for file in files:
        assert (run.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file


def test_textures_asked_for_differently_stand_side_by_side(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    def asked(**options: Any) -> tuple[Run, str, int]:
        changed = TextureJobOptions(**{**QUICK, **options})
        run, summary = texture_with_summary(folder, network, tmp_path / "run", changed)
        return run, summary.job, summary.computed

    assert asked()[1:] == ("texture", 5)
    assert asked(tileable=True, side=24)[1:] == ("texture-2", 5)
    assert asked(tileable=True, side=24)[1:] == ("texture-2", 0)
    with pytest.raises(FingerprintError, match="batch_rows"):
        asked(batch_rows=3)
    run = asked()[0]
    page = write_report(run, network=network).read_text(encoding="utf-8")
    section = page.split('id="texture"')[1].split("</section>")[0]
    assert section.count("<img") == 2 * 2 * 4
    assert "relu1, pool2; average pooling; 2 octaves; tileable, shown twice each way" in section
    assert "4 patches" in section
    _, line = [one for one in commands(Subject(run, network, None, 0)) if "fc7 texture" in one]
    assert (
        "--size 32x48 --layers relu1,pool2 --tileable --evaluations 3 --side 24 --batch 2 "
        "--part-rows 3" in line
    )


def test_what_is_too_small_is_named(folder: Path, tmp_path: Path, network: Network) -> None:
    Image.new("RGB", (9, 5)).save(folder / "0a.png")
    options = TextureJobOptions(**{**QUICK, "layers": ("pool5",)})
    with pytest.raises(OptionError, match=r"0a\.png: a patch of 5 x 9 .* at least"):
        texture(folder, network, tmp_path / "run", options)


def typed(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    given = ["fc7", "texture", *map(str, words), "--model", "tiny-shapes", "--device", "cpu"]
    patch.setattr(sys, "argv", given)
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    assert isinstance(code, int)
    return code, out, err


FEW = ("--layers", "relu1,pool2", "--evaluations", 3)


def test_the_verb_writes_the_textures_of_one_patch(
    folder: Path,
    tmp_path: Path,
    network: Network,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "made.png"
    words = (folder / "0.png", *FEW, "--samples", 2, "--out", out)
    code, said, err = typed(capsys, monkeypatch, *words, "--json")
    assert code == 0, err
    found = json.loads(said)
    patch = read_picture(folder / "0.png")[None]
    options = TextureOptions(layers=("relu1", "pool2"), evaluations=3)
    for sample, one in enumerate(found["pictures"]):
        made = synthesise(network, patch, options, sample_keys(0, [0], sample))
        name = ("made.png", "made-2.png")[sample]
        assert one["picture"] == str(tmp_path / name)
        assert np.array_equal(picture((tmp_path / name).read_bytes()), as_array(made.images[0]))
        assert (one["before"], one["after"]) == (made.before.item(), made.after.item())
    assert found["octaves"] == [[20, 30], [40, 60]]
    code, said, err = typed(capsys, monkeypatch, *words)
    assert (code, said) == (0, "")
    assert "40 x 60 pixels; of the noise's loss" in err


def test_the_verb_makes_textures_of_a_folder(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (folder, *FEW, "--size", 32, "--out", tmp_path / "run", "--json")
    code, said, err = typed(capsys, monkeypatch, *words)
    assert code == 0, err
    assert json.loads(said)["jobs"][0]["job"] == "texture"
    code, said, _ = typed(capsys, monkeypatch, *words)
    assert json.loads(said)["jobs"][0]["computed"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("0.png", "--layers", "relu9", "--out", "t.png"), "relu9"),
        (("0.png", "--layers", "relu1=x", "--out", "t.png"), "no weight above 0"),
        (("0.png", "--side", 3, "--out", "t.png"), "a patch of 2 x 3 pixels does not reach"),
        (("0.png", "--size", 4, "--out", "t.png", "--layers", "pool5"), "does not reach"),
        (("0.png", "--size", "33x48", "--tileable", "--out", "t.png"), "ask for 40 x 48"),
        (("2b.png", *FEW, "--out", "t.png"), "not-an-image"),
        (("0.png", *FEW, "--out", "run"), "is one image"),
        (("0.png", "--pooling", "min", "--out", "t.png"), "no pooling 'min'"),
        (("0.png", "--histogram", "rgb", "--out", "t.png"), "no histogram 'rgb'"),
        (("missing.png", *FEW, "--out", "t.png"), "is not an image file"),
    ],
)
def test_what_was_asked_wrong_is_said_in_a_line(
    folder: Path,
    words: tuple[object, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = typed(capsys, monkeypatch, *words)
    assert code != 0
    assert message in err
    assert err.count("\n") == 1
    assert not list(folder.glob("t*"))
