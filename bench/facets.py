"""Which of a class's known kinds its facets show: objects of four textures, taken as one class.

    python -m fc7.bench.facets

`shapes` draws 4 objects in 4 textures each, and `tiny-shapes` tells all 16 apart. Each object is
taken as one class, whose logit is the one that its four textures have as one (`any_class`), and
`fc7 facets` is asked for its facets; it is told of no texture. A texture is met if the network
takes an image of some facet for it before all other 15 classes. Recall is the share that is met.

Beside the facets, with the same stages and steps: as many images of the same objective from noise;
facets that only their starts make, as in the paper; and such starts of one image, not a mean.
Objects of `shapes` lie anywhere, so that a mean of 15 images is nearly grey; photographs of a class
often have theirs in the middle. The weights of the pull and of total variation were chosen on rows
of the default seed.
"""

import argparse
import shlex
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fc7.bench.record import record
from fc7.engine.data.shape_drawing import OBJECTS
from fc7.engine.features.workflow import ExtractOptions, extract
from fc7.engine.models import Network, load_model
from fc7.engine.store import Run
from fc7.engine.synthesis.facet_plan import NEAREST
from fc7.engine.synthesis.facet_stages import STEPS, stages
from fc7.engine.synthesis.facet_workflow import facets_with_summary, plan_of
from fc7.engine.synthesis.facets import PULL, FacetsOptions, Plan
from fc7.engine.synthesis.objectives import any_class
from fc7.engine.synthesis.queue import Task
from fc7.engine.synthesis.stages import Stages

Predicted = NDArray[np.int64]
UNIONS = [tuple(range(4 * number, 4 * number + 4)) for number in range(len(OBJECTS))]


def recall(plan: Plan, predicted: Predicted) -> dict[str, Any]:
    """Return the recall of each object, how many images it had, and for what they were taken."""
    found: dict[str, Any] = {}
    of = [plan.targets.target(row).units for row in range(len(plan.targets))]
    for name, union in zip(OBJECTS, UNIONS, strict=True):
        own = [int(predicted[row]) for row, units in enumerate(of) if units == union]
        met = len(set(own) & set(union)) / len(union)
        found[name] = {"recall": met, "images": len(own), "taken_for": own}
    mean = sum(one["recall"] for one in found.values()) / len(found)
    return {"mean": round(mean, 4), "objects": found}


def of_noise(network: Network, plan: Plan, steps: int | None, seed: int) -> Predicted:
    """Return what images from noise are taken for, as many of each object as it has facets."""
    ascent = Stages(network, any_class(UNIONS[0]), stages(network, steps))
    tasks = [
        Task(row, any_class(plan.targets.target(row).units), seed * len(plan.targets) + row)
        for row in range(len(plan.targets))
    ]
    pictures = {one.row: one.image for group in ascent(tasks) for one in group}
    images = torch.stack([pictures[row] for row in range(len(tasks))])
    logits = network(images.mul(255).round() / 255)
    return np.asarray(logits.argmax(1), dtype=np.int64)


def purity(plan: Plan, labels: NDArray[np.int64]) -> float:
    """Return the share of the rows nearest to a facet that are of its most frequent texture."""
    near = [facet.nearest for kinds in plan.facets for facet in kinds]
    most = [Counter(labels[rows].tolist()).most_common(1)[0][1] for rows in near]
    return round(sum(most) / sum(len(rows) for rows in near), 4)


def made(run: Run, network: Network, options: FacetsOptions, out: Path) -> tuple[Plan, Predicted]:
    """Make the facets of all objects, and return what their images are taken for."""
    plan = plan_of(run, network, UNIONS, options=options)
    found = facets_with_summary(plan, network, out, options)[0]
    return plan, np.asarray(found["facets.predicted"])


def main() -> int:
    """Measure and record; return 1 when a texture is not met."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.facets", description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--data-seed", type=int, default=5)
    parser.add_argument("--steps", type=int, help="instead of the default")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    network = load_model("tiny-shapes", device="cpu")
    spec = f"shapes:{arguments.rows}:{arguments.data_seed}"
    usual, ways = FacetsOptions(steps=arguments.steps, seed=arguments.seed), dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="fc7-") as folder:
        run = extract(spec, network, ["fc7"], Path(folder) / "run", ExtractOptions(top_k=0))
        for name, options in (
            ("facets", usual),
            ("facets, from their starts alone", replace(usual, pull=0.0)),
            (
                "facets from starts alone, of one image each",
                replace(usual, pull=0.0, nearest=1),
            ),
        ):
            plan, predicted = made(run, network, options, Path(folder) / f"made-{len(ways)}")
            ways[name] = recall(plan, predicted)
            if options is usual:
                first, pure = plan, purity(plan, run.labels)
    noise = of_noise(network, first, arguments.steps, arguments.seed)
    ways["noise, the same objective without facets"] = recall(first, noise)
    for name, found in ways.items():
        each = " ".join(f"{one['recall']:.2f}" for one in found["objects"].values())
        print(f"{name:50} {found['mean']:.3f}   {each}")
    results = {
        "rows": arguments.rows,
        "data_seed": arguments.data_seed,
        "seed": arguments.seed,
        "options": {"pull": PULL, "nearest": NEAREST, "steps": arguments.steps or STEPS},
        "facets": [len(kinds) for kinds in first.facets],
        "purity": pure,
        "recall": ways,
    }
    command = ["python", "-m", "fc7.bench.facets", *sys.argv[1:]]
    print(record("facets", results, shlex.join(command)))
    return int(ways["facets"]["mean"] < 1)


if __name__ == "__main__":
    sys.exit(main())
