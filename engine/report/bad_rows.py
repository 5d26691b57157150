"""What could not be used: rows without an image, and values that are not numbers."""

from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.section import Section
from fc7.engine.report.speed import table
from fc7.engine.report.subject import Subject
from fc7.engine.store.runner import summarize
from fc7.engine.words import plural

_ANCHOR, _TITLE = "bad-rows", "Bad rows"
LISTED = 200


def bad_rows(subject: Subject) -> Section:
    """List the rows that no image came of, and count what is not finite."""
    listed, counts = subject.bad_rows(LISTED)
    odd = _nonfinite(subject)
    if not counts:
        lede = f"All {plural(len(subject.run), 'row')} could be used."
        return Section(_ANCHOR, _TITLE, lede, join(odd))
    total = sum(counts.values())
    kinds = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    lede = (
        f"{total:,} of {plural(len(subject.run), 'row')} have no usable image ({kinds}). They "
        "keep their place in every array, as zeros, and are left out of all that is above."
    )
    rows = [
        element(
            "tr",
            element("td", f"{entry['row']:,}", class_="count"),
            element("td", _cut(entry["key"]), class_="key"),
            element("td", entry["status"]),
            element("td", _cut(entry["detail"] or ""), class_="quiet"),
        )
        for entry in listed
    ]
    more = total - len(listed)
    rest = element("p", f"And {plural(more, 'more row')}.", class_="note") if more else None
    bad = table(("row", "key", "status", "what was found"), rows)
    return Section(_ANCHOR, _TITLE, lede, join(part for part in [*odd, bad, rest] if part))


def _nonfinite(subject: Subject) -> list[Markup]:
    """Return one warning for each output with values that are not finite, with its cure."""
    notes = []
    for job in subject.maps.values():
        for output, counts in summarize(subject.run, job).nonfinite.items():
            if counts.get("infinite"):
                notes.append(
                    f"{output}: {counts['infinite']:,} values are too large for its dtype and "
                    "became infinite; extract again with --dtype float32 into another --out."
                )
            if counts.get("nan"):
                notes.append(f"{output}: {counts['nan']:,} values are NaN; check the weights.")
    return [element("p", note, class_="warning") for note in notes]


def _cut(text: str, letters: int = 300) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
