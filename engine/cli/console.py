"""What the command line shows: progress, tables, JSON for machines, what a job did."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fc7.engine.words import number

if TYPE_CHECKING:
    from fc7.engine.store import Progress, Report, Summary

INTERRUPTED, FAILED, USAGE, STRICT = 130, 1, 2, 3


def say(text: str) -> None:
    """Print a line for the person, on stderr, so that stdout stays for results."""
    print(text, file=sys.stderr, flush=True)


def emit_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout; NaN and infinities, which JSON has not, become null."""
    print(json.dumps(_finite(value), indent=1, default=str, allow_nan=False))


def emit_table(headings: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print a table on stdout; numbers are set flush right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Text, for a key such as `[red]1.png` would be read as markup.
    table = Table(title=Text(title) if title else None, title_justify="left", header_style="bold")
    for place, heading in enumerate(headings):
        numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{v:.4g}" if isinstance(v, float) else str(v)) for v in row))
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)


@contextmanager
def progress() -> "Iterator[Report]":
    """Yield a `Report` that draws one bar a job on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[split]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(step: "Progress") -> None:
            if step.job not in tasks:
                tasks[step.job] = bars.add_task(
                    step.job, total=step.total, completed=step.done, rate="", split=""
                )
            task = bars.tasks[bars.task_ids.index(tasks[step.job])]
            rate = f"{number(task.speed)}/s" if task.speed else ""
            bars.update(tasks[step.job], completed=step.done, rate=rate, split=_split(step.seconds))

        yield report


def summary_lines(summary: "Summary") -> list[str]:
    """Say what a map did, what was bad, and what to do about it."""
    lines = [f"{summary.job}: {summary.rows} rows, {summary.computed} of them now"]
    if summary.wall_seconds:
        rate = summary.rows / summary.wall_seconds
        lines.append(f"  {number(rate)} rows/s; {_split(summary.seconds)}")
    if summary.bad:
        row, status, detail = summary.bad[0]
        lines.append(f"  {len(summary.bad)} bad rows, such as row {row}: {status} ({detail})")
    for output, counts in summary.nonfinite.items():
        if counts["infinite"]:
            lines.append(
                f"  {output}: {counts['infinite']} values are too large for its dtype and became "
                "infinite; extract with --dtype float32 into another --out"
            )
        if counts["nan"]:
            lines.append(f"  {output}: {counts['nan']} values are NaN; check the weights")
    if not summary.is_complete:
        lines.append("  other parts are still to be made; the same command continues")
    return lines


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _split(seconds: Mapping[str, float]) -> str:
    kinds = ("read", "decode", "forward", "write")
    total = sum(seconds.get(kind, 0.0) for kind in kinds)
    if not total:
        return ""
    return " ".join(f"{kind} {seconds.get(kind, 0.0) / total:.0%}" for kind in kinds)
