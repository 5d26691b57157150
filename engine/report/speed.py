"""Where the time went, and what the run takes on the disk."""

from collections.abc import Mapping, Sequence

from fc7.engine.report.markup import EMPTY, Markup, element, join
from fc7.engine.report.section import Section, missing
from fc7.engine.report.subject import Subject
from fc7.engine.store import Job, Run, Summary
from fc7.engine.store.runner import summarize
from fc7.engine.words import bytes_text, number, plural, share, sides

_ANCHOR, _TITLE = "speed", "Speed and size"
KINDS = ("read", "decode", "forward", "write")
_MEANS = {
    "read": "fetching bytes from storage",
    "decode": "decoding and resizing images",
    "forward": "the network and what follows it",
    "write": "casting and writing arrays",
}


def speed(subject: Subject) -> Section:
    """Show the seconds by kind of work, and the bytes by output."""
    if not subject.maps:
        return missing(_ANCHOR, _TITLE, "the run holds no finished extraction")
    summaries = {name: summarize(subject.run, job) for name, job in subject.maps.items()}
    bars = [_bar(summary) for summary in summaries.values()]
    timed = [summaries[name] for name in subject.extractions or subject.maps]
    legend = element(
        "ul",
        *(
            element("li", element("i", class_=f"swatch {kind}"), element("b", kind), " ", means)
            for kind, means in _MEANS.items()
        ),
        class_="kinds",
    )
    sizes = sizes_by_output(subject.run)
    lede = (
        f"{_rate(timed)} The bars add up seconds over threads, so they may be longer than "
        f"the wall time. On disk the run takes {bytes_text(sum(size for _, size, _ in sizes))}."
    )
    body = join([*bars, legend, _steps(subject.run), _sizes(sizes)])
    return Section(_ANCHOR, _TITLE, lede, body)


def rows_per_second(summaries: Sequence[Summary]) -> float:
    """Return rows in a second of wall time, over several passes through the data."""
    seconds = sum(summary.wall_seconds for summary in summaries)
    return sum(summary.rows for summary in summaries) / seconds if seconds else 0.0


def sizes_by_output(run: Run) -> list[tuple[str, int, str]]:
    """Return (name, bytes, what it is) of everything finished in the run, the largest first."""
    sizes = [("rows", (run.folder / "rows.parquet").stat().st_size, "keys, labels, status")]
    for job in run.jobs().values():
        if not job.is_complete:
            continue
        if job.kind == "map":
            for output in job.outputs.values():
                if output.is_bytes:
                    sizes.append(
                        (output.name, job.bytes_of(output.name), "byte strings of any length")
                    )
                    continue
                shape = sides(*output.shape) or "1"
                size = output.bytes_per_row * len(run)
                sizes.append((output.name, size, f"{shape} {output.dtype} a row"))
        else:
            record = job.result_record() or {}
            size = sum(int(file["bytes"]) for file in record.get("files", {}).values())
            sizes.append((job.name, size, "the result of a " + job.kind))
    return sorted(sizes, key=lambda entry: (-entry[1], entry[0]))


def _rate(summaries: Sequence[Summary]) -> str:
    rate = rows_per_second(summaries)
    if not rate:
        return "No time was recorded."
    busy = {kind: sum(s.seconds.get(kind, 0.0) for s in summaries) for kind in KINDS}
    total = sum(busy.values())
    if not total:
        return f"{number(rate)} images a second."
    most = max(KINDS, key=lambda kind: busy[kind])
    return f"{number(rate)} images a second; {share(busy[most] / total)} of the work is {most}."


def _bar(summary: Summary) -> Markup:
    seconds = {kind: summary.seconds.get(kind, 0.0) for kind in KINDS}
    total = sum(seconds.values())
    at, pieces = 0.0, []
    for kind, value in seconds.items():
        width = 100 * value / total if total else 0.0
        pieces.append(
            element(
                "rect",
                element("title", f"{kind}: {number(value)} s, {share(value / total)}"),
                x=f"{at:.3f}%",
                y="0",
                width=f"{width:.3f}%",
                height="100%",
                class_=kind,
            )
            if width
            else EMPTY
        )
        at += width
    split = ", ".join(f"{kind} {number(value)} s" for kind, value in seconds.items())
    waited = summary.seconds.get("wait", 0.0)
    return element(
        "figure",
        element(
            "figcaption",
            element("b", summary.job),
            f" {plural(summary.rows, 'row')} in {number(summary.wall_seconds)} s of wall time, "
            f"{number(rows_per_second([summary]))} a second; the network waited "
            f"{number(waited)} s for images",
        ),
        element(
            "svg", *pieces, class_="bar-chart", role="img", aria_label=f"Seconds of work: {split}"
        ),
        element("p", split, class_="note"),
        class_="timing",
    )


def _steps(run: Run) -> Markup | None:
    """Return a table of the stages that recorded how long they took."""
    rows = [
        element("tr", element("th", job.name, scope="row"), element("td", f"{number(taken)} s"))
        for job in run.jobs().values()
        if (taken := _seconds(job)) is not None
    ]
    if not rows:
        return None
    return join([element("h3", "Steps after extraction"), table(("step", "took"), rows)])


def _seconds(job: Job) -> float | None:
    record = job.result_record() if job.kind == "stage" else None
    info: Mapping[str, object] = (record or {}).get("info", {})
    seconds = info.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def _sizes(sizes: Sequence[tuple[str, int, str]]) -> Markup:
    largest = max(size for _, size, _ in sizes) or 1
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", bytes_text(size), class_="size"),
            element(
                "td",
                element(
                    "svg",
                    element("rect", width=f"{100 * size / largest:.2f}%", height="100%"),
                    class_="size-bar",
                    aria_hidden="true",
                ),
                class_="wide",
            ),
            element("td", about, class_="quiet"),
        )
        for name, size, about in sizes
    ]
    return join([element("h3", "On disk"), table(("output", "size", "", "holds"), rows)])


def table(headings: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """Return a table that scrolls sideways where it is too wide for the screen."""
    head = element("tr", *(element("th", heading, scope="col") for heading in headings))
    whole = element("table", element("thead", head), element("tbody", *rows))
    return element("div", whole, class_="table")
