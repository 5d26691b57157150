"""Contents by styles as a job, its report, and the verb: what they make, and what they refuse."""

import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fc7.engine.cli.main import main
from fc7.engine.data.pairs import PairsSource, pairs_of
from fc7.engine.data.shape_drawing import render
from fc7.engine.errors import FingerprintError, OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.report.commands import synthesis_commands
from fc7.engine.report.curves import loss_curves
from fc7.engine.store import verify
from fc7.engine.style.transfer import Look, Transfer
from fc7.engine.style.transfer_options import StyleJobOptions, StyleOptions
from fc7.engine.style.transfer_workflow import style, style_with_summary
from fc7.engine.synthesis.picture_files import as_array, read_picture

QUICK: dict[str, Any] = {"evaluations": 2, "threads": 1, "part_rows": 4, "batch_rows": 2}
CONTENTS = {"a.png": (28, 40), "b.png": (40, 28), "c.png": (28, 40)}
STYLES = {"x.png": (30, 30), "z.png": (20, 44)}


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


def draw(folder: Path, sizes: dict[str, tuple[int, int]], seed: int) -> Path:
    folder.mkdir()
    for row, (name, (height, width)) in enumerate(sizes.items()):
        drawn = Image.fromarray(render(seed, row)[0].transpose(1, 2, 0))
        drawn.resize((width, height), Image.Resampling.BICUBIC).save(folder / name)
    return folder


@pytest.fixture
def contents(tmp_path: Path) -> Path:
    return draw(tmp_path / "contents", CONTENTS, 8)


@pytest.fixture
def styles(tmp_path: Path) -> Path:
    folder = draw(tmp_path / "styles", STYLES, 9)
    (folder / "y.png").write_text("no image")
    return folder


def picture(file: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(file)) as opened:
        return np.asarray(opened)


def test_a_run_holds_every_content_in_every_style(
    contents: Path, styles: Path, tmp_path: Path, network: Network
) -> None:
    options = StyleJobOptions(**QUICK, scales=2, ratio=1.2)
    run = style(contents, [styles], network, tmp_path / "run", options)
    assert run.good.tolist() == [True, False, True] * 3
    transfer = Transfer(network, StyleOptions(evaluations=2, scales=2, ratio=1.2), together=2)
    terms = [*transfer.judge.terms, "variation"]
    for row, (content, size) in enumerate(CONTENTS.items()):
        for place, name in ((0, "x.png"), (2, "z.png")):
            at = 3 * row + place
            assert run.rows["key"][at].as_py() == f"{content}|{name}"
            x = read_picture(contents / content)[None]
            look = Look([read_picture(styles / name)])
            # As the job does, as many at once as it takes together.
            expected = transfer(x.expand(2, -1, -1, -1).contiguous(), [look, look])
            assert picture(run["style"][at]).shape == (*size, 3)
            assert np.array_equal(picture(run["style"][at]), as_array(expected.images[0]))
            curves = torch.stack([expected.curves[term][0] for term in terms]).numpy()
            assert np.array_equal(run["style.curve"][at], curves)
            assert np.array_equal(run["style.first"][at], curves[:, 0])
            assert np.array_equal(run["style.last"][at], curves[:, -1])
            assert int(run["style.evaluations"][at]) == 4
    assert run["style"][1] == b""
    assert not verify(run)
    (job,) = run.jobs().values()
    assert job.outputs["style"].attributes["terms"] == terms
    again, summary = style_with_summary(
        pairs_of(contents, [styles]), network, tmp_path / "run", options
    )
    assert summary.computed == 0
    # Part after part, in two tasks, with other company than in one.
    halves = tmp_path / "halves"
    for parts in ("1::2", "0::2"):
        told = StyleJobOptions(**QUICK, scales=2, ratio=1.2, parts=parts)
        made = style(contents, [styles], network, halves, told)
    assert [made["style"][row] for row in range(9)] == [again["style"][row] for row in range(9)]


def test_pictures_asked_for_differently_stand_side_by_side(
    contents: Path, styles: Path, tmp_path: Path, network: Network
) -> None:
    out = tmp_path / "run"
    source = pairs_of(contents, [styles / "x.png", styles / "z.png"], together=True)

    def asked(**options: Any) -> tuple[str, int]:
        changed = StyleJobOptions(**{**QUICK, "evaluations": 1, **options})
        summary = style_with_summary(source, network, out, changed)[1]
        return summary.job, summary.computed

    assert asked(mix=(1, 1)) == ("style", 3)
    assert asked() == ("style", 0)  # alike is what no mix means
    assert asked(mix=(3, 1)) == ("style-2", 3)
    assert asked(keep_colours=True, side=36, form="webp") == ("style-3", 3)
    assert asked(mix=(6.0, 2.0)) == ("style-2", 0)
    with pytest.raises(FingerprintError, match="batch_rows"):
        asked(batch_rows=3)
    with pytest.raises(OptionError, match="2 styles and 3 weights"):
        asked(mix=(1, 1, 1))
    run, _ = style_with_summary(source, network, out, StyleJobOptions(**QUICK))
    assert run["style-3"][0].startswith(b"RIFF")
    assert picture(run["style-3"][1]).shape == (36, 25, 3)


def test_the_report_shows_contents_styles_and_pictures(
    contents: Path, styles: Path, tmp_path: Path, network: Network
) -> None:
    out = tmp_path / "run"
    options = StyleJobOptions(
        **QUICK, mix=(3, 1), style_scale=0.8, style_layers=("relu1=2", "relu2"), scales=2
    )
    names = [styles / "x.png", styles / "z.png"]
    run = style(contents, names, network, out, options)
    page = write_report(run, network=network).read_text(encoding="utf-8")
    section = page.split('id="style"')[1].split("</section>")[0]
    assert section.count("<img") == 3 * 4
    assert section.count("<polyline") == 3 * 4  # two layers of style, one of content, variation
    assert "mixed 0.75 : 0.25, strokes \u00d7 0.8, 2 scales, 2 evaluations" in section
    assert "a.png|x.png+z.png" in section
    (command,) = synthesis_commands(run).values()
    words = shlex.split(command)
    named = [word for name in names for word in ("--style", str(name))]
    assert words[:7] == ["fc7", "style", str(contents), *named]
    said = {
        "--mix": "3,1",
        "--style-layers": "relu1=2,relu2",
        "--scales": "2",
        "--evaluations": "2",
        "--batch": "2",
        "--out": str(out),
    }
    for option, value in said.items():
        assert words[words.index(option) + 1] == value
    (contents / "a.png").unlink()
    page = write_report(run, network=network).read_text(encoding="utf-8")
    assert "the images cannot be had any more" in page


def test_curves_fall_to_the_right() -> None:
    falling = np.geomspace(1, 1e-3, 50).astype(np.float32)
    drawn = loss_curves({"one": falling, "none": np.zeros(50, np.float32)})
    assert drawn is not None
    assert drawn.count("<polyline") == 1
    points = drawn.split('points="')[1].split('"')[0].split()
    across, down = np.array([point.split(",") for point in points], float).T
    # On a logarithmic scale a straight line from corner to corner.
    np.testing.assert_allclose(np.diff(across), np.diff(across)[0], atol=0.11)
    np.testing.assert_allclose(down, np.linspace(down[0], down[-1], len(down)), atol=0.11)
    assert (across[0], down[0]) == (1, 1)
    assert down[-1] > down[0]
    assert "one 1 → 0.001" in drawn
    assert loss_curves({"none": np.zeros(5, np.float32)}) is None


def typed(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    given = ["fc7", "style", *map(str, words), "--model", "tiny-shapes", "--device", "cpu"]
    patch.setattr(sys, "argv", [*given, "--evaluations", "2"])
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    assert isinstance(code, int)
    return code, out, err


def test_the_verb_paints_one_or_many(
    contents: Path,
    styles: Path,
    tmp_path: Path,
    network: Network,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, one = tmp_path / "one.png", contents / "a.png"
    both = ("--style", styles / "x.png", "-s", styles / "z.png")
    code, told, err = typed(
        capsys, monkeypatch, one, *both, "--mix", "3,1", "--keep-colours", "--out", out, "--json"
    )
    assert code == 0, err
    look = Look([read_picture(styles / name) for name in ("x.png", "z.png")], (3, 1))
    transfer = Transfer(network, StyleOptions(evaluations=2, keep_colours=True), (28, 40))
    expected = transfer(read_picture(one)[None], [look])
    assert np.array_equal(picture(out.read_bytes()), as_array(expected.images[0]))
    found = json.loads(told)
    assert found["last"].keys() == expected.curves.keys()
    assert found["last"]["variation"] == float(expected.curves["variation"][0, -1])
    # One content goes with a folder of styles as well, one of which is bad.
    words = (one, "--style", styles, "--side", 30, "--out", tmp_path / "run", "--strict")
    code, _, err = typed(capsys, monkeypatch, *words, "--batch", 2)
    assert code == 3, err
    assert "style: 3 rows" in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["contents", "-s", "missing.png", "-o", "run"], 1, r"missing.png: missing"),
        (["contents", "-s", "styles/y.png", "-o", "run"], 1, "y.png: not-an-image"),
        (["nowhere", "-s", "styles/x.png", "-o", "run"], 1, "there is no 'nowhere'"),
        (["contents", "-s", "styles/x.png", "--mix", "1,1", "-o", "run"], 2, "1 styles and 2"),
        (["contents", "-s", "styles/x.png", "--mix", "a", "-o", "run"], 2, "'a' is no list"),
        (["contents", "-s", "styles/x.png", "-o", "a.png"], 2, "contents is no image file"),
        (["contents/a.png", "-s", "styles", "-o", "a.png"], 2, "one picture, not 3"),
        (["contents", "-s", "styles/x.png", "--side", "3", "-o", "run"], 2, "does not reach relu"),
        (
            ["contents", "-s", "styles/x.png", "--style-scale", ".1", "-o", "run"],
            2,
            "style x.png becomes",
        ),
        (["contents", "-s", "styles/x.png", "--style-layers", "relu9", "-o", "run"], 2, "relu9"),
        (["contents", "-s", "styles/x.png", "--start", "grey", "-o", "run"], 2, "no start 'grey'"),
        (["contents", "-s", "styles/x.png", "--weights", "no.pt", "-o", "run"], 1, "no.pt"),
    ],
)
def test_the_verb_refuses_in_a_line(
    contents: Path,
    styles: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = typed(capsys, monkeypatch, *words)
    assert found == code, err
    assert message in err
    if message != "'a' is no list":  # typer frames its own
        assert err.strip().count("\n") == 0, err
    assert not (tmp_path / "a.png").exists()


def test_a_spec_says_what_was_paired(contents: Path, styles: Path, tmp_path: Path) -> None:
    run = style(contents, [styles / "x.png"], "tiny-shapes", tmp_path / "run",
                StyleJobOptions(**QUICK))  # fmt: skip
    assert run.meta["source"]["kind"] == PairsSource.kind
    assert run.meta["source"]["spec"] == f"pairs:{contents}|{styles / 'x.png'}"


def test_layers_keep_their_order_in_a_run(
    network: Network, contents: Path, styles: Path, tmp_path: Path
) -> None:
    """The columns of losses are in it: the same layers in another order are another job."""
    for order in (("relu1", "relu3"), ("relu3", "relu1")):
        options = StyleJobOptions(evaluations=1, style_layers=order, content_weight=0, threads=1)
        run = style(contents, [styles / "x.png"], network, tmp_path / "run", options)
    assert {"style", "style-2"} <= set(run.jobs())
    for name, order in (("style", ("relu1", "relu3")), ("style-2", ("relu3", "relu1"))):
        terms = run.job(name).outputs[name].attributes["terms"]
        assert terms == [*(f"style {layer}" for layer in order), "variation"]
