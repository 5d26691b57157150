"""The verb dream: one image, a folder, frames of a zoom, and what it refuses in a line."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fc7.engine.cli.main import main
from fc7.engine.data.shape_drawing import render
from fc7.engine.models import Network, load_model
from fc7.engine.synthesis.dream import DreamOptions, dream_images
from fc7.engine.synthesis.objectives import channel
from fc7.engine.synthesis.picture_files import as_array, encode_picture, read_picture
from fc7.engine.synthesis.zoom import dream_zoom

SIZES = [(40, 50), (33, 64), (40, 50), (40, 50), (64, 33), (33, 64), (40, 50)]


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Drawings of three sizes, and a file that is bad."""
    images = tmp_path / "images"
    images.mkdir()
    for row, (height, width) in enumerate(SIZES):
        drawn = Image.fromarray(render(8, row)[0].transpose(1, 2, 0))
        drawn.resize((width, height), Image.Resampling.BICUBIC).save(images / f"{row}.png")
    (images / "2b.png").write_text("no image")
    return images


def picture(file: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(file)) as opened:
        return np.asarray(opened)


def typed(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    given = ["fc7", "dream", *map(str, words), "--model", "tiny-shapes", "--device", "cpu"]
    patch.setattr(sys, "argv", given)
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    assert isinstance(code, int)
    return code, out, err


FEW = ("--layer", "conv3", "--octaves", 2, "--steps", 2)


def test_the_verb_writes_the_dream_of_one_image(
    folder: Path,
    tmp_path: Path,
    network: Network,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, options = tmp_path / "dream.png", DreamOptions(octaves=2, steps=2)
    code, said, err = typed(
        capsys, monkeypatch, folder / "1.png", *FEW, "--channel", 3, "--out", out, "--json"
    )
    assert code == 0, err
    found = json.loads(said)
    expected = dream_images(
        network, read_picture(folder / "1.png")[None], channel("conv3", 3), options
    )
    assert np.array_equal(picture(out.read_bytes()), as_array(expected.images[0]))
    assert found["octaves"] == [[24, 46], [33, 64]]
    assert (found["before"], found["after"]) == (expected.before.item(), expected.after.item())
    assert found["gain"] == expected.gain.item()
    code, said, err = typed(capsys, monkeypatch, folder / "1.png", *FEW, "--out", out)
    assert (code, said) == (0, "")
    assert "octaves of 24 x 46, 33 x 64" in err


def test_the_verb_dreams_of_a_folder(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (folder, *FEW, "--guide", folder / "3.png", "--out", tmp_path / "run", "--json")
    code, said, err = typed(capsys, monkeypatch, *words)
    assert code == 0, err
    outcome = json.loads(said)
    assert outcome["rows"] == 8
    assert outcome["jobs"][0]["job"] == "dream"
    code, said, _ = typed(capsys, monkeypatch, *words)
    assert json.loads(said)["jobs"][0]["computed"] == 0


def test_frames_go_on_after_a_stop(
    folder: Path,
    tmp_path: Path,
    network: Network,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, said, err = typed(
        capsys, monkeypatch, folder / "0.png", *FEW, "--zoom", 3, "--out", whole, "--json"
    )
    assert code == 0, err
    found = json.loads(said)
    assert found["frames"] == 3
    with Image.open(found["animation"]) as animation:
        assert animation.n_frames == 3  # type: ignore[attr-defined]
        assert animation.size == (50, 40)
    names = [f"frame-000{number}.png" for number in (1, 2, 3)]
    frames = dream_zoom(
        network, read_picture(folder / "0.png")[None], "conv3", 3,
        options=DreamOptions(octaves=2, steps=2),
    )  # fmt: skip
    for name, frame in zip(names, frames, strict=True):
        assert (whole / name).read_bytes() == encode_picture(frame.images[0])
    assert typed(capsys, monkeypatch, folder / "0.png", *FEW, "--zoom", 1, "--out", cut)[0] == 0
    assert not (cut / names[1]).exists()
    assert typed(capsys, monkeypatch, folder / "0.png", *FEW, "--zoom", 3, "--out", cut)[0] == 0
    for name in names:
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    code, _, err = typed(capsys, monkeypatch, folder / "1.png", *FEW, "--zoom", 3, "--out", cut)
    assert code == 2
    assert "holds frames made otherwise" in err
    assert not list(cut.glob(".*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("0.png", "--layer", "conv9", "--out", "d.png"), "conv9"),
        (("0.png", "--layer", "fc7", "--out", "d.png"), "takes 64 x 64 pixels, no others"),
        (("0.png", *FEW, "--guide", "2b.png", "--out", "d.png"), "the guide 2b.png: not-an-image"),
        (("0.png", *FEW, "--tile", 2, "--out", "d.png", "--layer", "pool5"), "a tile of 2 x 2"),
        (("0.png", *FEW, "--out", "run"), "is one image"),
        (("0.png", *FEW, "--zoom", 2, "--out", "d.png"), "name a folder"),
        (("shapes:3:0", *FEW, "--zoom", 2, "--out", "d"), "is not an image file"),
        (("0.png", *FEW, "--zoom", 2, "--zoom-factor", 0.5, "--out", "d"), "zoom is 0.5"),
        (("0.png", *FEW, "--ratio", 1, "--out", "d.png"), "ratio is 1"),
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
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not list(folder.glob("d*"))
