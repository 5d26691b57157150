"""Styles of a data set: what a run holds, to which bytes it resumes, the page, and the verbs."""

import errno
import io
import json
import os
import resource
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
from fc7.engine.report import write_report
from fc7.engine.report.provenance import commands
from fc7.engine.report.subject import Subject
from fc7.engine.store import Run, open_store, verify
from fc7.engine.style.fast.options import StylizeOptions
from fc7.engine.style.fast.paintings import read_paintings
from fc7.engine.style.fast.stylizer import Stylizer, load_stylizer, save_stylizer
from fc7.engine.style.fast.transformer import Architecture, Transformer
from fc7.engine.style.fast.workflow import stylize, stylize_with_summary
from fc7.engine.synthesis.picture_files import as_array, encode_picture, read_picture

QUICK: dict[str, Any] = {"threads": 1, "part_rows": 4, "batch_rows": 2}
SIZES = [(40, 50), (33, 64), (40, 50), (40, 50), (64, 33), (33, 64), (3, 5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Drawings of four sizes, and a file that is bad."""
    images = tmp_path / "images"
    images.mkdir()
    for row, (height, width) in enumerate(SIZES):
        drawn = Image.fromarray(render(8, row)[0].transpose(1, 2, 0))
        drawn.resize((width, height), Image.Resampling.BICUBIC).save(images / f"{row}.png")
    (images / "2b.png").write_text("no image")
    return images


@pytest.fixture
def file(folder: Path, tmp_path: Path) -> Path:
    """A network of two styles that is as it was drawn."""
    paintings = read_paintings([folder / "0.png", folder / "1.png"], 64)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        model = Transformer(Architecture(4, 1, styles=2))
        for name, parameter in model.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(parameter, 1.0 if "weight" in name else 0.0, 0.3)
    styles = {name: one.picture for name, one in zip(("scream", "waves"), paintings, strict=True)}
    save_stylizer(Stylizer(model.eval(), styles), tmp_path / "two.safetensors")
    return tmp_path / "two.safetensors"


def picture(content: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(opened)


def test_a_run_holds_what_the_network_makes(folder: Path, file: Path, tmp_path: Path) -> None:
    run = stylize(folder, file, tmp_path / "run", StylizeOptions(**QUICK))
    assert list(run.outputs()) == ["stylize.scream", "stylize.waves"]
    assert run.good.tolist() == [True] * 3 + [False] + [True] * 4
    assert run["stylize.waves"][3] == b""
    stylizer = load_stylizer(file, "cpu")
    rows = [row for row in range(8) if row != 3]
    for row, size in zip(rows, SIZES, strict=True):
        x = read_picture(folder / run.rows["key"][row].as_py())[None]
        for number, style in enumerate(("scream", "waves")):
            # As the job does, as many at once as it takes together.
            shares = (1.0 - number, float(number))
            expected = stylizer(x.expand(2, -1, -1, -1), shares)[0]
            found = picture(run[f"stylize.{style}"][row])
            assert found.shape == (*size, 3)
            assert np.array_equal(found, as_array(expected))
    assert verify(run) == []


def test_a_part_at_a_time_makes_the_same_bytes(folder: Path, file: Path, tmp_path: Path) -> None:
    whole = stylize(folder, file, tmp_path / "whole", StylizeOptions(**QUICK))
    for parts in ("1::2", "0::2"):
        options = StylizeOptions(**QUICK, parts=parts)
        run, summary = stylize_with_summary(folder, file, tmp_path / "run", options)
    assert summary.is_complete
    small = stylize(folder, file, tmp_path / "small", StylizeOptions(**{**QUICK, "part_rows": 1}))
    for name in whole.outputs():
        for row in range(8):
            assert run[name][row] == small[name][row] == whole[name][row]


def test_what_is_asked_differently_stands_beside(folder: Path, file: Path, tmp_path: Path) -> None:
    def asked(**options: Any) -> tuple[Run, str, int]:
        changed = StylizeOptions(**{**QUICK, **options})
        run, summary = stylize_with_summary(folder, file, tmp_path / "run", changed)
        return run, summary.job, summary.computed

    assert asked(style="waves")[1:] == ("stylize", 8)
    assert asked(style="scream,waves")[1:] == ("stylize-2", 8)
    assert asked(style="scream=1,waves=1")[1:] == ("stylize-2", 0)
    assert asked(form="webp", side=20)[1:] == ("stylize-3", 8)
    run, *again = asked(style="waves=2")
    assert again == ["stylize", 0]
    assert run["stylize-3.scream"][0].startswith(b"RIFF")
    assert picture(run["stylize-3.waves"][1]).shape == (10, 20, 3)
    with pytest.raises(FingerprintError, match="batch_rows"):
        asked(style="waves", batch_rows=3)
    for options, message in (
        ({"style": "nobody"}, "no style 'nobody'"),
        ({"form": "gif"}, "no format 'gif'"),
        ({"side": 0}, "side is 0"),
        ({"batch_rows": 0}, "batch_rows is 0"),
    ):
        with pytest.raises(OptionError, match=message):
            asked(**options)


def test_the_page_shows_content_style_and_result(folder: Path, file: Path, tmp_path: Path) -> None:
    run = stylize(folder, file, tmp_path / "run", StylizeOptions(**QUICK, style="scream=3,waves"))
    page = write_report(run).read_text(encoding="utf-8")
    section = page[page.index('id="stylize"') :].partition("</section>")[0]
    assert "75 % scream, 25 % waves" in section
    # Four images, each with both styles and what came of it.
    assert section.count("<img") == 4 * 4
    command = commands(Subject(run, None, None, 0))[0]
    words = f"--network {file} --style scream=3,waves --batch 2 --part-rows 4"
    assert command == f"fc7 stylize apply {folder} {words} --out {run.folder}"


def typed(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    patch.setattr(sys, "argv", ["fc7", "stylize", *map(str, words), "--device", "cpu"])
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    assert isinstance(code, int)
    return code, out, err


def test_the_verb_writes_one_picture(
    folder: Path,
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, image = tmp_path / "a.png", folder / "1.png"
    words = ("apply", image, "--network", file, "--out", out)
    code, said, err = typed(capsys, monkeypatch, *words, "--style", "waves", "--json")
    assert code == 0, err
    assert json.loads(said)["styles"] == {"waves": 1.0}
    expected = load_stylizer(file, "cpu")(read_picture(image)[None], (0.0, 1.0))[0]
    assert out.read_bytes() == encode_picture(expected) or np.array_equal(
        picture(out.read_bytes()), as_array(expected)
    )
    code, said, err = typed(capsys, monkeypatch, *words, "--style", "waves,scream=3")
    assert (code, said) == (0, "")
    assert "33 x 64 pixels, 75 % scream, 25 % waves" in err
    code, _, err = typed(capsys, monkeypatch, *words)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "the network has the styles scream, waves; name one with --style" in err
    code, _, err = typed(capsys, monkeypatch, "apply", folder, "-n", folder / "1.png", "-o", out)
    assert code == 2
    assert "can show one image only" in err
    code, _, err = typed(capsys, monkeypatch, "apply", image, "-n", image, "-o", out)
    assert code == 1
    assert "is no .safetensors file; fc7 stylize train makes such a network" in err


def test_the_verbs_train_and_apply(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, extra = tmp_path / "trained", tmp_path / "mine.safetensors"
    few = ("--steps", 2, "--batch", 1, "--crop", 24, "--width", 2, "--blocks", 1, "--threads", 1)
    few += ("--style-layers", "relu1,relu2=3", "--content-layers", "relu2")
    words = ("train", "shapes:3:1", "--model", "tiny-cifar10", "--style", folder / "0.png", *few)
    code, said, err = typed(capsys, monkeypatch, *words, "--out", run, "--export", extra, "--json")
    assert code == 0, err
    found = json.loads(said)
    assert found["network"] == str(run / "jobs/stylizer/result/network.safetensors")
    assert found["styles"] == ["0"]
    assert load_stylizer(extra, "cpu").digest == load_stylizer(found["network"], "cpu").digest
    code, said, err = typed(capsys, monkeypatch, *words, "--out", run)
    assert code == 0, err
    assert "content relu2" in said
    assert "network.safetensors is the network of 0; fc7 stylize apply DATA --network" in err
    command = commands(Subject(open_store(run), None, None, 0))[0]
    assert command == (
        f"fc7 stylize train shapes:3:1 --model tiny-cifar10 --style {folder / '0.png'} "
        "--style-layers relu1=0.25,relu2=0.75 --content-layers relu2=1.0 --steps 2 --batch 1 "
        f"--crop 24 --width 2 --blocks 1 --out {run}"
    )
    out = tmp_path / "applied"
    code, said, err = typed(
        capsys, monkeypatch, "apply", "shapes:3:2", "-n", run, "-o", out, "--json"
    )
    assert code == 0, err
    assert json.loads(said)["jobs"][0]["computed"] == 3
    assert list(open_store(out).outputs()) == ["stylize"]
    for wrong, message in (
        (("--out", tmp_path / "a.onnx"), "write the network with --export"),
        (("--out", run, "--export", tmp_path / "a.pt"), "must end in .safetensors or .onnx"),
        (("--out", run, "--style", tmp_path / "none.png"), "name an image file"),
    ):
        code, _, err = typed(capsys, monkeypatch, *words, *wrong)
        assert code == 2
        assert len(err.splitlines()) == 1, err
        assert message in err


def test_a_full_disk_is_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("train", "shapes:3:1", "--model", "tiny-cifar10", "--style", folder / "0.png")
    words += ("--steps", 1, "--crop", 24, "--width", 8, "--out", tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # the network takes 500,000
    try:
        code, _, err = typed(capsys, monkeypatch, *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    assert len(err.splitlines()) == 1, err
    assert os.strerror(errno.EFBIG) in err
    assert "the same command continues" in err
    assert not list(tmp_path.rglob("*.tmp"))
