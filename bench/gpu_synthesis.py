"""How fast a GPU makes images by gradients: many at once, beside one at a time.

Ascent: channels of AlexNet's conv5 by Lucid's recipe, beside loops that make one image each.
Style: eight pictures by VGG19 and L-BFGS at once, beside the same one by one. Both without TF32,
weights random. Nothing is reported of ascent unless the loops agree on the gradient, nor of style
unless pictures made together begin as they do alone.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from fc7.bench.gpu_occlusion import use_fp32
from fc7.bench.style import TOGETHER, pictures, speed
from fc7.bench.synthesis_contestants import WHO, Bench
from fc7.bench.timing import wall_clock
from fc7.engine.models import load_model

BARS = {"ascent": 4.0, "style": 2.0}
"""Times as fast as one at a time, at equal precision."""
# Where two of a pooling's inputs are equal but for rounding, another of them may get the gradient.
_ALLOWED = 1e-2
_BATCH, _STEPS, _ROUNDS = 128, 100, 3
_SIDE, _EVALUATIONS = 256, 20
Save = Callable[[dict[str, Any]], None]


def synthesis(device: str, quick: bool, seconds: float, save: Save) -> dict[str, Any]:
    """Measure ascent, and style where there is time left.

    Args:
        device: as torch names it.
        quick: tiny cases that prove the script and measure nothing.
        seconds: to end within, more or less.
        save: called with the results so far.
    """
    end = time.monotonic() + seconds
    use_fp32("ieee")
    clock = functools.partial(wall_clock, device)
    found: dict[str, Any] = {"bars": BARS, "shortened": []}
    for name, measure in (("ascent", _ascent), ("style", _style)):
        if time.monotonic() > end - seconds / 3:
            found["shortened"].append(name)
            continue
        print(name, flush=True)
        found[name] = measure(device, quick, clock)
        save(found)
    return found


def _ascent(device: str, quick: bool, clock: Callable[[], float]) -> dict[str, Any]:
    batch, steps = (2, 2) if quick else (_BATCH, _STEPS)
    bench = Bench(batch=batch, device=device, clock=clock)
    try:
        errors = bench.check(_ALLOWED)
    except AssertionError as error:
        return {"red": str(error)}
    taken: dict[str, list[float]] = {who: [] for who in WHO}
    for number in range(1 if quick else 1 + _ROUNDS):
        for who in WHO[:: -1 if number % 2 else 1]:
            count = batch if who == WHO[0] else 1
            channels = range(number % 2 * count, (number % 2 + 1) * count)
            spent = bench.seconds_an_evaluation(who, channels, steps)
            if quick or number:  # the first loads cuDNN
                taken[who].append(spent)
    medians = {who: statistics.median(each) for who, each in taken.items()}
    return {
        "case": f"alexnet conv5, {steps} steps, {batch} together",
        "errors": errors,
        "rounds": taken,
        "seconds_an_evaluation": medians,
        "ratios": {who: medians[who] / medians[WHO[0]] for who in WHO[1:]},
    }


def _style(device: str, quick: bool, clock: Callable[[], float]) -> dict[str, Any]:
    side, evaluations = (48, 2) if quick else (_SIDE, _EVALUATIONS)
    together = 2 if quick else TOGETHER
    name = "tiny-shapes" if quick else "vgg19"
    network = load_model(name, weights="random", seed=0, device=device)
    style, *contents = pictures(None, side, 1 + together)
    found = speed(network, torch.cat(contents), style, evaluations, 1 if quick else _ROUNDS, clock)
    case = f"{name}, {together} pictures of {side} pixels, {evaluations} evaluations"
    if not found["losses_apart"] < _ALLOWED:
        return {"case": case, "red": f"together and alone differ by {found['losses_apart']:.1e}"}
    # One by one over together, as bars of GPUs are written.
    return {"case": case, **found, "ratio": 1 / found["ratio"]}
