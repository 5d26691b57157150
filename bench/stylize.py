"""Fast style: which normalisation learns faster, and what one pass is worth beside a descent.

    python -m fc7.bench.stylize --cifar 'cifar10/*.parquet'

- Networks with instance and with batch normalisation (Ulyanov, Vedaldi and Lempitsky, 2016) are
  trained for equally many steps from each of several seeds: the former's loss must be the lower one
  each time, of images that none has seen and of the last batches of training.
- A network that is trained for longer gives unseen images a style in one pass. Its loss must be
  within 3 times that of an L-BFGS descent of the same images from their content, in less than a
  hundredth of the CPU-seconds; the two take turns.

The loss is what training lowers, by layers of `tiny-cifar10`. The images are drawings, or
CIFAR-10's, twice as large; those that are unseen are the last in the order of training, which it
never comes to.
"""

import argparse
import dataclasses
import math
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fc7.bench.record import record
from fc7.bench.timing import interleave
from fc7.engine.data import Source, open_source
from fc7.engine.models import Network, load_model
from fc7.engine.store import Run, run_stage
from fc7.engine.style.fast.crops import random_crop, shrunk
from fc7.engine.style.fast.options import TrainStylizerOptions
from fc7.engine.style.fast.paintings import Painting, read_paintings
from fc7.engine.style.fast.stylizer import Stylizer, load_stylizer
from fc7.engine.style.fast.training import RESULT, TrainStylizer
from fc7.engine.style.perceptual import Targets
from fc7.engine.style.picture import DescentOptions, descend
from fc7.engine.synthesis.penalties import TotalVariation

MOST_LOSS, LEAST_SPEED = 3.0, 100.0
_SIDE, _LAST = 64, 20
_DRAWINGS = "shapes:20000:11"


def pattern(side: int = 2 * _SIDE) -> Tensor:
    """Return an image of a style, (3, side, side) in [0, 1]: bent stripes of orange and blue."""
    down, across = np.mgrid[0:side, 0:side] / side
    bend = 0.08 * np.sin(2 * np.pi * 2 * across) + 0.05 * np.sin(2 * np.pi * 3 * (across + down))
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * 7 * (down + bend))
    fine = 0.5 + 0.5 * np.sin(2 * np.pi * 29 * (down + bend + 0.15 * across))
    colours = np.array([[0.95, 0.55, 0.15], [0.10, 0.20, 0.45]])
    mixed = wave[..., None] * colours[0] + (1 - wave[..., None]) * colours[1]
    painted = np.clip(mixed * (0.7 + 0.5 * fine[..., None]), 0, 1)
    return torch.from_numpy(painted).permute(2, 0, 1).float().contiguous()


def unseen(source: Source, count: int, options: TrainStylizerOptions) -> Tensor:
    """Return images (count, 3, side, side) in [0, 1] that training never comes to.

    Raises:
        ValueError: it comes to all of them.
    """
    if options.steps * options.batch_rows + count > len(source):
        raise ValueError(f"{len(source)} images are too few for {options.steps} steps")
    order = np.random.default_rng([options.seed, 0]).permutation(len(source))
    images = [shrunk(source.decode(source.read(int(row))), _SIDE) for row in order[-count:]]
    crops = [random_crop(image, _SIDE, (0, place)) for place, image in enumerate(images)]
    return torch.stack(crops).float() / 255


class Bench:
    """What all measurements share: images, a style, and networks trained for it."""

    def __init__(self, network: Network, source: Source, painting: Painting, count: int) -> None:
        self._network, self._source, self._painting = network, source, painting
        self._count = count

    def trained(self, options: TrainStylizerOptions) -> tuple[TrainStylizer, Stylizer, float]:
        """Return the stage, the network, and the mean loss of the last batches."""
        stage = TrainStylizer(self._network, self._source, [self._painting], options)
        with tempfile.TemporaryDirectory(prefix="fc7-") as folder:
            job = run_stage(Run.create(Path(folder) / "run", self._source), stage)
            network = load_stylizer(job.folder / "result" / RESULT, "cpu")
            last = float(job.result("losses")[-_LAST:, 0].mean())
        return stage, network, last

    def judged(self, stage: TrainStylizer) -> tuple[Tensor, Targets]:
        """Return unseen images, and what they are to become."""
        images = unseen(self._source, self._count, stage.options)
        grams = stage.judge.grams(self._painting.image[None])
        return images, stage.judge.targets(images, grams)

    def norms(self, options: TrainStylizerOptions, seeds: int) -> dict[str, Any]:
        """Train with either normalisation, seed by seed."""
        found: dict[str, Any] = {}
        for seed in range(seeds):
            of_seed = found[str(seed)] = {}
            for norm in ("instance", "batch"):
                changed = dataclasses.replace(options, seed=seed, norm=norm)
                stage, network, last = self.trained(changed)
                images, targets = self.judged(stage)
                loss = float(total(stage, network(images), targets).mean())
                of_seed[norm] = {"unseen": round(loss, 4), "last_batches": round(last, 4)}
                print(f"seed {seed}, {norm}", of_seed[norm], flush=True)
        return {"steps": options.steps, "seeds": found}

    def one_pass(
        self, options: TrainStylizerOptions, evaluations: int, rounds: int
    ) -> dict[str, Any]:
        """Train a network, and compare it with a descent."""
        stage, network, _ = self.trained(options)
        images, targets = self.judged(stage)
        before = float(total(stage, images, targets).mean())
        how = DescentOptions(evaluations=evaluations, variation=options.variation)
        made: dict[str, Tensor] = {}

        def descent() -> None:
            made["descent"] = descend(stage.judge, targets, images, how).images

        def in_one_pass() -> None:
            made["network"] = network(images)

        in_one_pass()  # the first call chooses algorithms
        clocks = {"network": cpu_seconds(in_one_pass), "descent": cpu_seconds(descent)}
        seconds = {
            name: statistics.median(each) / len(images)
            for name, each in interleave(clocks, rounds).items()
        }
        losses = {name: float(total(stage, each, targets).mean()) for name, each in made.items()}
        return {
            "steps": options.steps,
            "evaluations": evaluations,
            "rounds": rounds,
            "loss_of_content": round(before, 4),
            "loss_of_network": round(losses["network"], 4),
            "loss_of_descent": round(losses["descent"], 4),
            "loss_ratio": round(losses["network"] / losses["descent"], 3),
            "network_cpu_seconds": round(seconds["network"], 5),
            "descent_cpu_seconds": round(seconds["descent"], 3),
            "speed_ratio": round(seconds["descent"] / seconds["network"], 1),
        }


def total(stage: TrainStylizer, images: Tensor, targets: Targets) -> Tensor:
    """Return what training lowers, (N,)."""
    variation = TotalVariation(2.0)(images) / math.prod(images.shape[2:])
    return stage.judge(images, targets).total + stage.options.variation * variation


def cpu_seconds(call: Callable[[], None]) -> Callable[[], float]:
    """Return what makes a call and returns the CPU-seconds that it took."""

    def timed() -> float:
        begun = time.process_time()
        call()
        return time.process_time() - begun

    return timed


def main(argv: list[str] | None = None) -> int:
    """Measure and record; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.stylize", description=__doc__)
    parser.add_argument("--cifar", metavar="GLOB", help="CIFAR-10 as Parquet files")
    parser.add_argument("--style", metavar="FILE", help="an image; a built-in pattern without it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--norm-steps", type=int, default=150)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-record", action="store_true", help="only show what was found")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    painting = Painting("pattern", pattern())
    if arguments.style:
        (painting,) = read_paintings([arguments.style], 2 * _SIDE)
    source = open_source(arguments.cifar or _DRAWINGS)
    bench = Bench(load_model("tiny-cifar10", device="cpu"), source, painting, arguments.images)
    options = TrainStylizerOptions(crop=_SIDE, width=8, blocks=3, threads=1)
    norms = bench.norms(dataclasses.replace(options, steps=arguments.norm_steps), arguments.seeds)
    one_pass = bench.one_pass(
        dataclasses.replace(options, steps=arguments.steps, width=16),
        arguments.evaluations,
        arguments.rounds,
    )
    print(one_pass)
    missed = [
        f"seed {seed}: instance normalisation's loss is not the lower one ({measure})"
        for seed, found in norms["seeds"].items()
        for measure in ("unseen", "last_batches")
        if not found["instance"][measure] < found["batch"][measure]
    ]
    if not one_pass["loss_ratio"] <= MOST_LOSS:
        missed.append(f"the network's loss is {one_pass['loss_ratio']} x the descent's")
    if not one_pass["speed_ratio"] >= LEAST_SPEED:
        missed.append(f"the network is {one_pass['speed_ratio']} x as fast as the descent")
    for line in missed:
        print(f"MISSED: {line}")
    if not arguments.no_record and not missed:
        results = {
            "data": "CIFAR-10, 64 pixels" if arguments.cifar else _DRAWINGS,
            "style": Path(arguments.style).name if arguments.style else "pattern",
            "images": arguments.images,
            "norms": norms,
            "one_pass": one_pass,
        }
        command = ["python", "-m", "fc7.bench.stylize"]
        for name in ("cifar", "style", "seeds", "norm_steps", "steps", "images", "evaluations",
                     "rounds"):  # fmt: skip
            value = getattr(arguments, name)
            if value != parser.get_default(name):
                command += [f"--{name.replace('_', '-')}", str(value)]
        record("stylize", results, shlex.join(command))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
