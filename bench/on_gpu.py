"""What a GPU can tell in eight minutes: `python -m fc7.bench.on_gpu OUT`.

For somebody who has an NVIDIA GPU for a while. In the repository's folder, with torch and
torchvision installed and pyarrow, Typer, rich and pytest beside them:

    pip install --no-deps --no-build-isolation .
    python -m fc7.bench.on_gpu OUT
    python -m fc7.bench.on_gpu --adopt OUT/on_gpu.json     # later, in a checkout: to bench/results/

Six stages: what the machine is; the kernels' tests on the GPU; the kernels' benchmarks; exact
occlusion maps of VGG16; images by gradient ascent, and style transfer; the extraction of AlexNet
and ResNet50 from JPEGs made on the spot. Every part runs in a process of its own, so a kernel that
spoils its process costs that part alone, and OUT/on_gpu.json holds what has been found so far. When
time grows short, less is measured, and the results name what is missing.

`--device cpu --quick` tries all of it out without a GPU, on sizes that measure nothing.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fc7.bench.gpu_run import STOPPED, Runner, run_tests
from fc7.bench.gpu_stages import MODELS
from fc7.bench.gpu_table import table, tests_line

NO_GPU = 2
# Where each stage must end, as a share of all the time there is; what one leaves the next may use.
_ENDS = {
    "tests": 0.25,
    "kernels": 0.54,
    "occlusion": 0.67,
    "synthesis": 0.78,
    "alexnet": 0.87,
    "resnet50": 0.97,
}
_TO_WIND_UP = 8  # seconds for a process to start, and to end what it is at
Results = dict[str, Any]


class Report:
    """The results so far, in OUT/on_gpu.json."""

    def __init__(self, out: Path, command: str) -> None:
        self.path = out / "on_gpu.json"
        self.facts: Results = {
            "name": "on_gpu",
            "command": command,
            "date": datetime.now(UTC).date().isoformat(),
            "results": {"seconds": {}, "problems": []},
        }
        self.results: Results = self.facts["results"]
        self.started = time.monotonic()

    def keep(self, stage: str, found: Any, seconds: float) -> None:
        """Add what a stage found, and write the file."""
        self.results[stage] = found
        self.results["seconds"][stage] = round(seconds, 1)
        self.write()

    def problem(self, text: str) -> None:
        """Note what went wrong."""
        self.results["problems"].append(text)
        self.say(f"PROBLEM: {text}")

    def write(self) -> None:
        """Write the file as a whole."""
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.facts, indent=2) + "\n")
        beside.replace(self.path)

    def say(self, text: str) -> None:
        """Print a line with the seconds since the start."""
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)


def measure(out: Path, device: str, quick: bool, limit: float, tests: Path, command: str) -> int:
    """Run every stage; return the exit code."""
    out.mkdir(parents=True, exist_ok=True)
    report = Report(out, command)
    with tempfile.TemporaryDirectory(prefix="fc7-on-gpu-") as name:
        runner = Runner(Path(name), out / "log.txt", report.say)
        flags = ["--device", device, *(["--quick"] if quick else [])]
        found, _ = runner.stage("environment", flags, 120)
        if not found:
            print(f"on_gpu: torch does not start here; see {out / 'log.txt'}", file=sys.stderr)
            return 1
        if device != "cpu" and not found.pop("has_cuda"):
            print(
                f"on_gpu: torch {found['versions']['torch']} sees no CUDA device here; "
                "--device cpu --quick tries the script out without one",
                file=sys.stderr,
            )
            return NO_GPU
        report.facts |= {"machine": found["machine"], "versions": found["versions"]}
        report.results |= {"device": found["device"], "quick": quick, "seconds_limit": limit}
        report.say(f"{found['device'].get('name', 'CPU')}, torch {found['versions']['torch']}")
        report.write()
        ends = {stage: report.started + limit * share for stage, share in _ENDS.items()}
        _test(report, tests, out, device, ends["tests"])
        _kernels(report, runner, flags, ends["kernels"])
        _images(report, runner, "occlusion", flags, ends["occlusion"], quick)
        _images(report, runner, "synthesis", flags, ends["synthesis"], quick)
        _extract(report, runner, flags, Path(name) / "photographs", quick, ends)
    report.results["seconds"]["all"] = round(time.monotonic() - report.started, 1)
    report.write()
    text = "\n".join(table(report.facts))
    (out / "table.txt").write_text(text + "\n")
    print(text, flush=True)
    return 1 if report.results["problems"] else 0


def _test(report: Report, tests: Path, out: Path, device: str, end: float) -> None:
    began = time.monotonic()
    if not tests.exists():
        report.problem(f"no tests in {tests}: run this in the repository, or name them by --tests")
        return
    # A few tests need tensors of 2^31 elements.
    memory = report.results["device"].get("memory_bytes", 0)
    found = run_tests(tests, out, device, end, max(1, min(4, memory >> 35)), report.say)
    report.keep("tests", found, time.monotonic() - began)
    report.say(tests_line(found))
    if found["failed"] or found["errors"]:
        report.problem(f"tests are red: {', '.join(found['failures'])[:500]}")
    if not found["passed"]:
        report.problem("not one test has passed")


def _kernels(report: Report, runner: Runner, flags: Sequence[str], end: float) -> None:
    """Measure the kernels; a process that dies is started again without its last kernel."""
    began = time.monotonic()
    measured = -1
    while True:
        seconds = max(end - time.monotonic() - 2 * _TO_WIND_UP, 10.0)
        options = [*flags, "--seconds", f"{seconds:.0f}"]
        found, ended = runner.stage("kernels", options, seconds + 3 * _TO_WIND_UP)
        if not ended:
            break
        broken = found.pop("measuring", None)
        if ended.startswith(STOPPED):
            found["left_out"] = [*found.get("left_out", []), f"{broken} and what follows"]
            break
        if broken is not None:
            found["kernels"][broken] = {"red": {broken: f"its process {ended}"}}
            found["passed"] = False
            runner.put("kernels", found)
        if len(found.get("kernels", {})) <= measured or not found:
            report.problem(f"the kernels' benchmarks: the process {ended}")
            break
        measured = len(found["kernels"])
    report.keep("kernels", found, time.monotonic() - began)
    for name, kernel in found.get("kernels", {}).items():
        for case, reason in kernel.get("red", {}).items():
            report.problem(f"{name} is red: {case}: {reason}"[:500])


def _images(
    report: Report, runner: Runner, stage: str, flags: Sequence[str], end: float, quick: bool
) -> None:
    """Run the stage of occlusion maps, or of images by gradients."""
    began = time.monotonic()
    hard = max(end - began, 30.0)
    options = [*flags, "--seconds", f"{hard - 2 * _TO_WIND_UP:.0f}"]
    found, ended = runner.stage(stage, options, 300 if quick else hard)
    if ended.startswith(STOPPED):
        found.setdefault("shortened", []).append(f"{stage}, which {ended}")
    elif ended:
        report.problem(f"{stage} {ended}")
    for part, each in found.get("precisions", found).items():
        if isinstance(each, dict) and "red" in each:
            report.problem(f"{stage}, {part}, is {each['red']}"[:500])
    report.keep(stage, found, time.monotonic() - began)


def _extract(
    report: Report,
    runner: Runner,
    flags: Sequence[str],
    folder: Path,
    quick: bool,
    ends: Mapping[str, float],
) -> None:
    began = time.monotonic()
    count = "16" if quick else "4096"
    made, ended = runner.stage("photographs", ["--photographs", str(folder), "--count", count], 120)
    extraction: Results = {"photographs": made}
    if ended:
        report.problem(f"making photographs {ended}")
        return
    for model in MODELS:
        hard = max(ends[model] - time.monotonic(), 20.0)
        seconds = f"{hard - 2 * _TO_WIND_UP:.0f}"
        options = [*flags, "--photographs", str(folder), "--seconds", seconds]
        extraction[model], ended = runner.stage(model, options, 300 if quick else hard)
        if ended.startswith(STOPPED):
            extraction[model].setdefault("shortened", []).append(f"{model}, which {ended}")
        elif ended:
            report.problem(f"the extraction of {model} {ended}")
        for precision, each in extraction[model].get("precisions", {}).items():
            if "red" in each:
                report.problem(f"{model} {precision} {each['red']}")
        report.keep("extraction", extraction, time.monotonic() - began)


def adopt(file: Path, root: Path) -> Path:
    """Copy results into bench/results/ of a checkout, named after the device.

    Raises:
        SystemExit: the folder is not a checkout, or the results are of a trial without a GPU.
    """
    facts = json.loads(file.read_text())
    folder = root / "bench" / "results"
    if not folder.is_dir():
        raise SystemExit(f"no folder {folder}: adopt results in the repository's own folder")
    name = facts["results"]["device"].get("name")
    if name is None or facts["results"]["quick"]:
        raise SystemExit(f"{file} is a trial's: only what a GPU was measured by is adopted")
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()
    path = folder / f"on_gpu-{'-'.join(words)}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    return path


def main(argv: list[str] | None = None) -> int:
    """Measure, or adopt what was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m fc7.bench.on_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, nargs="?", help="a folder for the results")
    parser.add_argument(
        "--adopt", type=Path, metavar="FILE", help="results to keep in the checkout"
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes that only prove the script"
    )
    parser.add_argument("--seconds-limit", type=float, default=480, metavar="SECONDS")
    parser.add_argument("--tests", type=Path, default=Path("tests/kernels"), help="folder or file")
    arguments = parser.parse_args(argv)
    if arguments.adopt:
        print(adopt(arguments.adopt, Path.cwd()))
        return 0
    if arguments.out is None:
        parser.error("name a folder for the results: python -m fc7.bench.on_gpu OUT")
    if arguments.device == "cpu" and not arguments.quick:
        parser.error("--device cpu is for trying the script out: add --quick")
    command = "python -m fc7.bench.on_gpu OUT"
    if arguments.quick:
        command += f" --device {arguments.device} --quick"
    if arguments.seconds_limit != parser.get_default("seconds_limit"):
        command += f" --seconds-limit {arguments.seconds_limit:g}"
    return measure(
        arguments.out,
        arguments.device,
        arguments.quick,
        arguments.seconds_limit,
        arguments.tests,
        command,
    )


if __name__ == "__main__":
    # Ended from outside, it takes its processes along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
