"""What `fc7.bench.on_gpu` found, in lines short enough to read at the end of a log."""

from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Any]


def table(facts: Results) -> list[str]:
    """Return the results in a few lines; `facts` are those of OUT/on_gpu.json."""
    results, versions = facts["results"], facts["versions"]
    device = results["device"]
    where = facts["machine"]["cpu"]
    if "name" in device:
        where = f"{device['name']} (sm_{device['capability'].replace('.', '')})"
    wanted = ("torch", "triton", "torchvision", "numpy", "python")
    known = ", ".join(f"{name} {versions[name]}" for name in wanted if name in versions)
    lines = ["", f"{where}, {facts['machine']['cores']} cores; {known}"]
    if "driver" in device:
        lines.append(f"driver {device['driver']}, CUDA {versions['cuda']}")
    if "tests" in results:
        lines.append(tests_line(results["tests"]))
    lines += ["", *_kernel_lines(results.get("kernels", {}))]
    lines += ["", *_occlusion_lines(results.get("occlusion", {}))]
    lines += ["", *_synthesis_lines(results.get("synthesis", {}))]
    lines += ["", *_extraction_lines(results.get("extraction", {}))]
    lines += [f"PROBLEM: {text}" for text in results["problems"]]
    if results["quick"]:
        lines.append("quick: the sizes are tiny, and no number means anything")
    return lines


def tests_line(found: Results) -> str:
    """Return the tests' counts in one line."""
    late = f", {len(found['not_run'])} files not run for lack of time" if found["not_run"] else ""
    failed = found["failed"] + found["errors"]
    return f"tests: {found['passed']} passed, {failed} failed, {found['skipped']} skipped{late}"


def _kernel_lines(found: Results) -> list[str]:
    lines = [f"{'kernel':46}{'ms':>9}{'GB/s':>8}{'TFLOP/s':>9}{'of floor':>9}  times as fast as"]
    for name, kernel in found.get("kernels", {}).items():
        if "red" in kernel:
            lines.append(f"{name} is RED: {'; '.join(kernel['red'].values())}"[:200])
        for case, one in kernel.get("cases", {}).items():
            ratios = ", ".join(f"{who} {peer['ratio']:.2f}" for who, peer in one["peers"].items())
            lines.append(
                f"{case:46}{one['ms']:9.4f}{one['gb_per_s']:8.0f}{one['tflop_per_s']:9.1f}"
                f"{one['share_of_floor']:9.0%}  {ratios}"
            )
    if found.get("left_out"):
        lines.append(f"not measured for lack of time: {', '.join(found['left_out'])}")
    return lines


def _occlusion_lines(found: Results) -> list[str]:
    lines = [f"occlusion maps: {found['case']}"] if found else []
    for precision, each in found.get("precisions", {}).items():
        if "red" in each:
            lines.append(f"{precision} is RED: {each['red']}"[:200])
            continue
        seconds = each["seconds_a_map"]
        lines.append(
            f"{precision}: {1000 * seconds['fc7']:.1f} ms a map by {each['executor']['chosen']}, "
            f"{each['ratio']:.2f} times as fast as full inference (planned {each['planned']:.2f}, "
            f"bar {found['bar']}), error {each['check']['error']:.1e} of the effect"
        )
    lines += [f"not measured for lack of time: {what}" for what in found.get("shortened", [])]
    return lines


def _synthesis_lines(found: Results) -> list[str]:
    lines = []
    for part in ("ascent", "style"):
        each = found.get(part)
        if each is None:
            continue
        if "red" in each:
            lines.append(f"{part} is RED: {each['red']}"[:200])
            continue
        seconds = next(iter(each["seconds_an_evaluation"].values()))
        ratios = each.get("ratios") or {"one by one": each["ratio"]}
        faster = ", ".join(f"{ratio:.2f} to {who}" for who, ratio in ratios.items())
        lines.append(
            f"{part}, {each['case']}: {1000 * seconds:.3f} ms an image and step; times as fast: "
            f"{faster} (bar {found['bars'][part]})"
        )
    return lines + [f"not measured for lack of time: {what}" for what in found.get("shortened", [])]


def _extraction_lines(found: Results) -> list[str]:
    lines = [
        f"{'images a second':22}{'batch':>6}{'decode':>8}{'forward':>9}{'both':>8}"
        f"{'of slower':>11}{'peak GB':>9}{'drift':>8}"
    ]
    for model, facts in found.items():
        for precision, each in facts.get("precisions", {}).items():
            if "red" in each:
                lines.append(f"{model} {precision} is RED: {each['red']}")
            for batch, one in each["batches"].items():
                peak = one["peak_bytes"]
                lines.append(
                    f"{model + ' ' + precision:22}{batch:>6}{facts['decode']:8.0f}"
                    f"{one['forward']:9.0f}{one['end_to_end']:8.0f}"
                    f"{one['share_of_the_slower']:11.0%}"
                    f"{'-' if peak is None else f'{peak / 1e9:.2f}':>9}"
                    f"{max(each['drift'].values()):8.4f}"
                )
        lines += [f"not measured for lack of time: {what}" for what in facts.get("shortened", [])]
    return lines
