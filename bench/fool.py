"""Adversarial examples: ours beside Foolbox, on shapes nobody trained on.

    python -m fc7.bench.fool [--rows 500] [--only targeted]

Both run DDN (Rony et al., 2019) against `tiny-shapes`, for the same images, classes and number of
gradient evaluations, in one process and in turns of one batch each; the seconds are the process's,
of one thread. Foolbox's attack is called by its `run`, without the check that its `__call__` adds.
Margin ascent, which has no twin there, is judged alone. Nothing is reported unless every success
that an attack claims is one under the network as it was loaded.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fc7.bench.record import record, recorded_cases
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.models import Network, load_model
from fc7.engine.synthesis.attack_options import AttackOptions
from fc7.engine.synthesis.fool import Fooled, fool_images

CASES = ("targeted", "untargeted", "margin")
MOST_L2, MOST_SECONDS = 1.1, 1.0
"""Ours over Foolbox's: the median L2, and the CPU-seconds."""

Attack = Callable[[Tensor, Tensor], Tensor]
"""From images and classes to adversarial images."""


class RedError(Exception):
    """What was to be measured is wrong."""


def judged(
    network: Network, images: Tensor, found: Tensor, goals: Tensor, untargeted: bool
) -> dict[str, Any]:
    """Return what a plain forward pass says of adversarial images."""
    if float(found.min()) < 0 or float(found.max()) > 1:
        raise RedError("adversarial images leave [0, 1]")
    with torch.inference_mode():
        predicted = torch.cat([network(part) for part in torch.split(found, 64)]).argmax(1)
    reached = predicted != goals if untargeted else predicted == goals
    l2 = (found - images).flatten(1).norm(dim=1)[reached]
    return {
        "success": float(reached.double().mean()),
        "median_l2": float(l2.median()) if len(l2) else None,
        "reached": reached,
    }


def compare(network: Network, images: Tensor, steps: int, batch: int, case: str) -> dict[str, Any]:
    """Let both attack all images, a batch each in turns."""
    untargeted = case == "untargeted"
    goals = fool_images(network, images, case_target(case), AttackOptions(method="fgsm")).goals
    claims: list[Tensor] = []

    def ours(passes: int) -> Attack:
        def run(part: Tensor, classes: Tensor) -> Tensor:
            options = AttackOptions(method="ddn", steps=passes)
            targets = "untargeted" if untargeted else classes
            found = fool_images(network, part, targets, options, batch)
            if not torch.equal(found.goals, classes):
                raise RedError("the two do not go for the same classes")
            claims.append(found.success)
            return found.images

        return run

    for warm_up in (ours(2), foolbox_ddn(network, 2, case)):
        warm_up(images[:batch], goals[:batch])
    claims.clear()
    contestants = {"fc7": ours(steps), "foolbox": foolbox_ddn(network, steps, case)}
    seconds = dict.fromkeys(contestants, 0.0)
    made: dict[str, list[Tensor]] = {who: [] for who in contestants}
    for turn, start in enumerate(range(0, len(images), batch)):
        rows = slice(start, start + batch)
        for who in list(contestants)[:: -1 if turn % 2 else 1]:
            began = time.process_time()
            made[who].append(contestants[who](images[rows], goals[rows]))
            seconds[who] += time.process_time() - began
    facts: dict[str, Any] = {"rows": len(images), "steps": steps, "batch": batch}
    for who, parts in made.items():
        verdict = judged(network, images, torch.cat(parts), goals, untargeted)
        if who == "fc7" and not torch.equal(verdict.pop("reached"), torch.cat(claims)):
            raise RedError("we claim successes that the network as it was loaded does not confirm")
        verdict.pop("reached", None)
        per_image = seconds[who] / len(images)
        facts[who] = {**verdict, "cpu_seconds_an_image": per_image, "evaluations": steps}
    ours_found, theirs = facts["fc7"], facts["foolbox"]
    facts["ratios"] = {
        "median_l2": ours_found["median_l2"] / theirs["median_l2"],
        "cpu_seconds": ours_found["cpu_seconds_an_image"] / theirs["cpu_seconds_an_image"],
    }
    return facts


def case_target(case: str) -> str:
    """Return what a case goes for, in our words."""
    return "untargeted" if case == "untargeted" else "random"


def foolbox_ddn(network: Network, steps: int, case: str) -> Attack:
    """Return Foolbox's DDN."""
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.DDNAttack(steps=steps)
    criteria = foolbox.criteria
    kind = (
        criteria.Misclassification if case == "untargeted" else criteria.TargetedMisclassification
    )

    def run(images: Tensor, classes: Tensor) -> Tensor:
        found: Tensor = attack.run(model, images, kind(classes))
        return found.detach()

    return run


def alone(network: Network, images: Tensor) -> dict[str, Any]:
    """Return what margin ascent comes to."""
    began = time.process_time()
    found: Fooled = fool_images(network, images, "random")
    seconds = time.process_time() - began
    verdict = judged(network, images, found.images, found.goals, False)
    if not torch.equal(verdict.pop("reached"), found.success):
        raise RedError("we claim successes that the network as it was loaded does not confirm")
    evaluations = found.evaluations.double()
    return {
        "rows": len(images),
        "fc7": {
            **verdict,
            "cpu_seconds_an_image": seconds / len(images),
            "median_evaluations": float(evaluations.median()),
            "most_evaluations": int(evaluations.max()),
        },
    }


def missed(cases: dict[str, Any]) -> list[str]:
    """Return a line for each bar that was missed."""
    found = []
    for name, facts in cases.items():
        if facts["fc7"]["success"] < 1:
            found.append(f"{name}, success: {facts['fc7']['success']:.4f}, bar 1")
        for what, bar in (("median_l2", MOST_L2), ("cpu_seconds", MOST_SECONDS)):
            ratio = facts.get("ratios", {}).get(what, 0.0)
            if ratio > bar:
                found.append(f"{name}, {what} to Foolbox: {ratio:.3f}, bar {bar}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and record; return 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=987654, help="of the data set")
    parser.add_argument("--steps", type=int, default=100, help="gradient evaluations of DDN")
    parser.add_argument("--batch", type=int, default=64, help="images together, of both")
    parser.add_argument("--only", choices=CASES, help="one case alone")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    source = ShapesSource(arguments.rows, arguments.seed)
    network = load_model("tiny-shapes", device="cpu")
    rows = range(len(source))
    images = torch.stack([source.decode(source.read(row)) for row in rows]).float() / 255
    results = recorded_cases("fool") if arguments.only else {"cases": {}}
    for case in [arguments.only] if arguments.only else CASES:
        try:
            if case == "margin":
                facts = alone(network, images)
            else:
                facts = compare(network, images, arguments.steps, arguments.batch, case)
        except RedError as error:
            print(f"{case}: RED, nothing is reported: {error}")
            return 1
        results["cases"][case] = facts
        print(case, facts, flush=True)
    results["missed"] = missed(results["cases"])
    words = list(sys.argv[1:] if argv is None else argv)
    print(record("fool", results, shlex.join(["python", "-m", "fc7.bench.fool", *words])))
    for line in results["missed"]:
        print("MISSED", line)
    return 1 if results["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
