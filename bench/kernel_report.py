"""What the kernels' benchmark found, in words: a table for a terminal, rows for the README."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Results = Mapping[str, Any]
Cases = Mapping[str, Results]  # by name
Row = tuple[str, str, str]


def show(results: Results) -> None:
    """Print a table of the results."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160)
    roofline = results["roofline"]
    rates = ", ".join(
        f"{rate:.3g} TFLOP/s {name}" for name, rate in roofline["tflop_per_s"].items()
    )
    copied = f"copy {roofline['gb_per_s']:.0f} GB/s" + (
        f", matrix product {rates}" if rates else ""
    )
    found = Table(title=f"{results['device']}, {results['clock']}: {copied}", title_justify="left")
    for name, justify in (("", "left"), ("ms", "right"), ("IQR", "right"), ("rate", "right")):
        found.add_column(name, justify="right" if justify == "right" else "left")
    found.add_column("of floor", justify="right")
    found.add_column("times as fast as")
    for name, kernel in results["kernels"].items():
        if "red" in kernel:
            found.add_row(f"[red]{name} is RED", "", "", "", "", "; ".join(kernel["red"].values()))
        for case, facts in kernel.get("cases", {}).items():
            found.add_row(case, *_cells(facts))
    console.print(found)
    for name in results["left_out"]:
        console.print(f"no time was left for {name}")


def _cells(facts: Results) -> list[str]:
    by_bytes = f"{facts['gb_per_s']:.1f} GB/s"
    rate = by_bytes if not facts["operations"] else f"{facts['tflop_per_s']:.3g} TFLOP/s"
    words = []
    for who, peer in facts["peers"].items():
        bar = f" (bar {peer['bar']}{'' if peer['met'] else ', MISSED'})" if "bar" in peer else ""
        words.append(f"{peer['ratio']:.2f} x {who}{bar}")
    if "saved_share" in facts:
        words.append(f"saves {facts['saved_share']:.1%}{'' if facts['saved_met'] else ' MISSED'}")
    words += [f"no {who}: {why}" for who, why in facts.get("without", {}).items()]
    share = f"{facts['share_of_floor']:.0%}"
    if "floor_bar" in facts:
        share += f" (bar {facts['floor_bar']:.0%}{'' if facts['floor_met'] else ', MISSED'})"
    return [f"{facts['ms']:.4g}", f"{facts['iqr_ms']:.2g}", rate, share, "\n".join(words)]


def kernel_rows(results: Results) -> list[Row]:
    """Return the README's rows: for each kernel the figure that its bar is set on."""
    where = "" if results["device"] == "cpu" else f", {results['device']}"
    rows = []
    for name, kernel in results["kernels"].items():
        for what, measured, bar in _ROWS[name](kernel.get("cases", {})):
            rows.append((f"{what}{where}", measured, bar))
    return rows


def _gram_rows(cases: Cases) -> Iterator[Row]:
    yield from _slowest(cases, "`gram`", "torch.bmm")
    for name, facts in cases.items():
        if name.startswith("gram-512x28-n8-") and name.endswith("-nchw"):
            peer = facts["peers"]["torch.bmm"]
            what = f"`gram`, 512 x 28 x 28, batch 8, {facts['precision']}, to torch.bmm"
            yield what, f"{peer['ratio']:.2f} x", _times(peer)
    yield from _least_of_floor(cases, "`gram`")


def _gram_loss_rows(cases: Cases) -> Iterator[Row]:
    yield from _slowest(cases, "`gram_loss` and its gradient", "mse of torch.bmm")


def _guided_relu_rows(cases: Cases) -> Iterator[Row]:
    for way, words in (("both", "forward + backward"), ("backward", "backward alone")):
        some = {name: facts for name, facts in cases.items() if f"-{way}-" in name}
        for peer, peer_words in (
            ("clamp", "clamp + threshold_backward"),
            ("torch.compile", "torch.compile with a mask of bools"),
        ):
            barred = _with_bar(some, peer)
            yield from _slowest(barred, f"`guided_relu`, {words}", peer, peer_words)
    for precision in sorted({facts["precision"] for facts in cases.values()}):
        saving = [
            facts
            for facts in cases.values()
            if facts["precision"] == precision and "saved_share" in facts
        ]
        if saving:
            most = max(saving, key=lambda facts: float(facts["saved_share"]))
            what = f"`guided_relu`, {precision}, bytes saved for the backward pass, to activations"
            yield what, f"{most['saved_share']:.3g} x", f"{most['saved_bar']:.3g} x at most"


def _occlude_rows(cases: Cases) -> Iterator[Row]:
    for peer in ("torch.where", "image * (1 - mask) + fill * mask"):
        yield from _slowest(_with_bar(cases, peer) or cases, "`occlude`", peer)


def _spatial_max_rows(cases: Cases) -> Iterator[Row]:
    yield from _slowest(cases, "`spatial_max`", "flatten(2).max(2)")
    yield from _least_of_floor(cases, "`spatial_max`")


def _merge_topk_rows(cases: Cases) -> Iterator[Row]:
    yield from _slowest(cases, "`merge_topk`", "cat + two stable sorts")


_ROWS: Mapping[str, Callable[[Cases], Iterator[Row]]] = {
    "gram": _gram_rows,
    "gram_loss": _gram_loss_rows,
    "guided_relu": _guided_relu_rows,
    "occlude": _occlude_rows,
    "spatial_max": _spatial_max_rows,
    "merge_topk": _merge_topk_rows,
}


def _slowest(cases: Cases, what: str, peer: str, peer_words: str = "") -> Iterator[Row]:
    """The case nearest to its bar; without bars, the one of the lowest ratio."""
    found = {name: facts["peers"][peer] for name, facts in cases.items() if peer in facts["peers"]}
    if found:
        name = min(found, key=lambda name: found[name]["ratio"] / found[name].get("bar", 1.0))
        count = f" of {len(found)} cases" if len(found) > 1 else ""
        words = f"{what}, to {peer_words or peer}"
        words += f" (worst{count}: {name.split('-', 1)[1]})" if count else ""
        yield words, f"{found[name]['ratio']:.2f} x", _times(found[name])


def _least_of_floor(cases: Cases, what: str) -> Iterator[Row]:
    found = {name: facts for name, facts in cases.items() if "floor_bar" in facts}
    if found:
        name = min(found, key=lambda name: float(found[name]["share_of_floor"]))
        share, bar = found[name]["share_of_floor"], found[name]["floor_bar"]
        words = f"{what}, share of the floor (worst of {len(found)} cases: {name.split('-', 1)[1]})"
        yield words, f"{share:.0%}", f"{bar:.0%}"


def _with_bar(cases: Cases, peer: str) -> Cases:
    return {name: facts for name, facts in cases.items() if "bar" in facts["peers"].get(peer, {})}


def _times(peer: Results) -> str:
    return f"{peer['bar']:g} x" if "bar" in peer else ""
