"""Occlusion maps: what the answers rest on, for images that say the most."""

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.colours import hexadecimal, table
from fc7.engine.attribution.occlusion.pictures import heat, overlaid, peak_of
from fc7.engine.attribution.occlusion.stored import StoredOcclusion, occlusions
from fc7.engine.models.targets import LABEL, PREDICTED, class_name
from fc7.engine.report.answers import Answers, agreement, choose, mark, read_answers, seen_of
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import image, png, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.words import number, share, sides

_ANCHOR, _TITLE = "occlusion", "Occlusion maps"
_FEW_PIXELS = 64


def occlusion(subject: Subject, detail: Detail) -> Section:
    """Show image, map and overlay of chosen rows, for every finished occlusion job."""
    found = [one for one in occlusions(subject.run) if one.job.is_complete]
    if not found:
        return missing(_ANCHOR, _TITLE, "the run holds no occlusion maps; fc7 occlude makes them")
    if subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_images)
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "A square is moved over each image, and the network asked again with every place covered "
        "(Zeiler and Fergus, 2014): the image, the map of what covering changes, and the two "
        "together. Red is where the score of the class falls when the square is there, so what "
        "the answer rests on; blue is where it rises, pale grey where nothing changes. Each map "
        "has a scale of its own, up to its largest change."
    )
    body = join([_scale(), *(_job(subject, one, detail) for one in found)])
    return Section(_ANCHOR, _TITLE, lede, body)


def _job(subject: Subject, stored: StoredOcclusion, detail: Detail) -> Markup:
    answers = read_answers(subject, stored, stored.classes)
    largest = np.nan_to_num(stored.column("largest")[answers.rows])
    hanging = "Hanging on one place", np.argsort(-largest, kind="stable")
    heading = element("h3", stored.name, " ", element("small", _about(subject, stored)))
    groups = [
        element(
            "div",
            element("h4", heading),
            element("div", *cards, class_="occlusions"),
            class_="group",
        )
        for heading, rows in choose(answers, detail.examples, [hanging])
        if (cards := _cards(subject, stored, answers, rows))
    ]
    if not groups:
        return join([heading, element("p", "No image can be read any more.", class_="missing")])
    return join([heading, agreement(answers), *groups])


def _about(subject: Subject, stored: StoredOcclusion) -> str:
    """Say how the maps were made."""
    asked = {PREDICTED: "the predicted class", LABEL: "the label's class"}.get(
        str(stored.target)
    ) or class_name(subject.network, int(stored.target))
    colour = hexadecimal(stored.fill)
    square = sides(stored.window, stored.window)
    about = f"{stored.score} of {asked}, {square} pixels of {colour} every {stored.stride}"
    approximate = stored.approximation_words
    return f"{about}, approximate: {approximate}" if approximate else about


def _cards(
    subject: Subject, stored: StoredOcclusion, answers: Answers, rows: list[int]
) -> list[Markup]:
    keys = subject.keys(rows)
    cards = []
    for row in rows:
        seen = seen_of(subject, stored.job, row)
        if seen is not None:
            cards.append(_card(subject, stored, row, keys[row], seen, answers.is_right(row)))
    return cards


def _card(
    subject: Subject,
    stored: StoredOcclusion,
    row: int,
    key: str,
    seen: NDArray[np.uint8],
    is_right: bool | None,
) -> Markup:
    drops = stored.drops[row]
    peak = peak_of(drops)
    grid = (stored.size, stored.window, stored.stride)
    target, predicted = (int(stored.value(name, row)) for name in ("target", "predicted"))
    name, probability = class_name(subject.network, target), float(stored.value("probability", row))
    crisp = "crisp" if max(seen.shape[:2]) <= _FEW_PIXELS else None
    largest = float(drops.max())
    fall = f"falls by {number(largest)} at most" if largest > 0 else "falls nowhere"
    says = [] if target == predicted else [f"predicted: {class_name(subject.network, predicted)}"]
    label = subject.label_name(int(subject.labels[row]))
    if is_right is False:
        says.append(f"label: {label}")
    pictures = (
        image(webp(seen), f"{key}, as the network sees it", class_=crisp),
        image(
            png(heat(drops, *grid, peak)),
            f"Occlusion map for {name}: the {stored.score} {fall}",
            class_="map",
            title=f"changes by {number(peak)} at most",
        ),
        image(webp(overlaid(seen, drops, *grid, peak)), "The map over the image", class_=crisp),
    )
    caption = element(
        "figcaption",
        element(
            "div",
            element("b", name),
            " ",
            element("span", share(probability), class_="value"),
            mark(is_right),
            class_="answer",
        ),
        element("div", "; ".join([*says, fall]), class_="quiet"),
        element("div", key, class_="key", title=f"{key} (row {row})"),
    )
    return element("figure", element("div", *pictures, class_="trio"), caption, class_="occluded")


def _scale() -> Markup:
    colours = table()[None]
    return element(
        "div",
        element("span", "rises when covered"),
        image(png(np.repeat(colours, 2, 0)), "Blue, then pale grey at zero, then red"),
        element("span", "falls when covered"),
        class_="scale",
    )
