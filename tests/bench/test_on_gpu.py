"""The script for somebody with a GPU for ten minutes: it must not fail there for the first time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fc7.bench import gpu_run, on_gpu
from fc7.bench.gpu_extraction import Budget
from fc7.bench.gpu_run import run, run_tests
from fc7.bench.gpu_stages import merged
from fc7.bench.gpu_table import table
from fc7.bench.synthetic_jpegs import make_photographs

CASE = {
    "ms": 0.5,
    "gb_per_s": 4000.0,
    "tflop_per_s": 300.0,
    "share_of_floor": 0.9,
    "peers": {"torch.bmm": {"ratio": 1.5}},
}
MEASURED = {
    "kernels": {"gram": {"cases": {"gram 64 x 224": CASE}}, "occlude": {"red": {"a": "wrong"}}},
    "left_out": [],
}


class WithoutKernels(gpu_run.Runner):
    """Every stage but the kernels' benchmarks, which have tests of their own."""

    def stage(self, name: str, *rest: Any) -> tuple[dict[str, Any], str]:
        return (MEASURED, "") if name == "kernels" else super().stage(name, *rest)


def test_the_whole_script_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_gpu, "Runner", WithoutKernels)
    tests = tmp_path / "test_two.py"
    tests.write_text("def test_one(): pass\n\ndef test_other(): assert False, 'on purpose'\n")
    out = tmp_path / "OUT"
    options = ["--device", "cpu", "--quick", "--tests", str(tests)]
    assert on_gpu.main([str(out), *options]) == 1  # a test is red, and so is a kernel
    facts = json.loads((out / "on_gpu.json").read_text())
    results = facts["results"]
    assert facts["command"] == "python -m fc7.bench.on_gpu OUT --device cpu --quick"
    assert {"python", "torch", "torchvision", "numpy"} <= facts["versions"].keys()
    assert (results["tests"]["passed"], results["tests"]["failed"]) == (1, 1)
    problems = "\n".join(results["problems"])
    assert "test_two::test_other" in problems
    assert "occlude is red: a: wrong" in problems
    assert len(results["problems"]) == 2
    occlusion = results["occlusion"]["precisions"]["fp32"]
    assert occlusion["executor"]["chosen"] == "windows"
    assert occlusion["check"]["error"] < 1e-3
    taken = occlusion["seconds_a_map"]
    assert occlusion["ratio"] == pytest.approx(taken["hand"] / taken["fc7"])
    made = results["synthesis"]
    assert not made["shortened"]
    seconds = made["ascent"]["seconds_an_evaluation"]
    loop = "one by one, truncated, frozen"
    assert made["ascent"]["ratios"][loop] == pytest.approx(seconds[loop] / seconds["fc7"])
    assert made["ascent"]["errors"][loop] < 1e-3
    seconds = made["style"]["seconds_an_evaluation"]
    assert made["style"]["ratio"] == pytest.approx(seconds["one by one"] / seconds["together"])
    extraction = results["extraction"]
    assert extraction["photographs"]["count"] == 16
    for model in ("alexnet", "resnet50"):
        assert extraction[model]["decode"] > 0
        for precision in ("bf16", "fp32"):
            each = extraction[model]["precisions"][precision]
            assert max(each["drift"].values()) < 0.25
            rates = each["batches"]["2"]
            slower = min(extraction[model]["decode"], rates["forward"])
            assert rates["share_of_the_slower"] == pytest.approx(rates["end_to_end"] / slower)
    assert extraction["alexnet"]["precisions"]["fp32"]["drift"]["fc7"] < 1e-4
    files = list(out.iterdir())
    assert len(files) <= 8
    assert all(file.is_file() and file.stat().st_size < 2**24 for file in files)
    printed = capsys.readouterr().out
    assert "gram 64 x 224" in printed
    assert "ms a map by windows" in printed
    assert "ascent, alexnet conv5, 2 steps" in printed
    assert "style, tiny-shapes, 2 pictures" in printed
    assert "resnet50 fp32" in printed
    assert printed.rstrip().endswith("no number means anything")


def test_without_a_gpu_it_refuses_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fc7.bench.on_gpu", str(tmp_path / "OUT")],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == on_gpu.NO_GPU
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "sees no CUDA device" in done.stderr


def test_a_command_ends_in_time_and_takes_its_children_along(tmp_path: Path) -> None:
    mark = tmp_path / "child"
    child = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    ended = run([sys.executable, "-c", parent], 5, lambda _: None)
    assert ended == f"{gpu_run.STOPPED} after 5 s"
    number, deadline = int(mark.read_text()), time.monotonic() + 30
    while _is_alive(number) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_alive(number)


def _is_alive(number: int) -> bool:
    """Whether a process runs; one that waits to be buried does not."""
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_how_a_command_ended_is_said() -> None:
    assert run([sys.executable, "-c", "pass"], 30, print) == ""
    ended = run([sys.executable, "-c", "raise SystemExit('out of luck')"], 30, lambda _: None)
    assert ended == "ended with exit code 1 (out of luck)"
    ended = run([sys.executable, "-c", "import os; os.abort()"], 30, lambda _: None)
    assert ended.startswith("ended with exit code -6")


def test_a_file_that_dies_costs_its_own_tests_alone(tmp_path: Path) -> None:
    tests, out = tmp_path / "tests", tmp_path / "out"
    tests.mkdir()
    out.mkdir()
    (tests / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    head = "import os, pytest\npytestmark = pytest.mark.gpu\n"
    (tests / "test_a.py").write_text(f"{head}def test_dies(): os.abort()\n")
    (tests / "test_b.py").write_text(
        f"{head}def test_good(): pass\ndef test_not_here(): pytest.skip('no memory')\n"
        "def test_bad(): assert 1 == 2\n"
    )
    (tests / "test_c.py").write_text("def test_no_mark(): assert False\n")
    (tests / "test_d.py").write_text("import not_there\n")
    found = run_tests(tests, out, "cuda", time.monotonic() + 60, 2, lambda _: None)
    counts = {key: found[key] for key in ("passed", "failed", "errors", "skipped")}
    assert counts == {"passed": 1, "failed": 1, "errors": 2, "skipped": 1}
    assert "exit code -6" in found["failures"]["test_a.py"]
    assert found["failures"]["test_b::test_bad"] == "assert 1 == 2"
    assert "test_d" in found["failures"]
    assert found["skips"] == {"no memory": 1}
    assert found["not_run"] == []
    assert "1 failed, 1 passed, 1 skipped" in (out / "tests.log").read_text()
    late = run_tests(tests, out, "cuda", time.monotonic(), 2, lambda _: None)
    assert late["not_run"] == [f"test_{name}.py" for name in "abcd"]


class Scripted:
    """Stands for a runner: what the kernels' process leaves and how it ends, time after time."""

    def __init__(self, *ends: tuple[dict[str, Any], str]) -> None:
        self.ends, self.left = list(ends), [{}]

    def stage(self, *_: Any) -> tuple[dict[str, Any], str]:
        found, ended = self.ends.pop(0)
        return json.loads(json.dumps(found)), ended

    def put(self, name: str, found: dict[str, Any]) -> None:
        self.left.append(json.loads(json.dumps(found)))


def kernels(tmp_path: Path, *ends: tuple[dict[str, Any], str]) -> tuple[dict[str, Any], Scripted]:
    report = on_gpu.Report(tmp_path, "command")
    runner = Scripted(*ends)
    on_gpu._kernels(report, runner, [], time.monotonic() + 100)  # type: ignore[arg-type]
    assert not runner.ends
    return report.results, runner


def test_a_kernel_that_kills_its_process_is_red_and_the_others_go_on(tmp_path: Path) -> None:
    gram = {"gram": {"cases": {"case": CASE}}}
    died = {"kernels": gram, "left_out": [], "measuring": "occlude"}
    red = {"occlude": {"red": {"occlude": "its process ended with exit code -11"}}}
    rest = {"kernels": {**gram, **red, "spatial_max": {"cases": {}}}, "left_out": []}
    results, runner = kernels(tmp_path, (died, "ended with exit code -11"), (rest, ""))
    assert runner.left[1]["kernels"] == {**gram, **red}
    assert results["kernels"]["kernels"] == rest["kernels"]
    assert results["problems"] == ["occlude is red: occlude: its process ended with exit code -11"]


def test_kernels_that_never_begin_are_a_problem(tmp_path: Path) -> None:
    results, _ = kernels(tmp_path, ({}, "ended with exit code 1 (ImportError)"))
    assert "exit code 1 (ImportError)" in results["problems"][0]
    # Spoilt before anything new was measured: again would be the same again.
    once = {"kernels": {"gram": {"cases": {}}}, "left_out": []}
    results, _ = kernels(
        tmp_path, (once, "ended with exit code 1"), (once, "ended with exit code 1")
    )
    assert len(results["problems"]) == 1


def test_too_little_time_for_the_kernels_is_named(tmp_path: Path) -> None:
    late = {"kernels": {"gram": {"cases": {}}}, "left_out": ["a"], "measuring": "occlude"}
    results, _ = kernels(tmp_path, (late, f"{gpu_run.STOPPED} after 9 s"))
    assert results["kernels"]["left_out"] == ["a", "occlude and what follows"]
    assert results["problems"] == []


def test_the_better_of_two_rooflines_counts() -> None:
    one = {"gb_per_s": 4000.0, "tflop_per_s": {"bf16": 700.0}}
    other = {"gb_per_s": 4200.0, "tflop_per_s": {"bf16": 600.0, "tf32": 300.0}}
    both = {"gb_per_s": 4200.0, "tflop_per_s": {"bf16": 700.0, "tf32": 300.0}}
    assert merged({}, one) == one
    assert merged(one, other) == both


def test_what_a_budget_does_not_allow_is_named() -> None:
    budget = Budget(50)
    assert budget.allows(40, "enough")
    assert not budget.allows(60, "too much")
    assert budget.shortened == ["too much"]


def test_results_are_adopted_by_the_name_of_the_device(tmp_path: Path) -> None:
    file = tmp_path / "on_gpu.json"
    facts: dict[str, Any] = {"results": {"device": {"name": "NVIDIA H200"}, "quick": False}}
    file.write_text(json.dumps(facts))
    with pytest.raises(SystemExit, match="in the repository's own folder"):
        on_gpu.adopt(file, tmp_path)
    (tmp_path / "bench" / "results").mkdir(parents=True)
    adopted = on_gpu.adopt(file, tmp_path)
    assert adopted.name == "on_gpu-nvidia-h200.json"
    assert json.loads(adopted.read_text()) == facts
    facts["results"]["quick"] = True
    file.write_text(json.dumps(facts))
    with pytest.raises(SystemExit, match="trial"):
        on_gpu.adopt(file, tmp_path)


def test_a_table_of_little_is_a_table() -> None:
    """What a run leaves that was cut off right after its first stage."""
    facts = {
        "machine": {"cpu": "a CPU", "cores": 2},
        "versions": {"torch": "2.11.0", "python": "3.12.3", "cuda": "13.0"},
        "results": {
            "device": {"name": "NVIDIA H200", "capability": "9.0", "driver": "580"},
            "problems": ["cut off"],
            "quick": False,
        },
    }
    text = "\n".join(table(facts))
    assert "NVIDIA H200 (sm_90), 2 cores; torch 2.11.0, python 3.12.3" in text
    assert "driver 580, CUDA 13.0" in text
    assert text.endswith("PROBLEM: cut off")


def test_photographs_weigh_what_photographs_weigh(tmp_path: Path) -> None:
    files = make_photographs(tmp_path / "some", 12, seed=5)
    again = make_photographs(tmp_path / "again", 12, seed=5, workers=1)
    others = make_photographs(tmp_path / "others", 12, seed=6)
    read = [[file.read_bytes() for file in folder] for folder in (files, again, others)]
    assert read[0] == read[1]
    assert not set(read[0]) & set(read[2])
    # ImageNet's mean is 110 KB; white noise of the size would weigh 340 KB, grey 3 KB.
    assert 80_000 < sum(map(len, read[0])) / 12 < 120_000
