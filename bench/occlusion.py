"""Occlusion maps, exact: ours beside Captum and a hand-batched forward pass.

    python -m fc7.bench.occlusion [--only alexnet]

For each network all make the same map in turns, in one process; the seconds are the process's, of
all threads. Captum is at its best `perturbations_per_eval`, with the network as torchvision makes
it, and once more with its memory channels last. Of the largest networks the peers cover a sample
of the places, for each place costs them the same; the record says so. Nothing is reported of a
case unless ours agrees with full inference in float64 as well as full inference in float32 does,
and, where whole maps are made, with Captum's away from the edges. The peak memory is that of a
process of its own for each, to the moment when the map is made.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from fc7.bench.occlusion_approximations import compare as approximations
from fc7.bench.occlusion_contestants import SAMPLE, Bench, Case, cpu_seconds
from fc7.bench.processes import measure, own_peak_bytes
from fc7.bench.record import record, recorded_cases

BARS = {"alexnet": 4.0, "vgg16": 8.5, "resnet18": 3.4, "resnet50": 2.8}
"""The least ratio to Captum, 224 pixels, window 16, stride 8."""
# Multiply-adds of full inference over those of tight windows, whose linear layers run in full.
CEILINGS = {"alexnet": 3.46, "vgg16": 8.78, "resnet18": 2.79, "resnet50": 2.76}
LEAST_SHARE, LEAST_OF_CEILING, LARGE_BAR = 0.75, 0.95, 20.0
CAPTUMS = {"captum": False, "captum, channels last": True}
_CASES = [Case(model, sampled=model in ("vgg16", "resnet50")) for model in BARS]
_LARGE = Case("vgg16", size=448, sampled=True)
_MOST_ROUNDS, _LEAST_ROUNDS, _SECONDS_A_CASE = 5, 2, 120


def compare(case: Case) -> dict[str, Any]:
    """Let all make one case's map, in turns."""
    bench = Bench(case)
    facts: dict[str, Any] = {"places": len(bench.places), "check": bench.check()}
    batch = bench.best_hand()
    peers = {name: (bench.best_captum(last), last) for name, last in CAPTUMS.items()}
    if not case.sampled:
        for peer in peers.values():
            bench.check_captum(bench.captum(*peer), bench.ours())
    seconds = _in_turns(
        {
            "fc7": lambda: cpu_seconds(bench.ours)[0],
            "hand": lambda: bench.hand_seconds(batch),
            **{name: partial(bench.captum_seconds, *peer) for name, peer in peers.items()},
        }
    )
    facts |= _against(bench, seconds) | {"hand_batch": batch}
    facts["perturbations_per_eval"] = {name: batch for name, (batch, _) in peers.items()}
    facts |= {"bars": {"captum": BARS[case.model]}, "ceiling": CEILINGS[case.model]}
    facts["peak_bytes"] = {
        "fc7": _peak(case, "fc7", 0, False),
        **{name: _peak(case, "captum", *peer) for name, peer in peers.items()},
    }
    return facts


def compare_large() -> dict[str, Any]:
    """Let ours make a large map, and full inference a sample of it."""
    bench = Bench(_LARGE)
    facts: dict[str, Any] = {"places": len(bench.places), "check": bench.check(sampled=6)}
    seconds = _in_turns(
        {"fc7": lambda: cpu_seconds(bench.ours)[0], "hand": lambda: bench.hand_seconds(8)}
    )
    return facts | _against(bench, seconds) | {"bars": {"hand": LARGE_BAR}}


def _in_turns(calls: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Return the CPU-seconds of each call in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    began = time.monotonic()
    for number in range(_MOST_ROUNDS):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            seconds[name].append(calls[name]())
        if number + 1 >= _LEAST_ROUNDS and time.monotonic() - began > _SECONDS_A_CASE:
            break
    return seconds


def _against(bench: Bench, rounds: dict[str, list[float]]) -> dict[str, Any]:
    plan = bench.occlusion.plan
    planned = plan.full_multiply_adds / plan.multiply_adds
    seconds = {name: statistics.median(each) for name, each in rounds.items()}
    ratios = {name: each / seconds["fc7"] for name, each in seconds.items() if name != "fc7"}
    return {
        "peers_sampled": SAMPLE if bench.case.sampled else None,
        "rounds": rounds,
        "cpu_seconds": seconds,
        "ratios": ratios,
        "planned": planned,
        "tight": plan.full_multiply_adds / plan.least_multiply_adds,
        "share_of_planned": ratios["hand"] / planned,
    }


def _peak(case: Case, who: str, batch: int, channels_last: bool) -> int:
    words = [sys.executable, "-m", "fc7.bench.occlusion", "--peak", who, case.model, str(batch)]
    return int(measure([*words, *(["--channels-last"] if channels_last else [])]).output)


def _make_once(case: Case, who: str, batch: int, channels_last: bool) -> None:
    """Do what the peak memory is wanted of; Captum's is reached within its first batches."""
    bench = Bench(case, folded=who == "fc7")
    if who == "fc7":
        bench.ours()
    else:
        bench.captum(batch, channels_last, stride=40)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", choices=[*BARS, "large", "approximations"], help="one alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", nargs=3, metavar=("WHO", "MODEL", "BATCH"), help="for ourselves")
    parser.add_argument("--channels-last", action="store_true", help="for ourselves")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        who, model, batch = arguments.peak
        _make_once(Case(model), who, int(batch), arguments.channels_last)
        print(own_peak_bytes())
        return 0
    results = recorded_cases("occlusion") if arguments.only else {"cases": {}}
    cases = results["cases"]
    todo: dict[str, Callable[[], None]] = {
        case.model: partial(_add, cases, case) for case in _CASES
    }
    todo |= {"large": partial(_add, cases, _LARGE)}
    todo |= {"approximations": lambda: results.update(approximations=approximations())}
    for name, measure_it in todo.items():
        if arguments.only in (None, name):
            measure_it()
            results["missed"] = _missed(cases)
            # After each: they take half an hour together.
            path = record("occlusion", results, "python -m fc7.bench.occlusion")
    print(path)
    for line in results["missed"]:
        print("MISSED", line)
    return 1 if results["missed"] else 0


def _add(cases: dict[str, Any], case: Case) -> None:
    cases[case.name] = compare_large() if case is _LARGE else compare(case)
    _say(case.name, cases[case.name])


def _say(name: str, facts: dict[str, Any]) -> None:
    ratios = ", ".join(f"{ratio:.2f} x {peer}" for peer, ratio in facts["ratios"].items())
    print(
        f"{name}: {facts['cpu_seconds']['fc7']:.1f} CPU-s, {ratios}; planned {facts['planned']:.2f}"
        f" ({facts['share_of_planned']:.0%} of it reached), tight {facts['tight']:.2f}; error "
        f"{facts['check']['error']:.1e}, of full inference {facts['check']['full_error']:.1e}"
        + "".join(f", {who} {peak / 2**20:.0f} MiB" for who, peak in _peaks(facts)),
        flush=True,
    )


def _peaks(facts: dict[str, Any]) -> list[tuple[str, int]]:
    return list(facts.get("peak_bytes", {}).items())


def _missed(cases: dict[str, Any]) -> list[str]:
    found = []
    for name, facts in cases.items():
        bars = {"share of planned": (facts["share_of_planned"], LEAST_SHARE)}
        for peer, bar in facts["bars"].items():
            bars[f"ratio to {peer}"] = facts["ratios"][peer], bar
        if "ceiling" in facts:
            bars["planned to ceiling"] = facts["planned"] / facts["ceiling"], LEAST_OF_CEILING
        if "peak_bytes" in facts:
            peaks = facts["peak_bytes"]
            bars["Captum's peak memory to ours"] = peaks["captum"] / peaks["fc7"], 1.0
        found += [
            f"{name}, {what}: {value:.2f}, bar {bar}"
            for what, (value, bar) in bars.items()
            if value < bar
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
