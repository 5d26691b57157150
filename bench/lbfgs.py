"""Many problems at once by our L-BFGS, one by one by scipy's, and at once by torch's.

    python -m fc7.bench.lbfgs

Six images to be given the Gram matrices of others (what style transfer does), and six to be found
again behind a layer of `tiny-shapes`. Losses are shares of those at the start, after as many
evaluations; ours may take half as many more, and end at twice the loss.
"""

import argparse
import shlex
import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fc7.bench.descents import GramProblems, by_autograd, scipy_of, torch_of
from fc7.bench.record import record
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.models import load_model
from fc7.engine.synthesis.invert import Inverter, InvertOptions
from fc7.engine.synthesis.lbfgs import LbfgsOptions, ValueAndGradient, minimise

COUNT = 6
MOST_EVALUATIONS, MOST_LOSS = 1.5, 2.0


def main() -> int:
    """Measure and record; return 1 where ours is behind."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.lbfgs", description=__doc__)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--layer", default="conv4", help="of tiny-shapes, to invert")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problems = GramProblems(COUNT)
    grams = [
        by_autograd(partial(problems.values, rows=slice(row, row + 1))) for row in range(COUNT)
    ]
    found = {
        "gram": compared(
            by_autograd(problems.values), grams, problems.start, arguments.evaluations
        ),
        f"inversion of {arguments.layer}": compared(
            *inversions(arguments.layer), arguments.evaluations
        ),
    }
    for name, case in found.items():
        print(name, *(f"\n  {key}: {value}" for key, value in case.items()))
    command = ["python", "-m", "fc7.bench.lbfgs", *sys.argv[1:]]
    print(record("lbfgs", {"problems": COUNT, "cases": found}, shlex.join(command)))
    behind = [
        case["largest_loss_ratio"] > MOST_LOSS or case["evaluation_ratio"] > MOST_EVALUATIONS
        for case in found.values()
    ]
    return int(any(behind))


def inversions(layer: str) -> tuple[ValueAndGradient, list[ValueAndGradient], Tensor]:
    """Return inversion problems together, each alone, and where they start."""
    network, source = load_model("tiny-shapes", device="cpu"), ShapesSource(COUNT, 5)
    images = torch.stack([source.decode(source.read(row)) for row in range(COUNT)]).float() / 255
    together = Inverter(network, layer, InvertOptions(batch_rows=COUNT))
    alone = Inverter(network, layer, InvertOptions(batch_rows=1))
    features = together.problem.features(images)
    each = [alone.problem.function(features[row : row + 1]) for row in range(COUNT)]
    return together.problem.function(features), each, together.problem.noise(COUNT, 0, 0)


def compared(
    function: ValueAndGradient, each: list[ValueAndGradient], start: Tensor, evaluations: int
) -> dict[str, Any]:
    """Return what each optimiser reaches, and ours beside scipy's."""
    first = function(start)[0]
    options = LbfgsOptions(evaluations, gradient_tolerance=0, loss_tolerance=0)
    ours = minimise(function, start, options)
    theirs = [scipy_of(one, start[row : row + 1], evaluations) for row, one in enumerate(each)]
    ratios = [float(loss) / best for loss, (best, _) in zip(ours.losses, theirs, strict=True)]
    wolfe, wolfe_count = torch_of(function, start, evaluations, "strong_wolfe")
    plain, plain_count = torch_of(function, start, evaluations, None)

    def shares(losses: Tensor) -> list[float]:
        return [float(f"{share:.3g}") for share in (losses / first).tolist()]

    return {
        "ours": shares(ours.losses),
        "scipy": shares(torch.tensor([loss for loss, _ in theirs])),
        "torch_jointly_strong_wolfe": shares(wolfe),
        "torch_jointly": shares(plain),
        "evaluations": {
            "ours": ours.evaluations.tolist(),
            "scipy": [count for _, count in theirs],
            "torch_jointly_strong_wolfe": wolfe_count,
            "torch_jointly": plain_count,
        },
        "loss_ratios": [round(ratio, 3) for ratio in ratios],
        "largest_loss_ratio": round(max(ratios), 3),
        "evaluation_ratio": round(
            int(ours.evaluations.sum()) / sum(count for _, count in theirs), 3
        ),
        "joint_loss_ratio": round(float((wolfe / ours.losses).median()), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
