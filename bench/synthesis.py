"""Images by gradient ascent: what they cost beside loops, and whether they are what was asked for.

    python -m fc7.bench.synthesis [--second tiny-cifar10=FILE --second tiny-shapes=FILE]
                                  [--cifar GLOB]

Speed: channels of AlexNet's conv5 for 100 steps, in turns, in one process; CPU-seconds of all
threads over images times steps, medians. Nothing is reported unless all agree on the gradient.

Quality: an image of every class of the two networks that come with fc7. Each should be taken for
its class with at least .9, its logit should stand above the 99th percentile of real images' (of the
class's own logit over images of every class), and a second network of the same kind, trained with
another seed by `python -m fc7.bench.train NAME --seed 1`, should say the same.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fc7.bench.record import record, recorded_cases
from fc7.bench.synthesis_contestants import WHO, Bench
from fc7.engine.data import Source, open_source
from fc7.engine.models import Network, load_model
from fc7.engine.synthesis.presets import class_objective, recipe
from fc7.engine.synthesis.queue import AscentQueue, Task

SPEED_BARS = {WHO[1]: 1.0, WHO[2]: 0.5}
"""The most that ours may take of a loop's CPU-seconds."""
PROBABILITY, PERCENTILE, AGREED = 0.9, 99.0, 0.8
PARTS = ("tiny-shapes", "tiny-cifar10", "speed")
ROUNDS, STEPS, CHANNELS, LOOP_CHANNELS = 5, 100, 16, 1
SEED, REAL_IMAGES = 0, 2000


def speed(rounds: int, steps: int) -> dict[str, Any]:
    """Let all make images of channels, in turns."""
    bench = Bench()
    errors = bench.check()
    seconds: dict[str, list[float]] = {who: [] for who in WHO}
    for number in range(rounds):
        for who in WHO[:: -1 if number % 2 else 1]:
            count = CHANNELS if who == WHO[0] else LOOP_CHANNELS
            channels = range(number * count, (number + 1) * count)
            seconds[who].append(bench.seconds_an_evaluation(who, channels, steps))
    medians = {who: statistics.median(each) for who, each in seconds.items()}
    return {
        "errors": errors,
        "steps": steps,
        "batch": bench.batch,
        "rounds": seconds,
        "cpu_seconds_an_evaluation": medians,
        "ratios": {who: medians[WHO[0]] / medians[who] for who in WHO[1:]},
        "bars": SPEED_BARS,
    }


def quality(name: str, source: Source, second: Path | None) -> dict[str, Any]:
    """Make an image of every class and judge them."""
    network = load_model(name, device="cpu")
    assert network.labels is not None
    count = len(network.labels)
    how = recipe("lucid", network)
    asked = [class_objective("lucid", unit) for unit in range(count)]
    queue = AscentQueue(network, asked[0], how, count)
    tasks = (Task(unit, one, SEED + unit) for unit, one in enumerate(asked))
    made = sorted((each for group in queue(tasks) for each in group), key=lambda each: each.row)
    images = torch.stack([each.image for each in made]).mul(255).round().div(255)
    logits, real = network(images), _real_logits(network, source)
    classes = torch.arange(count)
    least = torch.quantile(real, PERCENTILE / 100, dim=0)
    found = {
        "classes": count,
        "steps": how.steps,
        "taken_for_their_class": int((logits.argmax(1) == classes).sum()),
        "least_probability": float(logits.softmax(1)[classes, classes].min()),
        "above_real_images": int((logits[classes, classes] > least).sum()),
        "real_images": len(real),
        "rose": int(sum(each.curve[-1] > each.curve[0] for each in made)),
    }
    if second is not None:
        other = replace_weights(network, name, second)
        found["second_network_says_the_same"] = int((other(images).argmax(1) == classes).sum())
    return found


def replace_weights(network: Network, name: str, file: Path) -> Network:
    """Return the second network: of the same kind, with a file's weights."""
    from fc7.engine.models.tiny import load_tiny

    other = load_tiny(name, file)
    return Network(
        other,
        name,
        weights=str(file.name),
        transform=network.transform,
        mean=network.mean,
        std=network.std,
        labels=network.labels,
        device="cpu",
    )


def _real_logits(network: Network, source: Source) -> Tensor:
    rows = range(min(REAL_IMAGES, len(source)))
    with torch.no_grad():
        return torch.cat(
            [
                network(network.transform(source.decode(source.read(row)))[None].float() / 255)
                for row in rows
            ]
        )


def missed(results: dict[str, Any]) -> list[str]:
    """Return a line for each bar that was missed."""
    lines = []
    if results["speed"]:
        lines += [
            f"CPU-seconds to {who}: {results['speed']['ratios'][who]:.2f}, bar {bar}"
            for who, bar in SPEED_BARS.items()
            if results["speed"]["ratios"][who] > bar
        ]
    for name, found in results["quality"].items():
        count = found["classes"]
        for what in ("taken_for_their_class", "above_real_images", "rose"):
            if found[what] < count:
                lines.append(f"{name}, {what}: {found[what]} of {count}")
        if found["least_probability"] < PROBABILITY:
            lines.append(f"{name}, least probability: {found['least_probability']:.2f}")
        same = found.get("second_network_says_the_same")
        if same is not None and same < AGREED * count:
            lines.append(f"{name}, a second network agrees on {same} of {count}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cifar", metavar="GLOB", help="CIFAR-10 as Parquet files")
    parser.add_argument("--second", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=PARTS, help="one part alone; the others stay")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    seconds = {name: Path(file) for name, _, file in (s.partition("=") for s in arguments.second)}
    before = recorded_cases("synthesis") if arguments.only else {}
    results: dict[str, Any] = {name: before.get(name, {}) for name in ("quality", "speed")}
    sources = {"tiny-shapes": f"shapes:{REAL_IMAGES}:2", "tiny-cifar10": arguments.cifar}
    parts = [arguments.only] if arguments.only else PARTS
    for name in [part for part in parts if part in sources]:
        if sources[name] is None:
            print(f"went without {name}: it needs --cifar GLOB")
            continue
        results["quality"][name] = quality(name, open_source(sources[name]), seconds.get(name))
        print(name, results["quality"][name], flush=True)
        if name not in seconds:
            print(f"went without a second {name}: it needs --second {name}=FILE")
    if "speed" in parts:
        results["speed"] = speed(arguments.rounds, arguments.steps)
        print(results["speed"]["cpu_seconds_an_evaluation"], results["speed"]["ratios"])
    results["missed"] = missed(results)
    words = "--cifar 'cifar10/*.parquet' --second tiny-cifar10=FILE --second tiny-shapes=FILE"
    print(record("synthesis", results, f"python -m fc7.bench.synthesis {words}"))
    for line in results["missed"]:
        print("MISSED", line)
    return 1 if results["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
