"""Dreams of a data set: what a run holds, to which bytes it resumes, and the verb."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fc7.engine.data.shape_drawing import render
from fc7.engine.errors import FingerprintError, OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.report.dream import chosen
from fc7.engine.report.provenance import commands
from fc7.engine.report.subject import Subject
from fc7.engine.store import Run, verify
from fc7.engine.synthesis.dream import DreamOptions, dream_images
from fc7.engine.synthesis.dream_options import DreamJobOptions
from fc7.engine.synthesis.guide import guided_by
from fc7.engine.synthesis.objectives import channel
from fc7.engine.synthesis.picture_files import as_array, encode_picture, fit, read_picture, rounded
from fc7.engine.synthesis.workflow import dream, dream_with_summary

QUICK: dict[str, Any] = {
    "layer": "conv3",
    "octaves": 2,
    "steps": 2,
    "threads": 1,
    "part_rows": 4,
    "batch_rows": 2,
}
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


def test_a_run_holds_what_the_function_makes(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    run = dream(folder, network, tmp_path / "run", DreamJobOptions(**QUICK, channel=5))
    assert run.good.tolist() == [True] * 3 + [False] + [True] * 4
    assert run["dream"][3] == b""
    rows = [row for row in range(8) if row != 3]
    options = DreamOptions(octaves=2, steps=2)
    for row, size in zip(rows, SIZES, strict=True):
        name = run.rows["key"][row].as_py()
        x = read_picture(folder / name)[None]
        assert tuple(x.shape[2:]) == size
        # As the job does, as many at once as it takes together.
        expected = dream_images(network, x.expand(2, -1, -1, -1), channel("conv3", 5), options)
        assert np.array_equal(picture(run["dream"][row]), as_array(expected.images[0]))
        assert run["dream.before"][row] == expected.before[0].item()
        assert run["dream.after"][row] == expected.after[0].item()
        assert run["dream.gain"][row] == expected.gain[0].item()
        assert run["dream.gain"][row] > 0
    assert verify(run) == []


def test_a_part_at_a_time_makes_the_same_bytes(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    """And so do other parts: how many rows of a size are left over for each does not matter."""
    whole = dream(folder, network, tmp_path / "whole", DreamJobOptions(**QUICK))
    for parts in ("1::2", "0::2"):
        options = DreamJobOptions(**QUICK, parts=parts)
        run, summary = dream_with_summary(folder, network, tmp_path / "run", options)
    assert summary.is_complete
    files = sorted(path.relative_to(run.folder) for path in run.folder.glob("jobs/*/dream*/part-*"))
    assert files
    for file in files:
        assert (run.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file
    small = dream(folder, network, tmp_path / "small", DreamJobOptions(**{**QUICK, "part_rows": 1}))
    for row in range(8):
        assert small["dream"][row] == whole["dream"][row]
        np.testing.assert_array_equal(small["dream.gain"][row], whole["dream.gain"][row])


def test_dreams_asked_for_differently_stand_side_by_side(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    def asked(**options: Any) -> tuple[Run, str, int]:
        changed = DreamJobOptions(**{**QUICK, **options})
        run, summary = dream_with_summary(folder, network, tmp_path / "run", changed)
        return run, summary.job, summary.computed

    assert asked()[1:] == ("dream", 8)
    assert asked(layer="relu3")[1:] == ("dream-2", 8)
    guide = tmp_path / "guide.png"
    guide.write_bytes((folder / "4.png").read_bytes())
    assert asked(guide=guide, form="webp")[1:] == ("dream-3", 8)
    assert asked(guide=str(guide), form="webp")[1:] == ("dream-3", 0)
    run, *again = asked(octaves=2)
    assert again == ["dream", 0]
    assert run["dream-3"][0].startswith(b"RIFF")
    guided = guided_by(network, "conv3", read_picture(guide))
    x = read_picture(folder / "0.png").expand(2, -1, -1, -1)
    expected = dream_images(network, x, guided, DreamOptions(octaves=2, steps=2))
    assert run["dream-3.after"][0] == expected.after[0].item()
    guide.write_bytes((folder / "5.png").read_bytes())  # another guide of the same name
    assert asked(guide=guide, form="webp", layer="conv3")[1] == "dream-4"
    with pytest.raises(FingerprintError, match="batch_rows"):
        asked(batch_rows=3)


def test_images_are_resized_where_that_is_asked(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    run = dream(folder, network, tmp_path / "run", DreamJobOptions(**QUICK, side=80))
    assert picture(run["dream"][0]).shape == (64, 80, 3)
    assert picture(run["dream"][5]).shape == (80, 41, 3)
    image = torch.zeros(3, 7, 1000, dtype=torch.uint8)
    assert fit(image, 50).shape == (3, 1, 50)
    assert fit(image, None) is image


def test_what_is_too_small_is_named(folder: Path, tmp_path: Path, network: Network) -> None:
    Image.new("RGB", (9, 5)).save(folder / "0a.png")
    with pytest.raises(OptionError, match=r"0a\.png: an image of 5 x 9 .* at least") as caught:
        dream(folder, network, tmp_path / "run", DreamJobOptions(**{**QUICK, "layer": "pool5"}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": ""}, "which layer"),
        ({"channel": 4096}, "name one from 0 to"),
        ({"channel": 1, "guide": "x.png"}, "two questions"),
        ({"guide": "missing.png"}, "the guide missing.png: missing"),
        ({"guide": __file__}, "not-an-image"),
        ({"guide": "x.png", "layer": "fc7"}, "the guide x.png"),
        ({"form": "gif"}, "no format 'gif'"),
        ({"side": 0}, "side is 0"),
        ({"threads": 0}, "threads 0"),
        ({"octaves": -1}, "octaves is -1"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_written(
    tmp_path: Path, network: Network, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        dream("shapes:3:0", network, tmp_path / "run", DreamJobOptions(**{**QUICK, **options}))
    assert not (tmp_path / "run").exists()


def test_the_report_shows_before_and_after(folder: Path, tmp_path: Path, network: Network) -> None:
    options = DreamJobOptions(**QUICK, guide=folder / "3.png", jitter=0)
    run = dream(folder, network, tmp_path / "run", options)
    page = write_report(run, network=network).read_text(encoding="utf-8")
    section = page.split('id="dream"')[1].split("</section>")[0]
    assert section.count("<img") == 2 * 7
    assert "what conv3 sees of 3.png; 2 octaves of 2 steps, each larger by 1.4" in section
    assert "Most gained" in section
    (line,) = [line for line in commands(Subject(run, network, None, 0)) if "dream" in line]
    assert (
        "--layer conv3 --guide 3.png --octaves 2 --steps 2 --jitter 0 --batch 2 --part-rows 4"
        in line
    )
    gains = np.array([3, 1, 2, 5, 4], np.float32)
    assert chosen(gains, 2) == [("Most", [3, 4]), ("Least", [1, 2])]
    assert chosen(gains, 4) == [("Most", [3, 4, 0, 2]), ("Least", [1])]


def test_levels_survive_a_file(tmp_path: Path) -> None:
    x: Tensor = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "x.png"
    file.write_bytes(encode_picture(x))
    assert torch.equal(read_picture(file), rounded(x))
    assert torch.equal(rounded(rounded(x)), rounded(x))
