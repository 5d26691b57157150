"""The README's rows of images that are made: what `fc7.bench` measured of each technique."""

from collections.abc import Mapping
from typing import Any

Row = tuple[str, str, str]
Results = Mapping[str, Any]


def fool_rows(results: Results) -> list[Row]:
    """Return the rows of adversarial examples, beside Foolbox where it has the same attack."""
    rows = []
    for case, facts in results["cases"].items():
        ours = facts["fc7"]
        if "ratios" not in facts:
            what = f"adversarial examples, margin ascent, {facts['rows']} unseen shapes, fooled"
            size = f"median L2 {ours['median_l2']:.3f}, {ours['median_evaluations']:.0f} gradients"
            rows.append((what, f"{ours['success']:.1%} ({size})", "100 %"))
            continue
        ratios, theirs = facts["ratios"], facts["foolbox"]
        what = f"adversarial examples, DDN, {case}, {facts['rows']} unseen shapes"
        rows += [
            (f"{what}, fooled", f"{ours['success']:.1%} (Foolbox: {theirs['success']:.1%})",
             "100 %"),
            (f"{what}, median L2 to Foolbox, {facts['steps']} gradients",
             f"{ratios['median_l2']:.3f} x ({ours['median_l2']:.3f})", "1.1 x at most"),
            (f"{what}, CPU-seconds to Foolbox",
             f"{ratios['cpu_seconds']:.2f} x ({ours['cpu_seconds_an_image']:.2f} CPU-s an image)",
             "1 x at most"),
        ]  # fmt: skip
    return rows


def facet_rows(results: Results) -> list[Row]:
    """Return the rows of a class's known kinds that images show, and of what knows no facets."""
    what = "known kinds of a class that its images show (recall, 4 classes of 4 kinds)"
    return [
        (f"{what}: {way}", f"{found['mean']:.2f}", "1.00" if way == "facets" else "")
        for way, found in results["recall"].items()
    ]


def synthesis_rows(results: Results) -> list[Row]:
    """Return the rows of class images: what they cost beside loops, and who knows them again."""
    rows = []
    if speed := results["speed"]:
        ours = speed["cpu_seconds_an_evaluation"]["fc7"]
        rows += [
            (
                f"images of AlexNet's conv5 channels, CPU-seconds of a step, to {who}",
                f"{ratio:.2f} x ({ours:.3f} CPU-s)",
                f"{speed['bars'][who]:g} x at most",
            )
            for who, ratio in speed["ratios"].items()
        ]
    for name, found in results["quality"].items():
        count = found["classes"]
        rows.append(
            (
                f"class images of {name} that it takes for their class (least probability)",
                f"{found['taken_for_their_class']} of {count} ({found['least_probability']:.2f})",
                f"{count} of {count} (0.9)",
            )
        )
        same = found.get("second_network_says_the_same")
        if same is not None:
            bar = f"{0.8 * count:.0f} of {count}"
            what = f"class images of {name}, taken for the same by a second network"
            rows.append((what, f"{same} of {count}", bar))
    return rows


def lbfgs_rows(results: Results) -> list[Row]:
    """Return the rows of L-BFGS for a batch beside scipy's, one problem at a time, and torch's."""
    rows = []
    for case, found in results["cases"].items():
        what = f"L-BFGS, {results['problems']} problems of {case} at once, to scipy one by one"
        rows += [
            (f"{what}: largest loss", f"{found['largest_loss_ratio']:.2f} x", "2 x at most"),
            (f"{what}: evaluations", f"{found['evaluation_ratio']:.2f} x", "1.5 x at most"),
            (
                f"loss of torch's L-BFGS of all jointly, to ours, {case}",
                f"{found['joint_loss_ratio']:.1f} x",
                "",
            ),
        ]
    return rows


def inversion_rows(results: Results) -> list[Row]:
    """Return the rows of what inversions of each layer of tiny-cifar10 are off by."""
    return [
        (
            f"inversion of {layer}, tiny-cifar10: features off by (pixels)",
            f"{found['error']:.1%} ({found['pixel_error']:.0%})",
            "3 %",
        )
        for layer, found in results["cases"].items()
    ]
