"""The kernels beside what else one would call: `python -m fc7.bench.kernels [--only NAME]`.

Every kernel is checked on fresh random inputs first; one that fails is red, nothing about it is
reported, and the exit code is 1. Ours and the peers then take turns in one process, with cold
caches. Beside each time stands the share of the floor (see roofline.py), measured in the same run.

On a CPU all times are CPU-seconds, of two threads together. On a GPU they are the GPU's own, and
go to `results/kernels-DEVICE.json` instead of `results/kernels.json`.
"""

import argparse
import gc
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from fc7.bench.kernel_cases import KERNELS, Case, Inputs, cases
from fc7.bench.kernel_checks import WrongAnswerError, poisoned
from fc7.bench.kernel_report import show
from fc7.bench.record import record
from fc7.bench.roofline import Roofline, matmul_precision, measure_roofline
from fc7.bench.timing import (
    Sampler,
    clock_step,
    interleave,
    interquartile,
    new_stream,
    sampler,
    sets_of_inputs,
)

THREADS = 2
_ROUNDS = 9
_LONG_SECONDS = 2.0  # a turn of everybody that takes longer gets a third of the rounds
Results = dict[str, Any]


def measure_kernels(
    device: torch.device,
    quick: bool = False,
    only: str | None = None,
    rounds: int | None = None,
    seed: int | None = None,
    limit_seconds: float | None = None,
    chosen: Sequence[Case] | None = None,
) -> Results:
    """Check and measure the kernels; progress goes to stderr.

    Args:
        device: where.
        quick: only a few cases, few rounds.
        only: a kernel, or a part of cases' names.
        rounds: turns that the contestants take.
        seed: of the random inputs; without it they are new each time.
        limit_seconds: after which no further case is begun; those are named in the results.
        chosen: these cases instead of all.

    Returns:
        What JSON can hold: `passed`, whether every check did; under `kernels`, each kernel's cases,
        or, where one of its checks failed, `red` with the reasons and no numbers.
    """
    wanted = select(list(cases(device)) if chosen is None else chosen, only, quick)
    rounds = rounds or (3 if quick else _ROUNDS)
    began = time.monotonic()
    on_gpu = device.type == "cuda"
    if on_gpu and device.index is not None:
        torch.cuda.set_device(device)  # where Triton launches
    _say("the roofline")
    multiplying = sorted({case.precision for case in wanted if case.work.operations})
    roofline = measure_roofline(device, multiplying, quick)
    drawn = Drawn(device, seed, quick)
    results: Results = {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "clock": "GPU events" if on_gpu else "CPU-seconds",
        "threads": None if on_gpu else torch.get_num_threads(),
        "clock_step_ms": None if on_gpu else 1000 * clock_step(),
        "seed": drawn.seed,
        "roofline": {
            "gb_per_s": roofline.bytes_per_second / 1e9,
            "tflop_per_s": {k: v / 1e12 for k, v in roofline.operations_per_second.items()},
        },
        "kernels": {},
        "left_out": [],
    }
    for number, case in enumerate(wanted):
        if limit_seconds is not None and time.monotonic() - began > limit_seconds:
            results["left_out"].append(case.name)
            continue
        _say(f"{case.name} ({number + 1} of {len(wanted)}, {time.monotonic() - began:.0f} s)")
        kernel = results["kernels"].setdefault(case.kernel, {"cases": {}, "red": {}})
        try:
            kernel["cases"][case.name] = measure_case(case, device, roofline, drawn, rounds)
        except Exception as error:  # also one that the kernel itself raises
            kernel["red"][case.name] = f"{type(error).__name__}: {error}"
            _say(f"RED {case.name}: {kernel['red'][case.name]}")
        _forget(device)
    for kernel in results["kernels"].values():
        if kernel["red"]:
            del kernel["cases"]
        else:
            del kernel["red"]
    results["seconds"] = time.monotonic() - began
    results["passed"] = not any("red" in kernel for kernel in results["kernels"].values())
    return results


def select(every: Sequence[Case], only: str | None, quick: bool) -> list[Case]:
    """Return the cases of a kernel, or with a name that holds `only`; few if quick.

    Raises:
        ValueError: there is none.
    """
    found = list(every)
    if only in KERNELS:
        found = [case for case in found if case.kernel == only]
    elif only is not None:
        found = [case for case in found if only in case.name]
    if not found:
        raise ValueError(f"no case {only!r}; kernels are {', '.join(KERNELS)}")
    return [case for case in found if case.quick] if quick else found


class Drawn:
    """Sets of inputs; the last ones are kept, for the next case may need the same.

    Args:
        device: where they lie.
        seed: of the first set; new each time if None.
        quick: fewer sets than would be cold.
    """

    def __init__(self, device: torch.device, seed: int | None = None, quick: bool = False) -> None:
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._device, self._quick = device, quick
        self._draw: object = None
        self._sets: list[Inputs] = []

    def sets(self, case: Case) -> list[Inputs]:
        """Return a case's inputs, as many sets as it takes for each to be cold in its turn."""
        if case.draw is not self._draw:
            self._sets = []  # before others are drawn
            count = sets_of_inputs(self._device, case.work.bytes, self._quick)
            self._sets += [self._one(case, number) for number in range(count)]
            self._draw = case.draw
        return self._sets

    def _one(self, case: Case, number: int) -> Inputs:
        generator = torch.Generator(self._device).manual_seed(self.seed + number)
        return case.draw(generator)


def check(case: Case, inputs: Inputs, seed: int) -> float:
    """Return our error.

    Raises:
        WrongAnswerError: it is too large.
    """
    baseline = next(iter(case.peers.values()))
    with poisoned():
        ours = case.ours(*inputs)()
        theirs = baseline(*inputs)()
    try:
        return case.check(inputs, ours, theirs, np.random.default_rng(seed))
    except (IndexError, RuntimeError, TypeError, ValueError) as error:  # what could not be compared
        raise WrongAnswerError(f"{case.name}: {error}") from error


def measure_case(
    case: Case, device: torch.device, roofline: Roofline, drawn: Drawn, rounds: int
) -> Results:
    """Check one case, then time it; return its row.

    Raises:
        WrongAnswerError: our answer is wrong; nothing was timed.
    """
    stream = new_stream(device)
    with matmul_precision(case.precision):
        sets = drawn.sets(case)
        error = check(case, sets[0], drawn.seed)
        if stream:
            torch.cuda.synchronize(device)  # the inputs were drawn on another stream
        saved = {who: count(*sets[0]) for who, count in case.saved.items()}
        samplers: dict[str, Sampler] = {}
        without: dict[str, str] = {}
        for who, bind in {"fc7": case.ours, **case.peers}.items():
            try:
                with torch.cuda.stream(stream) if stream else nullcontext():
                    bound = [bind(*inputs) for inputs in sets]
                samplers[who] = sampler(bound, stream)
            except Exception as problem:
                if who == "fc7":
                    raise
                # Such as torch.compile where there is no C++ compiler.
                without[who] = f"{type(problem).__name__}: {problem}".split("\n", 1)[0]
        if sum(one.estimate for one in samplers.values()) > _LONG_SECONDS:
            rounds = -(-rounds // 3)
        seconds = interleave(samplers, rounds)
    facts = {who: one.facts() for who, one in samplers.items()}
    return row(case, roofline, seconds, facts, saved) | {
        "error": error,
        "rounds": rounds,
        "sets": len(sets),
        **({"without": without} if without else {}),
    }


def row(
    case: Case,
    roofline: Roofline,
    seconds: dict[str, list[float]],
    facts: dict[str, Results],
    saved: dict[str, int],
) -> Results:
    """Return a case's numbers: times, rates, share of the floor, ratios and bars."""
    ours = seconds["fc7"]
    middle = statistics.median(ours)
    floor = roofline.floor(case.work, case.precision)
    found: Results = {
        "precision": case.precision,
        "bytes": case.work.bytes,
        "operations": case.work.operations,
        "floor_ms": 1000 * floor,
        "ms": 1000 * middle,
        "iqr_ms": 1000 * interquartile(ours),
        "best_ms": 1000 * min(ours),
        "gb_per_s": case.work.bytes / middle / 1e9,
        "tflop_per_s": case.work.operations / middle / 1e12,
        "share_of_floor": floor / middle,
        **facts["fc7"],
        "peers": {},
    }
    if case.floor_bar is not None:
        found["floor_bar"] = case.floor_bar
        found["floor_met"] = floor / middle >= case.floor_bar
    for who, theirs in seconds.items():
        if who == "fc7":
            continue
        ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
        peer: Results = {
            "ms": 1000 * statistics.median(theirs),
            "iqr_ms": 1000 * interquartile(theirs),
            "best_ms": 1000 * min(theirs),
            **facts[who],
            "ratio": ratio,
        }
        if who in case.bars:
            peer |= {"bar": case.bars[who], "met": ratio >= case.bars[who]}
        found["peers"][who] = peer
    if saved:
        found["saved_bytes"] = saved
    if case.saved_bar is not None:
        share = saved["fc7"] / saved[next(iter(case.peers))]
        found |= {"saved_share": share, "saved_bar": case.saved_bar}
        found["saved_met"] = share <= case.saved_bar
    return found


def result_name(device: torch.device) -> str:
    """Return the name of the JSON file for a device: kernels, or kernels-nvidia-h200."""
    if device.type != "cuda":
        return "kernels"
    words = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower())
    return f"kernels-{words.strip('-')}"


def _forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None, measure: Callable[..., Results] = measure_kernels) -> int:
    """Measure, print, and write the results where all cases were measured and none is red."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.kernels")
    parser.add_argument("--only", metavar="NAME", help="a kernel, or a part of cases' names")
    parser.add_argument("--rounds", type=int, help=f"turns that each takes ({_ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="a few cases, few rounds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    if device.type != "cuda":
        torch.set_num_threads(THREADS)
    results = measure(device, arguments.quick, arguments.only, arguments.rounds)
    show(results)
    if not results["passed"]:
        print("a kernel is red: nothing was recorded")
        return 1
    if arguments.quick or arguments.only:
        print("a part of the cases: not recorded")
        return 0
    turns = f" --rounds {arguments.rounds}" if arguments.rounds else ""
    print(record(result_name(device), results, f"python -m fc7.bench.kernels{turns}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
