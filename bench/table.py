"""The README's table of measured numbers: `python -m fc7.bench.table [--check]`.

Every number in it comes from a file in `bench/results/`, which says on what machine and with what
command it was measured. The table stands between two markers in README.md, and `--check` fails
when it is not what the results say now.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fc7.bench.kernel_report import kernel_rows
from fc7.bench.style_table import style_rows, style_tiles_rows, stylize_rows, texture_rows
from fc7.bench.synthesis_table import (
    facet_rows,
    fool_rows,
    inversion_rows,
    lbfgs_rows,
    synthesis_rows,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
README = ROOT / "README.md"
START, END = "<!-- results -->", "<!-- /results -->"
Row = tuple[str, str, str]
Results = Mapping[str, Any]


def extract_rows(results: Results) -> list[Row]:
    """Return the rows of extraction beside its peers."""
    peers = {"thingsvision": "thingsvision 2.7.3", "dataloader": "DataLoader + hook + np.save"}
    rows = []
    for name, ratio in results["ratios"].items():
        precision, peer = name.split(" to ")
        ours = results["contestants"][f"fc7 {precision}"]["images_per_cpu_second"]
        rows.append(
            (
                f"AlexNet fc7, {precision}, {results['images']} JPEGs, to {peers[peer]}",
                f"{ratio['rate']:.2f} x ({ours:.0f} images per CPU-second)",
                f"{ratio['bar']} x",
            )
        )
    for precision, bar in (("fp32", "0.005"), ("bf16", "0.05")):
        if f"fc7 {precision}" in results["drift"]:
            mean = results["drift"][f"fc7 {precision}"]["mean"]
            rows.append(
                (f"mean drift of fc7 to PIL + torchvision, {precision}", f"{mean:.4f}", bar)
            )
    peak = min(ratio["peak"] for name, ratio in results["ratios"].items() if "fp32" in name)
    worst = max(ratio["peak"] for name, ratio in results["ratios"].items() if "fp32" in name)
    span = f"{worst:.2f} x" if f"{peak:.2f}" == f"{worst:.2f}" else f"{peak:.2f} to {worst:.2f} x"
    rows.append(("peak memory of the same in fp32, to the peers", span, "1 x"))
    return rows


def memory_rows(results: Results) -> list[Row]:
    """Return the row of memory over many rows."""
    few, many = results["rows"]["few"], results["rows"]["many"]
    what = f"peak memory over {many:,} rows, to {few} ({results['data']})"
    return [(what, f"{results['ratio']:.2f} x", f"{results['bar']} x")]


def startup_rows(results: Results) -> list[Row]:
    """Return the row of the command line's answer."""
    return [("`fc7 --help`", f"{results['wall_seconds']:.2f} s", f"{results['bar_seconds']} s")]


def indexing_rows(results: Results) -> list[Row]:
    """Return the rows of exact search beside FAISS and of the approximate indexes."""
    size = f"{results['rows']:,} x {results['dimensions']}"
    rows = []
    for key, facts in results.items():
        if key.startswith("exact_"):
            queries = key.removeprefix("exact_")
            rate = facts["fc7"]["queries_per_second"]
            what = f"exact search, {size}, {queries} queries, to FAISS"
            ratio = f"{facts['speed_of_faiss']:.2f} x ({rate:.0f} queries/s)"
            rows.append((what, ratio, "0.95 x"))
    for kind in ("pca", "ivf"):
        if kind in results:
            recall = results[kind]["recall_at_10"]
            rate = results[kind]["queries_1024"]["queries_per_second"]
            what = f"{kind} index, {size}, 1024 queries, recall at 10"
            rows.append((what, f"{recall:.4f} ({rate:.0f} queries/s)", ""))
    return rows


def umap_rows(results: Results) -> list[Row]:
    """Return the row of UMAP from a fresh process."""
    speedup = results["processor_seconds"]["speedup"]
    seconds = results["processor_seconds"]["fc7"]
    what = f"UMAP, {results['rows']:,} x {results['dimensions']}, fresh process, to umap-learn"
    return [(what, f"{speedup:.2f} x ({seconds:.0f} CPU-s)", "2 x")]


def agreement_rows(results: Results) -> list[Row]:
    """Return the rows of neighbours that share a label."""
    what = f"{results['k']} nearest of {results['unseen']:,} unseen CIFAR-10 images, same label"
    return [
        (f"{what}, by fc7", f"{results['fc7_among_unseen']:.1%}", "75 %"),
        (f"{what}, by pixels", f"{results['pixels_among_unseen']:.1%}", ""),
    ]


_OCCLUSION_PEERS = {"hand": "full inference, folded and batched"}


def occlusion_rows(results: Results) -> list[Row]:
    """Return the rows of exact occlusion maps beside Captum and full inference."""
    rows = []
    for case, facts in results["cases"].items():
        for peer, ratio in facts["ratios"].items():
            named = _OCCLUSION_PEERS.get(peer, peer.replace("captum", "Captum 0.9"))
            what = f"occlusion map, {case}, to {named}"
            seconds = facts["cpu_seconds"]["fc7"]
            bar = facts["bars"].get(peer)
            measured = f"{ratio:.2f} x ({seconds:.0f} CPU-s a map)"
            rows.append((what, measured, f"{bar:g} x" if bar else ""))
    for name, facts in results.get("approximations", {}).items():
        what = f"occlusion, {name}: rank correlation to exact, tiny-shapes"
        rows.append((what, f"{facts['rank_correlation']:.2f}, {facts['faster']:.1f} x faster", ""))
    return rows


_ATTRIBUTION = {"saliency": "saliency", "guided": "guided backpropagation"}


def attribution_rows(results: Results) -> list[Row]:
    """Return the rows of saliency and guided backpropagation beside Captum."""
    rows = []
    for case, facts in results["cases"].items():
        method, model, size = case.split("-")
        what = f"{_ATTRIBUTION[method]}, {model}, {size} pixels"
        seconds = facts["cpu_seconds_an_image"]["fc7"]
        for peer, ratio in facts["ratios"].items():
            measured = f"{ratio:.2f} x ({seconds:.3f} CPU-s an image)"
            bar = f"{facts['bars'][peer]:g} x"
            rows.append((f"{what}, to {peer.replace('captum', 'Captum 0.9')}", measured, bar))
        if "peaks" in facts:
            ours, theirs = facts["peaks"]["fc7"], facts["peaks"]["captum"]
            share, growth = (ours[key] / theirs[key] for key in ("peak_bytes", "growth_bytes"))
            measured = f"{share:.2f} x ({growth:.2f} x without what the loaded network takes)"
            rows.append((f"peak memory of the same, batch 8, to Captum 0.9, {model}, {method}",
                         measured, "0.7 x at most"))  # fmt: skip
    return rows


def quality_rows(results: Results) -> list[Row]:
    """Return the rows of how well maps point, and of what is left without what they point at."""
    found, rows = results["methods"], []
    bar = found["centre"]["pointing"] + results["bar"]
    for name, label in (
        ("guided, largest", "guided backpropagation"),
        ("gradient, largest", "saliency"),
        ("centre", "the centre, whatever the image"),
        ("random", "chance"),
    ):
        each = found[name]
        what = f"pointing game, {results['rows']} unseen shapes, {label} (deletion, insertion AUC)"
        areas = f"({each['deletion']:.2f}, {each['insertion']:.2f})"
        rows.append(
            (what, f"{each['pointing']:.2f} {areas}", f"{bar:.2f}" if "guided" in name else "")
        )
    return rows


def segmentation_rows(results: Results) -> list[Row]:
    """Return the rows of masks found without supervision, and of what knows less."""
    what = f"mean IoU with the true mask, {results['rows']} unseen shapes"
    best, found = results["best_threshold"], results["grabcut"]
    return [
        (f"{what}, by GrabCut from saliency", f"{found['saliency']['mean']:.2f}", "0.65"),
        (
            f"{what}, by GrabCut from guided backpropagation",
            f"{found['guided backpropagation']['mean']:.2f}",
            "",
        ),
        (f"{what}, by saliency, smoothed, at its best", f"{best['saliency, smoothed']:.2f}", ""),
        (f"{what}, by saliency at its best threshold", f"{best['saliency']:.2f}", ""),
        (f"{what}, by a box in the middle", f"{best['box in the middle']:.2f}", ""),
    ]


def pruning_rows(results: Results) -> list[Row]:
    """Return the rows of accuracy without channels, by criterion and after fine-tuning."""
    shapes = results["shapes"]
    means = shapes["accuracy"]
    gone = f"tiny-shapes without {shapes['fraction']:.0%} of its channels, chosen by"
    mean = f"mean of {shapes['seeds']} seeds"
    rows = [
        (
            f"accuracy of {gone} Taylor, {mean}",
            f"{means['taylor']:.1%} (whole: {means['whole']:.1%})",
            f"{max(means['l1'], means['random']):.1%}, the best of L1 and chance",
        ),
        (f"accuracy of {gone} L1", f"{means['l1']:.1%}", ""),
        (f"accuracy of {gone} chance, {mean}", f"{means['random']:.1%}", ""),
    ]
    if few := shapes.get("few_rows"):
        rows.append(
            (
                f"accuracy of {gone} the rise of inversion error over {few['rows']} rows",
                f"{few['accuracy']['inversion']:.1%}",
                f"{few['accuracy']['taylor']:.1%}, Taylor of the same rows",
            )
        )
    if "cifar10" in results:
        found = results["cifar10"]
        left = found["after"]["multiply_adds"] / found["before"]["multiply_adds"]
        rows.append(
            (
                f"accuracy of tiny-cifar10 with {left:.0%} of its multiply-adds, after an epoch, "
                "unseen rows",
                f"{found['tuned']['accuracy']['share']:.2%} (whole: "
                f"{found['before']['accuracy']['share']:.2%})",
                "2 points fewer",
            )
        )
    return rows


def on_gpu_rows(results: Results) -> list[Row]:
    """Return the rows of the kernels and of extraction that `fc7.bench.on_gpu` has measured."""
    found = results.get("kernels", {})
    rows = kernel_rows(found) if found.get("kernels") else []
    for model, facts in results.get("extraction", {}).items():
        for precision, each in facts.get("precisions", {}).items():
            if "red" not in each and each["batches"]:
                best = max(each["batches"].values(), key=lambda one: float(one["end_to_end"]))
                share = f"{best['share_of_the_slower']:.0%} ({best['end_to_end']:.0f} images/s)"
                what = (
                    f"{model} from JPEGs, {precision}, to the slower of decoding and forward pass"
                )
                rows.append((f"{what}, {results['device']['name']}", share, ""))
    return rows


WRITERS: Mapping[str, Callable[[Results], list[Row]]] = {
    "extract": extract_rows,
    "memory": memory_rows,
    "startup": startup_rows,
    "indexing": indexing_rows,
    "umap_cold": umap_rows,
    "agreement": agreement_rows,
    "kernels": kernel_rows,
    "occlusion": occlusion_rows,
    "attribution": attribution_rows,
    "attribution_quality": quality_rows,
    "fool": fool_rows,
    "segmentation": segmentation_rows,
    "facets": facet_rows,
    "pruning": pruning_rows,
    "on_gpu": on_gpu_rows,
    "synthesis": synthesis_rows,
    "lbfgs": lbfgs_rows,
    "inversion": inversion_rows,
    "style": style_rows,
    "style_tiles": style_tiles_rows,
    "texture": texture_rows,
    "stylize": stylize_rows,
}


def table(results_folder: Path = RESULTS) -> str:
    """Return the table in Markdown, of the results that are there."""
    lines = ["| | measured | bar | by |", "|---|---|---|---|"]
    machines = set()
    commands = []
    for path in _files(results_folder):
        facts = json.loads(path.read_text())
        writer = _writer(path)
        lines += [
            f"| {what} | {measured} | {bar} | `{writer}` |"
            for what, measured, bar in WRITERS[writer](facts["results"])
        ]
        machine = facts["machine"]
        gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
        torch = facts["versions"]["torch"]
        machines.add(f"{machine['cpu']}, {machine['cores']} cores{gpu}, torch {torch}")
        if (command := f"    {facts['command']}") not in commands:
            commands.append(command)
    if not commands:
        return "No results yet: `make bench` measures."
    where = f"Measured on {'; '.join(sorted(machines))}, by these commands:"
    return "\n".join([*lines, "", where, "", *commands])


def _writer(path: Path) -> str:
    """NAME.json, or NAME-DEVICE.json where it was measured on a GPU."""
    return path.stem.split("-", 1)[0]


def _files(results_folder: Path) -> list[Path]:
    """What there is, in the writers' order; a CPU's results before those of GPUs."""
    found = [path for path in results_folder.glob("*.json") if _writer(path) in WRITERS]
    order = list(WRITERS)
    return sorted(found, key=lambda path: (order.index(_writer(path)), path.stem))


def put_into(readme: str, text: str) -> str:
    """Return the README with the table between its markers.

    Raises:
        SystemExit: the markers are not there.
    """
    if readme.count(START) != 1 or readme.count(END) != 1:
        raise SystemExit(f"README.md must hold {START} and {END} once each")
    before, rest = readme.split(START)
    return f"{before}{START}\n{text}\n{END}{rest.split(END)[1]}"


def main(argv: list[str] | None = None) -> None:
    """Write the table, or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="fail if the README is stale")
    arguments = parser.parse_args(argv)
    old = README.read_text()
    new = put_into(old, table())
    if not arguments.check:
        README.write_text(new)
    elif new != old:
        sys.exit("README.md is stale: python -m fc7.bench.table writes it")


if __name__ == "__main__":
    main()
