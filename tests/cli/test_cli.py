"""The command line as a person types it: outcomes, exit codes, one-line errors."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fc7.engine.cli import verbs
from fc7.engine.cli.console import emit_json, emit_table
from fc7.engine.cli.main import main
from fc7.engine.cli.verbs import VERBS, load
from fc7.engine.store import open_store

TINY = ["-m", "tiny-shapes"]


class Shell:
    """Types `fc7 ARGUMENTS` and keeps what came back."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capsys, self.patch = capsys, patch

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.patch.setattr(sys, "argv", ["fc7", *map(str, arguments)])
        try:
            main()
            code: object = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = self.capsys.readouterr()
        assert isinstance(code, int)
        return code, out, err


@pytest.fixture
def fc7(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 48 rows, by the command itself."""
    out = tmp_path_factory.mktemp("cli") / "run"
    command = [sys.executable, "-m", "fc7.engine.cli.main", "demo", "--rows", "48", "--json"]
    done = subprocess.run([*command, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["rows"] == 48
    assert Path(outcome["report"]).stat().st_size < 25_000_000
    return out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(fc7: Shell, verb: str) -> None:
    code, out, _ = fc7(verb, "--help")
    assert code == 0
    assert f"fc7 {verb}" in out


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_says_what_their_help_does(verb: str) -> None:
    assert load(verb).help.split("\n", 1)[0] == VERBS[verb].line


def test_no_verb_is_left_out_of_the_list() -> None:
    listed = {verb.file for verb in VERBS.values()}
    files = Path(verbs.__file__).parent.glob("*.py")
    assert {file.stem for file in files if "\ndef register(" in file.read_text()} == listed


def test_demo_makes_everything_the_report_needs(made: Path) -> None:
    run = open_store(made)
    assert {"fc7", "fc6", "conv1.max", "conv5.argmax", "pixels"} <= set(run.outputs())
    for job in ("neighbors-fc7", "neighbors-pixels", "project-fc7-umap", "project-fc7-tsne"):
        assert run.job(job).is_complete, job
    for method in ("pca", "umap", "tsne"):
        points = run.job(f"project-fc7-{method}").result("coordinates")
        assert points.shape == (48, 2)
        assert np.isfinite(points).all()


def test_the_same_command_again_changes_nothing(made: Path, fc7: Shell) -> None:
    before = {p: p.stat().st_mtime_ns for p in (made / "jobs").rglob("*") if p.is_file()}
    code, out, err = fc7("demo", "--rows", 48, "--out", made, "--json")
    assert code == 0, err
    assert all(job["computed"] == 0 for job in json.loads(out)["jobs"])
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_neighbors_of_rows_and_files(made: Path, fc7: Shell, tmp_path: Path) -> None:
    from fc7.engine.data import open_source

    source = open_source("shapes:48:0")
    image = source.decode(source.read(5)).permute(1, 2, 0).numpy()
    Image.fromarray(image).save(tmp_path / "five.png")
    code, out, err = fc7("neighbors", made, 5, tmp_path / "five.png", "-k", 3, "--json")
    assert code == 0, err
    by_row, by_file = json.loads(out)["queries"]
    assert 5 not in [hit["row"] for hit in by_row["neighbors"]], "a row is not its own neighbour"
    # The file is row 5's picture, which is in the run: it comes first, at no distance.
    assert by_file["neighbors"][0]["row"] == 5
    assert by_file["neighbors"][0]["distance"] < 0.05 * by_row["neighbors"][0]["distance"]
    assert [hit["row"] for hit in by_file["neighbors"][1:]] == [
        hit["row"] for hit in by_row["neighbors"][:2]
    ]
    vectors = np.maximum(np.asarray(open_store(made)["fc7"], dtype=np.float64), 0)
    distances = np.linalg.norm(vectors - vectors[5], axis=1)
    distances[5] = np.inf
    np.testing.assert_allclose(
        [hit["distance"] for hit in by_row["neighbors"]], np.sort(distances)[:3], rtol=1e-5
    )
    code, out, _ = fc7("neighbors", made, 5, "-k", 3)
    assert code == 0
    assert by_row["neighbors"][0]["key"] in out


def test_patches_as_table_json_and_picture(made: Path, fc7: Shell, tmp_path: Path) -> None:
    code, out, err = fc7("patches", made, "-l", "conv5", "--channels", "2,7", "-k", 3, "--json")
    assert code == 0, err
    listed = json.loads(out)["patches"]
    assert [(entry["channel"], entry["rank"]) for entry in listed] == [
        (channel, rank) for channel in (2, 7) for rank in (1, 2, 3)
    ]
    picture = tmp_path / "conv5.png"
    code, _, err = fc7("patches", made, "-l", "conv5", "--out", picture)
    assert code == 0, err
    assert min(Image.open(picture).size) > 64


def test_verify_finds_nothing_then_the_damage(made: Path, fc7: Shell, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    code, _, err = fc7("verify", copy)
    assert (code, "0 damaged" in err) == (0, True)
    part = copy / "jobs/extract/fc7/part-000000.npy"
    data = bytearray(part.read_bytes())
    data[-3] ^= 4
    part.write_bytes(data)
    code, out, _ = fc7("verify", copy, "--json")
    assert code == 1
    assert [Path(d["path"]) for d in json.loads(out)["damage"]] == [part]


def test_index_and_project_and_report(made: Path, fc7: Shell, tmp_path: Path) -> None:
    code, out, err = fc7("index", made, "--layer", "fc6", "-k", 10, "--kind", "flat", "--json")
    assert code == 0, err
    assert json.loads(out)["graph"]["k"] == 10
    code, out, err = fc7("project", made, "--method", "pca", "--dimensions", 3, "--json")
    assert code == 0, err
    assert open_store(made).job("project-fc7-pca").result("coordinates").shape == (48, 3)
    code, out, err = fc7("report", made, "--out", tmp_path / "r.html", "--json")
    assert code == 0, err
    assert (tmp_path / "r.html").stat().st_size == json.loads(out)["bytes"]


def test_layers_lists_names_shapes_and_fields(fc7: Shell) -> None:
    code, out, err = fc7("layers", "alexnet", "--json")
    assert code == 0, err
    listed = {entry["name"]: entry for entry in json.loads(out)["layers"]}
    assert listed["conv5"]["shape"] == [256, 13, 13]
    # 163 pixels every 16: the published receptive field of AlexNet's conv5.
    assert listed["conv5"]["receptive_field"]["size"] == [163, 163]
    assert listed["conv5"]["receptive_field"]["stride"] == [16, 16]
    assert listed["fc7"]["bytes_per_row"] == 8192


def test_plan_predicts_the_bytes_of_a_run(made: Path, fc7: Shell) -> None:
    layers = "conv1,conv2,conv3,conv5,fc6,fc7"
    code, out, err = fc7(
        "plan", "shapes:48:0", "--model", "tiny-shapes", "--layers", layers, "--json"
    )
    assert code == 0, err
    steps = {step["name"]: step for step in json.loads(out)["steps"]}
    run = open_store(made)
    for name in ("conv5.max", "conv5.argmax", "fc7"):
        assert steps[f"extract {name}"]["disk_bytes"] == run[name].nbytes
    assert steps["all"]["seconds"] > 0


def test_bad_rows_end_with_3_under_strict(fc7: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (70, 70), "red").save(folder / "a.png")
    (folder / "b.png").write_bytes(b"")
    arguments = ("extract", folder, "-m", "tiny-shapes", "-l", "fc7", "--out", tmp_path / "run")
    code, _, err = fc7(*arguments)
    assert code == 0
    assert "1 bad rows" in err
    assert fc7(*arguments, "--strict")[0] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "no/such/folder", "--out", "OUT"], "no/such/folder"),
        (["run", "shapes:9:0", "-m", "alexnett", "--out", "OUT"], "alexnet"),
        (["extract", "shapes:9:0", "-m", "tiny-shapes", "--dtype", "int3", "-o", "OUT"], "float16"),
        (["neighbors", "OUT", "1"], "no run in"),
        (["verify", "OUT"], "no run in"),
        (["report", "OUT"], "no run in"),
        (["layers", "nothing:here"], "nothing"),
        (["run", "shapes:9:0", "-m", "tiny-shapes", "--out", "OUT/a/b"], "Not a directory"),
        (["patches", "MADE", "-l", "conv5", "--out", "OUT.foo"], "write .png"),
        (["patches", "MADE", "-l", "conv5", "--out", "no/such/p.png"], "make its folder first"),
        (["project", "MADE", "--method", "pca,mds"], "no projection 'mds'"),
        (["neighbors", "MADE", "²"], "² cannot be read"),
        (["occlude", "MADE/run.json", *TINY, "-o", "OUT.png"], "not-an-image"),
        (["occlude", "PICTURE", *TINY, "-o", "no/such/m.png"], "make its folder first"),
        (["occlude", "shapes:48:1", *TINY, "-o", "MADE"], "choose another --out"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(
    fc7: Shell, made: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert_one_line(fc7, made, tmp_path, arguments, message, code=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "shapes:9:0", "-m", "tiny-shapes", "-l", "fc9", "--out", "OUT"], "fc7"),
        (["occlude", "shapes:3:0", *TINY, "--window", "65", "-o", "OUT"], "the image only 64"),
        (["occlude", "shapes:3:0", *TINY, "--target", "16", "-o", "OUT"], "0 to 15"),
        (["occlude", "shapes:3:0", *TINY, "--target", "disk-dots", "-o", "OUT"], "disc-dots"),
        (["occlude", "shapes:3:0", *TINY, "--refine", "--growth", "0.5", "-o", "OUT"], "one of"),
        (["occlude", "shapes:3:0", *TINY, "--growth", "1.5", "-o", "OUT"], "growth is 1.5"),
        (["occlude", "shapes:3:0", *TINY, "--score", "loss", "-o", "OUT"], "no score 'loss'"),
        (["occlude", "shapes:3:0", *TINY, "--fill", "2", "-o", "OUT"], "fill is 2"),
        (["occlude", "shapes:3:0", *TINY, "-o", "OUT.png"], "is not an image file"),
        (["occlude", "PICTURE", *TINY, "-o", "OUT"], "such as map.png"),
        (["occlude", "PICTURE", *TINY, "--target", "label", "-o", "OUT.png"], "has a label"),
        (["guided", "shapes:3:0", *TINY, "-l", "conv9", "--unit", "1", "-o", "OUT"], "conv5"),
        (["guided", "shapes:3:0", *TINY, "-l", "conv5", "--unit", "999", "-o", "OUT"], "0 to"),
        (["guided", "shapes:3:0", *TINY, "-l", "fc7", "--unit", "1,2,3", "-o", "OUT"], "a vector"),
        (["guided", "shapes:3:0", *TINY, "-l", "fc7", "-o", "OUT"], "which unit of fc7"),
        (["guided", "shapes:3:0", *TINY, "--unit", "1", "-o", "OUT"], "of which layer"),
        (["guided", "shapes:3:0", *TINY, "--rule", "soft", "-o", "OUT"], "no rule 'soft'"),
        (["guided", "shapes:3:0", *TINY], "say where to"),
        (["guided", "shapes:3:0", "-m", "own_networks:silu", "-o", "OUT"], "calls no ReLU"),
        (["guided", "MADE"], "of which layer"),
        (["guided", "MADE", "-l", "conv5", "--top", "99"], "holds 9 patches a channel"),
        (["facets", "MADE", "--class", "16", "-o", "OUT"], "0 to 15"),
        (["facets", "MADE", "--class", "disc", "-o", "OUT"], "no class 'disc'"),
        (["facets", "MADE", "--class", "1", "--facets", "40", "-o", "OUT"], "fewer than 40"),
        (["facets", "MADE", "--class", "1", "--by", "fc9", "-o", "OUT"], "holds no fc9"),
        (
            ["facets", "MADE", "--class", "1", "--by", "conv5.argmax", "--pull", "1", "-o", "OUT"],
            "nothing pulls",
        ),
        (["facets", "MADE", "-l", "conv4", "--unit", "1", "-o", "OUT"], "holds no conv4"),
        (["facets", "MADE", "--unit", "1", "-o", "OUT"], "of which layer"),
        (["facets", "MADE", "-o", "OUT"], "no class is named"),
        (["guided", "PICTURE", *TINY, "-l", "conv5", "--unit", "-1", "-o", "OUT.png"], "-1"),
        (["saliency", "shapes:3:0", *TINY, "--target", "16", "-o", "OUT"], "0 to 15"),
        (["saliency", "shapes:3:0", *TINY, "--method", "magic", "-o", "OUT"], "smoothgrad"),
        (["saliency", "shapes:3:0", *TINY, "--method", "cam", "-o", "OUT"], "fc8 reads relu7"),
        (["saliency", "shapes:3:0", *TINY, "--dtype", "int8", "-o", "OUT"], "float16"),
        (["saliency", "shapes:3:0", "-m", "own_networks:detached", "-o", "OUT"], "no gradient"),
        (["saliency", "PICTURE", *TINY, "-o", "OUT"], "such as map.png"),
        (["fool", "shapes:3:0", *TINY, "--target", "16", "-o", "OUT"], "0 to 15"),
        (["fool", "shapes:3:0", *TINY, "--method", "magic", "-o", "OUT"], "margin, ddn, fgsm"),
        (["fool", "shapes:3:0", *TINY, "--epsilon", "2", "-o", "OUT"], "epsilon is 2"),
        (["fool", "shapes:3:0", "-m", "own_networks:detached", "-o", "OUT"], "no gradient"),
        (["invert", "shapes:3:0", *TINY, "-l", "conv9", "-o", "OUT"], "conv9"),
        (["invert", "shapes:3:0", *TINY, "-l", "fc7", "--optimiser", "sgd", "-o", "OUT"], "lbfgs"),
        (["invert", "shapes:3:0", *TINY, "-l", "fc7", "--variation", "nan", "-o", "OUT"], "nan"),
        (["invert", "shapes:3:0", *TINY, "-l", "fc7", "-o", "OUT.png"], "one image only"),
    ],
)
def test_a_question_without_an_answer_is_one_line_and_exit_code_2(
    fc7: Shell,
    made: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    assert_one_line(fc7, made, tmp_path, arguments, message, code=2)


def assert_one_line(
    fc7: Shell, made: Path, tmp_path: Path, arguments: list[str], message: str, code: int
) -> None:
    if any("OUT/" in argument for argument in arguments):
        (tmp_path / "out").write_text("a file where a folder should be")
    Image.new("RGB", (70, 70), "red").save(tmp_path / "red.png")
    picture = str(tmp_path / "red.png")
    places = {"OUT": str(tmp_path / "out"), "MADE": str(made), "PICTURE": picture}
    for word, place in places.items():
        arguments = [argument.replace(word, place) for argument in arguments]
    found, out, err = fc7(*arguments)
    assert found == code, err
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("fc7: ")
    assert message in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "shapes:9:0"],
        ["run", "shapes:9:0", "--out", "x", "--mean", "1,2"],
        ["extract", "shapes:9:0", "--out", "x", "--layers", ","],
        ["demo", "--rows", "3"],
        ["extract", "shapes:9:0", "--out", "x", "--batch", "0"],
        ["extract", "shapes:9:0", "--out", "x", "--part-rows", "0"],
        ["extract", "shapes:9:0", "--out", "x", "--threads", "0"],
        ["extract", "shapes:9:0", "--out", "x", "--top-k", "-1"],
        ["run", "shapes:9:0", "--out", "x", "--sample", "-3"],
        ["patches", "x", "-l", "conv5", "-k", "0"],
        ["index", "x", "-k", "0"],
        ["importance", "shapes:9:0"],
        ["importance", "shapes:9:0", "--out", "x", "--batch", "0"],
        ["prune", "x"],
        ["prune", "x", "--out", "x.safetensors", "--fraction", "some"],
        ["prune", "x", "--out", "x.safetensors", "--fraction", "0.1", "--data", "shapes:9:0"],
        ["occlude", "shapes:9:0"],
        ["occlude", "shapes:9:0", "--out", "x", "--window", "0"],
        ["occlude", "shapes:9:0", "--out", "x", "--fill", "red"],
        ["occlude", "shapes:9:0", "--out", "x", "--fill", "#12345"],
        ["occlude", "shapes:9:0", "--out", "x", "--fill", "1,2"],
        ["saliency", "shapes:9:0"],
        ["saliency", "shapes:9:0", "--out", "x", "--samples", "0"],
        ["saliency", "shapes:9:0", "--out", "x", "--baseline", "red"],
        ["guided", "shapes:9:0", "--out", "x", "--unit", "1,2"],
        ["guided", "shapes:9:0", "--out", "x", "--top", "0"],
        ["facets", "x"],
        ["facets", "x", "--out", "y", "--class", "1", "--facets", "some"],
        ["facets", "x", "--out", "y", "--class", "1", "--pull", "-1"],
        ["fly"],
    ],
)
def test_wrong_usage_ends_with_2(fc7: Shell, arguments: list[str]) -> None:
    assert fc7(*arguments)[0] == 2


def test_neighbors_of_what_is_not_there(made: Path, fc7: Shell, tmp_path: Path) -> None:
    for query, message in ((48, "48"), (-1, "-1"), (tmp_path / "no.jpg", "no.jpg")):
        code, _, err = fc7("neighbors", made, "--", query)
        assert code == 1
        assert message in err


COMMAND = [sys.executable, "-m", "fc7.engine.cli.main"]


def test_an_interrupt_is_one_line_and_the_command_continues(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*COMMAND, "extract", "shapes:1500:0", "-m", "tiny-shapes", "-l", "fc7"]
    command += ["--part-rows", "16", "--out", str(out)]
    child = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("jobs/extract/commits/part-*.json")):
        assert child.poll() is None, "the command ended before it could be interrupted"
        assert time.monotonic() < deadline
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err.splitlines() == [
        "fc7: interrupted; what was committed is kept, and the same command continues"
    ]
    assert 0 < len(open_store(out).job("extract").committed()) < 94


def test_a_file_that_may_not_grow_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*COMMAND, "extract", "shapes:40:0", "-m", "tiny-shapes", "-l", "fc7,pixels"]
    command += ["--out", str(out)]
    limit = 100_000  # the pixels of 40 rows take 122,880 bytes
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "the same command continues" in done.stderr
    assert not list(out.rglob("*.tmp"))
    subprocess.run(command, check=True, capture_output=True)
    assert open_store(out)["pixels"].shape[0] == 40


def test_strange_keys_and_values_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit_table(("key",), [["[red]1[/nope].png"]], "a[/b]")
    out = capsys.readouterr().out
    assert "[red]1[/nope].png" in out
    assert "a[/b]" in out
    emit_json({"values": [(1.5, float("-inf")), {"nan": float("nan")}]})
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail) == {"values": [[1.5, None], {"nan": None}]}


def test_pixels_may_be_planned(fc7: Shell) -> None:
    code, out, err = fc7("plan", "shapes:20:0", "-m", "tiny-shapes", "-l", "fc7,pixels", "--json")
    assert code == 0, err
    steps = {step["name"]: step for step in json.loads(out)["steps"]}
    assert steps["extract pixels"]["disk_bytes"] == 20 * 3 * 32 * 32


def test_three_images_make_a_report_and_answer_queries(fc7: Shell, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "run"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        picture.save(folder / f"{number}.png")
    code, text, err = fc7(
        "run", folder, "-m", "tiny-shapes", "-l", "conv5,fc7", "-o", out, "--json"
    )
    assert code == 0, err
    assert Path(json.loads(text)["report"]).exists()
    for layer in ("fc7", "conv5.max"):
        query = ("neighbors", out, folder / "1.png", "-k", 9, "--layer", layer, "--json")
        code, text, err = fc7(*query)
        assert code == 0, err
        nearest, *others = json.loads(text)["queries"][0]["neighbors"]
        assert (nearest["key"], len(others)) == ("1.png", 2)
        # Stored as float16: each value is off by a 2,000th at most.
        assert nearest["distance"] < 0.01 * others[0]["distance"]
    (folder / "2.png").unlink()
    code, _, err = fc7("patches", out, "-l", "conv5", "--out", tmp_path / "conv5.png")
    assert code == 1
    assert "put back" in err


def test_saliency_joins_a_run_and_continues_it(fc7: Shell, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["saliency", "shapes:5:0", *TINY, "--out", out]
    code, _, err = fc7(*command, "--part-rows", 2, "--parts", "1::2")
    assert code == 0
    assert "the same command continues" in err
    code, text, err = fc7(*command, "--json")
    assert code == 0, err
    (job,) = json.loads(text)["jobs"]
    assert (job["job"], job["rows"], job["computed"]) == ("saliency", 5, 3)
    code, text, err = fc7(*command, "--method", "smoothgrad", "--samples", 2, "--dtype", "float16")
    assert code == 0, err
    code, text, err = fc7("guided", *command[1:])
    assert code == 0, err
    run = open_store(out)
    assert run["saliency-2"].dtype == np.float16
    assert run["guided"].shape == (5, 3, 64, 64)
    code, _, err = fc7("report", out)
    assert code == 0, err
    page = (out / "report.html").read_text()
    assert "saliency-2" in page
    assert "SmoothGrad" in page


def test_gradients_of_one_image_equal_the_run_s(fc7: Shell, tmp_path: Path) -> None:
    from fc7.engine.data import open_source

    source = open_source("shapes:1:0")
    image = source.decode(source.read(0)).permute(1, 2, 0).numpy()
    Image.fromarray(image).save(tmp_path / "zero.png")
    for verb, options in (("saliency", []), ("guided", ["--layer", "conv4", "--unit", "3"])):
        command = [verb, tmp_path / "zero.png", *TINY, *options, "--out", tmp_path / "map.webp"]
        code, text, err = fc7(*command, "--json")
        assert code == 0, err
        found = json.loads(text)
        assert Image.open(tmp_path / "map.webp").size > (900, 300)
        fc7(verb, "shapes:1:0", *TINY, *options, "--out", tmp_path / "run")
        run = open_store(tmp_path / "run")
        assert found["largest"] == pytest.approx(float(abs(run[verb][0]).max()), rel=1e-4)
        for name, value in found["numbers"].items():
            assert value == pytest.approx(float(run[f"{verb}.{name}"][0]), rel=1e-4)
        code, text, err = fc7(*command)
        assert (code, text) == (0, "")
        assert str(tmp_path / "map.webp") in err


def test_inversions_by_depth_of_a_run_and_of_one_image(fc7: Shell, tmp_path: Path) -> None:
    from fc7.engine.data import open_source

    few = [*TINY, "--layers", "conv3,fc7", "--evaluations", 6, "--starts", 2]
    command = ["invert", "shapes:1:0", *few, "--out", tmp_path / "run"]
    code, text, err = fc7(*command, "--json")
    assert code == 0, err
    assert [job["job"] for job in json.loads(text)["jobs"]] == ["invert-conv3", "invert-fc7"]
    run = open_store(tmp_path / "run")
    source = open_source("shapes:1:0")
    image = source.decode(source.read(0)).permute(1, 2, 0).numpy()
    Image.fromarray(image).save(tmp_path / "zero.png")
    command = ["invert", tmp_path / "zero.png", *few, "--out", tmp_path / "depth.png"]
    code, text, err = fc7(*command, "--json")
    assert code == 0, err
    for found in json.loads(text)["layers"]:
        stored = float(run[f"invert-{found['layer']}.error"][0])
        assert found["error"] == pytest.approx(stored, rel=1e-4)
    assert Image.open(tmp_path / "depth.png").size > (1000, 300)
    code, text, err = fc7(*command)
    assert (code, text) == (0, "")
    assert "fc7 " in err


def test_guided_draws_patches_beside_their_gradients(
    made: Path, fc7: Shell, tmp_path: Path
) -> None:
    picture = tmp_path / "conv5.png"
    command = ["guided", made, "-l", "conv5", "--channels", "3,7", "--top", 4, "--out", picture]
    code, text, err = fc7(*command, "--json")
    assert code == 0, err
    assert json.loads(text)["channels"] == [3, 7]
    job = open_store(made).job("guided-patches-conv5")
    assert job.result("pictures").shape == (2, 4, 96, 96, 3)
    assert Image.open(picture).size > (500, 100)
    code, _, err = fc7("report", made, "--out", tmp_path / "r.html")
    assert code == 0, err
    assert "Guided gradients of patches" in (tmp_path / "r.html").read_text()


def test_occlude_joins_a_run_and_continues_it(fc7: Shell, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["occlude", "shapes:5:0", *TINY, "--window", 40, "--stride", 24, "--out", out]
    code, _, err = fc7(*command, "--part-rows", 2, "--parts", "1::2")
    assert code == 0
    assert "the same command continues" in err
    code, text, err = fc7(*command, "--json")
    assert code == 0, err
    (job,) = json.loads(text)["jobs"]
    assert (job["job"], job["rows"], job["computed"]) == ("occlude", 5, 3)
    code, text, err = fc7(*command, "--fill", "#ff0080", "--target", "disc-dots", "--json")
    assert code == 0, err
    run = open_store(out)
    fill = run.job("occlude-2").outputs["occlusion-2"].attributes["fill"]
    assert fill == [1.0, 0.0, round(128 / 255, 6)]
    assert run["occlusion-2.target"][:].tolist() == [3] * 5
    code, _, err = fc7("report", out)
    assert code == 0, err
    assert "occlusion-2" in (out / "report.html").read_text()


def test_occlude_draws_one_image(fc7: Shell, tmp_path: Path) -> None:
    from fc7.engine.data import open_source

    source = open_source("shapes:1:0")
    image = source.decode(source.read(0)).permute(1, 2, 0).numpy()
    Image.fromarray(image).save(tmp_path / "zero.png")
    command = ["occlude", tmp_path / "zero.png", *TINY, "--window", 40, "--stride", 24]
    code, out, err = fc7(*command, "--out", tmp_path / "map.webp", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert Image.open(tmp_path / "map.webp").size > (900, 300)
    fc7("occlude", "shapes:1:0", *TINY, "--window", 40, "--stride", 24, "--out", tmp_path / "run")
    run = open_store(tmp_path / "run")
    np.testing.assert_allclose(found["drops"], run["occlusion"][0], atol=1e-6)
    assert found["largest_drop"] == pytest.approx(float(run["occlusion.largest"][0]), abs=1e-6)
    row, column = np.unravel_index(np.argmax(found["drops"]), (2, 2))
    assert found["window"]["top"] == 24 * row
    assert found["window"]["right"] == 24 * column + 40
    code, out, err = fc7(*command, "--out", tmp_path / "map.png")
    assert (code, out) == (0, "")
    assert f"{found['class']} {found['probability'] * 100:.0f} %" in err


def test_importance_and_prune(fc7: Shell, tmp_path: Path) -> None:
    out, small = tmp_path / "run", tmp_path / "small.safetensors"
    command = ["importance", "shapes:40:1", *TINY, "--part-rows", 16, "--out", out]
    code, text, err = fc7(*command, "--parts", "1::2")
    assert (code, text) == (0, ""), "no table before every part is there"
    assert "the same command continues" in err
    code, text, err = fc7(*command)
    assert code == 0, err
    assert "conv5" in text
    assert "of 40 labels" in err
    code, text, err = fc7(*command, "--json")
    found = json.loads(text)
    assert found["jobs"][0]["computed"] == 0
    assert [layer["name"] for layer in found["layers"]] == [f"conv{n}" for n in range(1, 6)]
    assert {len(scores) for scores in found["layers"][1]["scores"].values()} == {64}
    assert found["accuracy"] > 0.9

    prune = ["prune", out, "--flops", 0.8, "--keep-layers", "conv1,conv2", "--out", small]
    code, text, err = fc7(*prune, "--json", "--finetune", 0.5, "--batch", 10)
    assert code == 0, err
    made = json.loads(text)
    assert made["layers"]["conv1"] == {"before": 32, "after": 32}
    assert made["after"]["multiply_adds"] <= 0.8 * made["before"]["multiply_adds"]
    assert made["before"]["accuracy"]["rows"] == made["tuned"]["accuracy"]["rows"] == 40
    code, text, err = fc7(*prune)
    assert code == 0, err
    assert "conv1 is kept, as asked" in " ".join(text.split())
    assert "shapes:40:1, the rows that channels were chosen by" in " ".join(text.split())
    code, text, err = fc7("layers", small, "--json")
    shapes = {layer["name"]: layer["shape"] for layer in json.loads(text)["layers"]}
    assert shapes["conv5"][0] == made["layers"]["conv5"]["after"]
    code, text, err = fc7("plan", "shapes:4:0", "-m", small, "-l", "fc7", "--json")
    assert code == 0, err
    code, text, err = fc7("extract", "shapes:4:0", "-m", small, "-l", "fc7", "-o", out)
    assert code == 1
    assert "another" in err
    code, text, err = fc7("prune", tmp_path / "no", "--fraction", 0.1, "--out", small)
    assert code == 1
    assert len(err.splitlines()) == 1
