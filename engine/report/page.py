"""The page around the sections: header, navigation, styles and script, all in one file."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import PurePath

from fc7.engine.report.markup import Markup, element, escape, fill, join
from fc7.engine.report.provenance import network_facts
from fc7.engine.report.section import Section
from fc7.engine.report.speed import rows_per_second, sizes_by_output
from fc7.engine.report.subject import Subject
from fc7.engine.store.runner import summarize
from fc7.engine.words import bytes_text, number, plural


def page(subject: Subject, sections: Sequence[Section]) -> bytes:
    """Return the whole report as UTF-8."""
    shown = [section for section in sections if section.body is not None]
    style, script = _asset("report.css"), _asset("report.js") + _asset("scatter.js")
    slots = {
        "title": escape(f"{_name(subject)} · fc7"),
        # Only this style and this script may act: whatever a key might smuggle in stays dead.
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "style": style,
        "script": script,
        "navigation": join(
            element("a", section.title, href=f"#{section.anchor}") for section in shown
        ),
        "header": _header(subject),
        "sections": join([*(section.html() for section in shown), _not_shown(sections)]),
    }
    # Keys may hold what UTF-8 cannot, from file names of other encodings.
    return fill(_asset("report.html"), slots).encode("utf-8", errors="replace")


def _not_shown(sections: Sequence[Section]) -> Markup | None:
    """Return what the page has no section of, and why, or how to have it."""
    missing = [section for section in sections if section.body is None]
    if not missing:
        return None
    reasons = (
        element("div", element("dt", section.title), element("dd", section.lede))
        for section in missing
    )
    return element(
        "section",
        element("h2", "Not shown"),
        element("dl", *reasons, class_="reasons"),
        id="not-shown",
    )


def _header(subject: Subject) -> Markup:
    run = subject.run
    good = int(subject.good.sum())
    bad = len(run) - good
    # How fast images are read says little of what takes minutes over each one.
    timed = subject.extractions or subject.maps
    summaries = [summarize(run, job) for job in timed.values()]
    rate = rows_per_second(summaries)
    boxes = [(f"{good:,}", "images analysed" if good != 1 else "image analysed", "")]
    boxes.append((f"{bad:,}", plural(bad, "bad row").split(" ", 1)[1], "bad" if bad else ""))
    if subject.layers:
        layers = plural(len(subject.layers), "layer").split(" ", 1)
        boxes.append((layers[0], layers[1], ""))
    if rate:
        boxes.append((number(rate), "images a second", ""))
    boxes.append((bytes_text(sum(size for _, size, _ in sizes_by_output(run))), "on disk", ""))
    figures = element(
        "dl",
        *(
            element("div", element("dd", value), element("dt", what), class_=f"figure-box {kind}")
            for value, what, kind in boxes
        ),
        class_="figures",
    )
    network = network_facts(subject)
    named = ", ".join(layer.name for layer in subject.layers)
    facts = [
        element("div", element("dt", name), element("dd", value))
        for name, value in (
            ("Network", network),
            ("Layers", named),
            ("Source", run.meta["source"]["spec"]),
            ("Written", _now()),
        )
        if value
    ]
    return join(
        [
            element("p", "fc7 report", class_="kicker"),
            element("h1", _name(subject)),
            figures,
            element("dl", *facts, class_="facts"),
        ]
    )


def _name(subject: Subject) -> str:
    """Return a short name of the data set: the last part of what the person wrote."""
    spec = str(subject.run.meta["source"]["spec"])
    name = PurePath(spec).name or spec
    return name if len(name) <= 80 else name[:79] + "…"


def _now() -> Markup:
    now = datetime.now(UTC)
    return element(
        "time", now.strftime("%d %B %Y, %H:%M UTC"), datetime=now.isoformat(timespec="seconds")
    )


def _asset(name: str) -> str:
    return (resources.files("fc7.engine.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
