"""Saliency and guided backpropagation: ours beside Captum.

    python -m fc7.bench.attribution [--only vgg16]

For each network and method all make the same maps in turns, in one process, each with the batch at
which it takes least; the seconds are the process's, of all threads, over the images. Captum runs
the network as torchvision makes it, and once more with its memory channels last. Nothing is
reported of a case unless all agree with autograd in float64 but for ReLUs that switch with the
rounding. The peak memory is that of a process of its own for each, for one batch of 8; beside it
stands the growth since just before the first map, when the network is loaded and ready.
"""

import argparse
import gc
import json
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any, get_args

import torch

from fc7.bench.attribution_contestants import WHO, Bench, Case, Method
from fc7.bench.processes import measure, own_bytes, own_peak_bytes
from fc7.bench.record import record, recorded_cases

MODELS = ("alexnet", "vgg16", "resnet18", "resnet50")
BARS = {"saliency": 1.1, "guided": 1.2}
"""The least ratio to Captum as it comes."""
LEAST = 1.0
"""The least ratio to Captum with memory channels last."""
PEAK_MODEL, PEAK_BATCH, MOST_OF_PEAK = "vgg16", 8, 0.7
_MOST_ROUNDS, _LEAST_ROUNDS, _SECONDS_A_CASE = 7, 3, 90


def compare(case: Case) -> dict[str, Any]:
    """Let all make one case's maps, in turns."""
    bench = Bench(case)
    facts: dict[str, Any] = {"errors": bench.check()}
    batches = {who: bench.best_batch(who) for who in WHO}
    rounds: dict[str, list[float]] = {who: [] for who in WHO}
    began = time.monotonic()
    for number in range(_MOST_ROUNDS):
        for who in WHO[:: -1 if number % 2 else 1]:
            rounds[who].append(bench.seconds_an_image(who, batches[who]))
        if number + 1 >= _LEAST_ROUNDS and time.monotonic() - began > _SECONDS_A_CASE:
            break
    seconds = {who: statistics.median(each) for who, each in rounds.items()}
    facts |= {"batches": batches, "rounds": rounds, "cpu_seconds_an_image": seconds}
    facts["ratios"] = {who: each / seconds["fc7"] for who, each in seconds.items() if who != "fc7"}
    facts["bars"] = {WHO[1]: BARS[case.method], WHO[2]: LEAST}
    if case.model == PEAK_MODEL:
        facts["peaks"] = {who: _peak(case, who) for who in WHO[:2]}
    return facts


def _peak(case: Case, who: str) -> dict[str, int]:
    words = [sys.executable, "-m", "fc7.bench.attribution", "--peak", who, case.method, case.model]
    found: dict[str, int] = json.loads(measure(words).output.splitlines()[-1])
    return found


def _make_once(case: Case, who: str) -> dict[str, int]:
    """Do what the peak memory is wanted of, with nothing in memory that it does not need."""
    bench = Bench(case)
    call = bench.call(who, PEAK_BATCH)
    if who != "fc7":
        bench.__dict__.pop("network")  # Captum's side is a copy
    gc.collect()
    before = own_bytes()
    call()
    peak = own_peak_bytes()
    return {"peak_bytes": peak, "before_bytes": before, "growth_bytes": peak - before}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", choices=MODELS, help="one network alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", nargs=3, metavar=("WHO", "METHOD", "MODEL"), help="for ourselves")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        who, method, model = arguments.peak
        print(json.dumps(_make_once(Case(model, method), who)))
        return 0
    results = recorded_cases("attribution") if arguments.only else {"cases": {}}
    for model in [arguments.only] if arguments.only else MODELS:
        for method in get_args(Method):
            case = Case(model, method)
            results["cases"][case.name] = compare(case)
            _say(case.name, results["cases"][case.name])
        results["missed"] = missed(results["cases"])
        path = record("attribution", results, "python -m fc7.bench.attribution")
    print(path)
    for line in results["missed"]:
        print("MISSED", line)
    return 1 if results["missed"] else 0


def _say(name: str, facts: dict[str, Any]) -> None:
    seconds, batches = facts["cpu_seconds_an_image"], facts["batches"]
    parts = [f"{name}: {seconds['fc7']:.4f} CPU-s an image at batch {batches['fc7']}"]
    parts += [f"{ratio:.2f} x {who} (at {batches[who]})" for who, ratio in facts["ratios"].items()]
    parts.append("off by " + ", ".join(f"{each:.1e}" for each in facts["errors"].values()))
    for who, peak in facts.get("peaks", {}).items():
        whole, growth = (peak[key] / 2**20 for key in ("peak_bytes", "growth_bytes"))
        parts.append(f"{who} {whole:.0f} MiB, {growth:.0f} of them for the maps")
    print("; ".join(parts), flush=True)


def shares(peaks: dict[str, dict[str, int]]) -> dict[str, float]:
    """Return our peak memory, and its growth, over Captum's."""
    return {
        what: peaks["fc7"][f"{what}_bytes"] / peaks["captum"][f"{what}_bytes"]
        for what in ("peak", "growth")
    }


def missed(cases: dict[str, Any]) -> list[str]:
    """Return a line for each bar that was missed."""
    found = []
    for name, facts in cases.items():
        found += [
            f"{name}, ratio to {who}: {facts['ratios'][who]:.2f}, bar {bar}"
            for who, bar in facts["bars"].items()
            if facts["ratios"][who] < bar
        ]
        if "peaks" in facts and (share := shares(facts["peaks"])["peak"]) > MOST_OF_PEAK:
            found.append(f"{name}, peak memory to Captum's: {share:.2f}, bar {MOST_OF_PEAK}")
    return found


if __name__ == "__main__":
    sys.exit(main())
