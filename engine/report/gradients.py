"""Saliency and guided gradients: what each pixel says for the answer, for chosen images."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.gradient_figure import how, unit_name, what
from fc7.engine.attribution.gradient_jobs import GUIDED, SALIENCY
from fc7.engine.attribution.gradient_pictures import drawn, over_image
from fc7.engine.models.targets import LABEL, PREDICTED, class_name
from fc7.engine.report.answers import Answers, agreement, choose, mark, read_answers, seen_of
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import image, png, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.store.stored import StoredMaps, stored_maps
from fc7.engine.words import number, share

_ANCHOR, _TITLE = "gradients", "Saliency and guided gradients"
_FEW_PIXELS = 64


def gradients(subject: Subject, detail: Detail) -> Section:
    """Show image, map and overlay of chosen rows, for every finished job."""
    jobs = [one for kind in (SALIENCY, GUIDED) for one in stored_maps(subject.run, kind)]
    found = [one for one in jobs if one.job.is_complete]
    if not found:
        why = "the run holds no maps of gradients; fc7 saliency and fc7 guided make them"
        return missing(_ANCHOR, _TITLE, why)
    if subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_images)
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "One step back from the answer to the pixels. Saliency is by how much each of them would "
        "change the logit (Simonyan, Vedaldi and Zisserman, 2014); a guided gradient lets through "
        "every ReLU only what speaks for the answer (Springenberg et al., 2015), and shows edges "
        "whatever the class. The image, the map, and the two together."
    )
    return Section(_ANCHOR, _TITLE, lede, join(_job(subject, one, detail) for one in found))


def _job(subject: Subject, stored: StoredMaps, detail: Detail) -> Markup:
    heading = element("h3", stored.name, " ", element("small", _about(subject, stored)))
    answers = None
    if stored.has("probability"):
        answers = read_answers(subject, stored, int(stored.about["classes"]))
    groups = [
        element(
            "div",
            element("h4", title),
            element("div", *cards, class_="occlusions"),
            class_="group",
        )
        for title, rows in _shown(subject, stored, answers, detail.examples)
        if (cards := list(_cards(subject, stored, answers, rows)))
    ]
    if not groups:
        return join([heading, element("p", "No image can be read any more.", class_="missing")])
    return join([heading, agreement(answers) if answers else None, *groups])


def _about(subject: Subject, stored: StoredMaps) -> str:
    asked = stored.about
    text = f"{what(asked)}; {how(asked)}"
    if asked.get("layer") is not None:
        return f"of {unit_name(asked)}: {text}"
    names = {PREDICTED: "the predicted class", LABEL: "the label's class"}
    target = names.get(str(asked["target"])) or class_name(subject.network, int(asked["target"]))
    return f"of {target}: {text}"


def _shown(
    subject: Subject, stored: StoredMaps, answers: Answers | None, count: int
) -> list[tuple[str, list[int]]]:
    """Return headings with the rows below them."""
    if answers is not None:
        return list(choose(answers, count))
    rows = np.flatnonzero(subject.good)
    order = np.argsort(-np.nan_to_num(stored.column("value")[rows]), kind="stable")
    return [("Strongest", rows[order][: 2 * count].tolist())]


def _cards(
    subject: Subject, stored: StoredMaps, answers: Answers | None, rows: list[int]
) -> Iterator[Markup]:
    keys = subject.keys(rows)
    for row in rows:
        seen = seen_of(subject, stored.job, row)
        if seen is not None:
            answer = _answer(subject, stored, answers, row)
            yield _card(stored, row, keys[row], seen, *answer)


def _answer(
    subject: Subject, stored: StoredMaps, answers: Answers | None, row: int
) -> tuple[str, str, str, Markup | None]:
    """Return what was asked about, its value, what else to say, and whether it is right."""
    label = subject.label_name(int(subject.labels[row]))
    if answers is None:
        return unit_name(stored.about), number(stored.value("value", row)), label, None
    target, predicted = (int(stored.value(name, row)) for name in ("target", "predicted"))
    is_right = answers.is_right(row)
    says = [] if target == predicted else [f"predicted: {class_name(subject.network, predicted)}"]
    says += [f"label: {label}"] if is_right is False else []
    probability = share(stored.value("probability", row))
    return class_name(subject.network, target), probability, "; ".join(says), mark(is_right)


def _card(
    stored: StoredMaps,
    row: int,
    key: str,
    seen: NDArray[np.uint8],
    name: str,
    value: str,
    says: str,
    sign: Markup | None,
) -> Markup:
    maps: NDArray[Any] = np.asarray(stored.maps[row], np.float32)
    crisp = "crisp" if max(seen.shape[:2]) <= _FEW_PIXELS else None
    pictures = (
        image(webp(seen), f"{key}, as the network sees it", class_=crisp),
        image(png(drawn(maps)), f"{stored.name} for {name}", class_="map"),
        image(webp(over_image(seen, maps)), "The map over the image", class_=crisp),
    )
    head = (element("b", name), " ", element("span", value, class_="value"), sign)
    caption = element(
        "figcaption",
        element("div", *head, class_="answer"),
        element("div", says, class_="quiet") if says else None,
        element("div", key, class_="key", title=f"{key} (row {row})"),
    )
    return element("figure", element("div", *pictures, class_="trio"), caption, class_="occluded")
