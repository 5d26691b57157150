"""Extraction beside its peers: `python -m fc7.bench.extract --images FOLDER`.

AlexNet's fc7 over a folder of JPEGs, each contestant a whole process that reads the same weights:
`fc7 extract` in fp32 and in bf16, thingsvision 2.7.3's own loop, and a DataLoader with a hook
(0 and 2 workers; the better one counts). Before anything is timed, each must find what the
DataLoader finds: mean drift at most 0.005 in fp32 and 0.05 in bf16.

A process starts up before it extracts, and thingsvision alone imports TensorFlow. So every
contestant also runs over a tenth of the images, and the rate is that of the other nine tenths:
(N - n) / (seconds for N - seconds for n). Rates are images per CPU-second, from the medians of
rounds in which the contestants take turns; wall times are in the results for those with an idle
machine.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.bench import peers
from fc7.bench.drift import MAX_DRIFT, drift, rows_by_name
from fc7.bench.processes import Measurement, measure, median, spread
from fc7.bench.record import record

BATCH = 32
BARS = {
    "fp32": {"thingsvision": 1.35, "dataloader": 1.3},
    "bf16": dict.fromkeys(("thingsvision", "dataloader"), 2.4),
}
"""How many times a peer's rate ours must reach, by our precision."""


@dataclass(frozen=True)
class Contestant:
    """One way to extract fc7.

    Attributes:
        name: in the results.
        command: from folder and output path to the command.
        read: from the output path to fc7, (N, 4096), in the order of the sorted file names.
        max_drift: allowed on average.
    """

    name: str
    command: Callable[[Path, Path], list[str]]
    read: Callable[[Path], NDArray[np.float32]]
    max_drift: float


def contestants(weights: Path) -> list[Contestant]:
    """Return all that can run here; the first is the reference."""
    exact = 1e-4  # the same arithmetic in the same order, but for threads
    found = [
        Contestant(
            f"dataloader, {workers} workers",
            partial(peers.dataloader_command, workers=workers, weights=weights, batch=BATCH),
            np.load,
            exact,
        )
        for workers in (0, 2)
    ]
    if peers.thingsvision_python():
        command = partial(peers.thingsvision_command, weights=weights, batch=BATCH)
        found.append(Contestant("thingsvision", command, _read_thingsvision, exact))
    for precision in ("fp32", "bf16") if has_bf16() else ("fp32",):
        found.append(
            Contestant(
                f"fc7 {precision}",
                partial(fc7_command, weights=weights, precision=precision),
                partial(rows_by_name, output="fc7"),
                MAX_DRIFT[precision],
            )
        )
    return found


def fc7_command(folder: Path, out: Path, weights: Path, precision: str) -> list[str]:
    """Return our command: fp32 stores float32 as the peers do, bf16 the default float16."""
    program = Path(sys.executable).parent / "fc7"
    dtype = "float32" if precision == "fp32" else "float16"
    options = f"--model alexnet --layers fc7 --device cpu --precision {precision} --dtype {dtype}"
    return [
        *(str(program), "extract", str(folder), "--weights", str(weights), "--out", str(out)),
        *(*options.split(), "--batch", str(BATCH)),
    ]


def has_bf16() -> bool:
    """Say whether the processor multiplies bf16 itself; emulated, it is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16 " in flags


def _read_thingsvision(out: Path) -> NDArray[np.float32]:
    # features_0-500.npy: by the first number, for as text 1000 comes before 500.
    files = sorted(
        (out / "classifier.4").glob("features_*.npy"),
        key=lambda file: int(file.stem.split("_")[1].split("-")[0]),
    )
    return np.concatenate([np.load(file) for file in files])


def check_drift(who: list[Contestant], folder: Path, work: Path) -> dict[str, dict[str, float]]:
    """Run everyone once and compare with the first; this also warms the file cache.

    Raises:
        SystemExit: somebody found something else, so there is nothing to time.
    """
    reference: NDArray[np.float32] | None = None
    found: dict[str, dict[str, float]] = {}
    for one in who:
        out = fresh(work / "out")
        measure(one.command(folder, out), environment())
        values = one.read(out)
        reference = values if reference is None else reference
        each = drift(values, reference)
        found[one.name] = {"mean": float(each.mean()), "max": float(each.max())}
        say(f"drift of {one.name}: mean {each.mean():.5f}, max {each.max():.5f}")
        if each.mean() > one.max_drift:
            raise SystemExit(
                f"{one.name} drifts by {each.mean():.5f} on average; the bar is {one.max_drift}. "
                "Nothing is timed until that is mended."
            )
    return found


def compare(folder: Path, rounds: int) -> dict[str, Any]:
    """Check, then time everybody in turns; return everything measured."""
    with tempfile.TemporaryDirectory(prefix="fc7-bench-") as name:
        work = Path(name)
        weights = work / "alexnet.pt"
        measure([sys.executable, "-m", "fc7.bench.alexnet_weights", weights])
        files = sorted(path for path in folder.iterdir() if path.is_file())
        small = work / "small"
        small.mkdir()
        for file in files[: max(1, len(files) // 10)]:
            shutil.copy(file, small)
        folders = {"all": folder, "tenth": small}
        who = contestants(weights)
        drifts = check_drift(who, folder, work)
        taken: dict[str, dict[str, list[Measurement]]] = {
            one.name: {size: [] for size in folders} for one in who
        }
        for turn in range(rounds):
            say(f"round {turn + 1} of {rounds}")
            shift = turn % len(who)
            for one in who[shift:] + who[:shift]:
                for size, images in folders.items():
                    command = one.command(images, fresh(work / "out"))
                    took = measure(command, environment())
                    taken[one.name][size].append(took)
                    say(f"  {one.name}, {size}: {took.cpu_seconds:.2f} CPU-s")
        counts = {size: sum(1 for _ in images.iterdir()) for size, images in folders.items()}
    rates = {name: summarize(runs, counts) for name, runs in taken.items()}
    return {
        "images": counts["all"],
        "images_of_the_tenth": counts["tenth"],
        "rounds": rounds,
        "threads": int(environment()["OMP_NUM_THREADS"]),
        "batch": BATCH,
        "drift": drifts,
        "contestants": rates,
        "ratios": ratios(rates),
    }


def summarize(runs: Mapping[str, list[Measurement]], counts: Mapping[str, int]) -> dict[str, float]:
    """Return medians, the rate beyond start-up, and the peak, of one contestant."""
    cpu = {size: median([m.cpu_seconds for m in taken]) for size, taken in runs.items()}
    wall = {size: median([m.wall_seconds for m in taken]) for size, taken in runs.items()}
    images = counts["all"] - counts["tenth"]
    return {
        "images_per_cpu_second": images / (cpu["all"] - cpu["tenth"]),
        "images_per_second": images / (wall["all"] - wall["tenth"]),
        "cpu_seconds": cpu["all"],
        "wall_seconds": wall["all"],
        "cpu_seconds_of_the_tenth": cpu["tenth"],
        "wall_seconds_of_the_tenth": wall["tenth"],
        "cpu_spread": spread([m.cpu_seconds for m in runs["all"]]),
        "peak_bytes": max(m.peak_bytes for m in runs["all"]),
    }


def ratios(rates: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return, for each of our precisions and each peer, our rate over theirs, and the bar."""
    found: dict[str, dict[str, Any]] = {}
    for precision, bars in BARS.items():
        ours = rates.get(f"fc7 {precision}")
        if ours is None:
            continue
        for peer, bar in bars.items():
            theirs = [rate for name, rate in rates.items() if name.startswith(peer)]
            if not theirs:
                continue
            best = max(rate["images_per_cpu_second"] for rate in theirs)
            wall = max(rate["images_per_second"] for rate in theirs)
            least = min(rate["peak_bytes"] for rate in theirs)
            ratio = ours["images_per_cpu_second"] / best
            found[f"{precision} to {peer}"] = {
                "rate": ratio,
                "bar": bar,
                "met": ratio >= bar,
                "wall_rate": ours["images_per_second"] / wall,
                "peak": ours["peak_bytes"] / least,
            }
    return found


def fresh(path: Path) -> Path:
    """Return a path with nothing at it; `.npy` so that numpy adds nothing to the name."""
    path = path.with_suffix(".npy")
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def environment() -> dict[str, str]:
    """Return what every contestant's environment has: as many threads as cores."""
    return {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}


def say(text: str) -> None:
    """Tell how far things are."""
    print(text, file=sys.stderr, flush=True)


def print_table(results: Mapping[str, Any]) -> None:
    """Print what was found, for people."""
    print(
        f"{'':24}{'img/CPU-s':>10}{'img/s':>8}{'CPU s':>8}{'wall s':>8}{'peak MB':>9}{'drift':>9}"
    )
    for name, rate in results["contestants"].items():
        print(
            f"{name:24}{rate['images_per_cpu_second']:10.1f}{rate['images_per_second']:8.1f}"
            f"{rate['cpu_seconds']:8.1f}{rate['wall_seconds']:8.1f}{rate['peak_bytes'] / 1e6:9.0f}"
            f"{results['drift'][name]['mean']:9.5f}"
        )
    for name, ratio in results["ratios"].items():
        verdict = "met" if ratio["met"] else "NOT met"
        print(
            f"{name}: {ratio['rate']:.2f} x per CPU-second (bar {ratio['bar']}: {verdict}), "
            f"{ratio['wall_rate']:.2f} x by the clock, {ratio['peak']:.2f} x the memory"
        )


def main(argv: list[str] | None = None) -> None:
    """Run the comparison and record it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", type=Path, required=True, help="a flat folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    if not peers.thingsvision_python():
        say("without thingsvision; make its environment with python -m fc7.bench.peers")
    results = compare(arguments.images, arguments.rounds)
    print_table(results)
    record(
        "extract",
        results,
        f"python -m fc7.bench.extract --images FOLDER --rounds {arguments.rounds}",
    )


if __name__ == "__main__":
    main()
