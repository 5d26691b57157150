"""Occlusion maps: what the answers rest on, for images that say the most."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.colours import hexadecimal, table
from fc7.engine.attribution.occlusion.pictures import heat, overlaid, peak_of
from fc7.engine.attribution.occlusion.stored import StoredOcclusion, occlusions
from fc7.engine.attribution.targets import LABEL, PREDICTED, class_name, classes_of_labels
from fc7.engine.data.transform import Transform
from fc7.engine.errors import BadImage
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import as_pixels, image, png, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.words import number, plural, share, sides

_ANCHOR, _TITLE = "occlusion", "Occlusion maps"
_FEW_PIXELS = 64


@dataclass(frozen=True)
class Answers:
    """What the network said of the rows that have maps.

    Attributes:
        rows: (M,), the good rows.
        probability: (M,), of the class that was asked about.
        largest: (M,), the largest fall on the map.
        wrong: (M,) bool, where the prediction is not the label; None without labels that are
            the network's classes.
        labelled: (M,) bool, where there is a label to compare with.
    """

    rows: NDArray[np.int64]
    probability: NDArray[np.float32]
    largest: NDArray[np.float32]
    wrong: NDArray[np.bool_] | None
    labelled: NDArray[np.bool_]


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


def read_answers(subject: Subject, stored: StoredOcclusion) -> Answers:
    """Read the columns beside the maps."""
    rows = np.flatnonzero(subject.good)
    probability = np.nan_to_num(stored.column("probability")[rows])
    largest = np.nan_to_num(stored.column("largest")[rows])
    classes = _classes(subject, stored)
    labels = subject.labels[rows]
    labelled = (labels >= 0) & (classes is not None)
    wrong = None
    if classes is not None and labelled.any():
        predicted = stored.column("predicted")[rows]
        wrong = labelled & (classes[labels.clip(min=0)] != predicted)
    return Answers(rows, probability, largest, wrong, labelled)


def choose(answers: Answers, count: int) -> Iterator[tuple[str, list[int]]]:
    """Yield what is shown: a heading and up to `count` rows, none of which comes twice."""
    orders = [
        ("Most certain", np.argsort(-answers.probability, kind="stable")),
        ("Least certain", np.argsort(answers.probability, kind="stable")),
        ("Hanging on one place", np.argsort(-answers.largest, kind="stable")),
    ]
    if answers.wrong is not None:
        order = orders[0][1]
        # First, for the others could take what little is wrong.
        orders.insert(0, ("Wrong", order[answers.wrong[order]]))
        orders[1] = ("Most certain, and right", order[(answers.labelled & ~answers.wrong)[order]])
    taken: set[int] = set()
    for heading, order in orders:
        fresh = [row for row in answers.rows[order].tolist() if row not in taken][:count]
        taken |= set(fresh)
        if fresh:
            yield heading, fresh


def _classes(subject: Subject, stored: StoredOcclusion) -> NDArray[np.int64] | None:
    """Return the class that each label means, or None."""
    if not subject.has_labels:
        return None
    names = subject.network.labels if subject.network is not None else None
    highest = int(subject.labels.max())
    return classes_of_labels(subject.run.label_names, highest, names, stored.classes)


def _job(subject: Subject, stored: StoredOcclusion, detail: Detail) -> Markup:
    answers = read_answers(subject, stored)
    heading = element("h3", stored.name, " ", element("small", _about(subject, stored)))
    note = None
    if answers.wrong is not None:
        right = 1 - answers.wrong.sum() / answers.labelled.sum()
        count = plural(int(answers.labelled.sum()), "prediction")
        text = f"{share(float(right))} of {count} agree with the label."
        note = element("p", text, class_="note")
    groups = [
        element(
            "div",
            element("h4", heading),
            element("div", *cards, class_="occlusions"),
            class_="group",
        )
        for heading, rows in choose(answers, detail.examples)
        if (cards := _cards(subject, stored, answers, rows))
    ]
    if not groups:
        return join([heading, element("p", "No image can be read any more.", class_="missing")])
    return join([heading, note, *groups])


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
    wrong = set(answers.rows[answers.wrong].tolist()) if answers.wrong is not None else set()
    labelled = set(answers.rows[answers.labelled].tolist())
    cards = []
    for row in rows:
        seen = _seen(subject, stored, row)
        if seen is not None:
            is_right = row not in wrong if row in labelled else None
            cards.append(_card(subject, stored, row, keys[row], seen, is_right))
    return cards


def _seen(subject: Subject, stored: StoredOcclusion, row: int) -> NDArray[np.uint8] | None:
    """Return what the network saw of a row, uint8 (H, W, 3), or None."""
    assert subject.source is not None
    transform = Transform.from_dict(stored.job.fingerprint["network"]["transform"])
    try:
        return as_pixels(transform(subject.source.decode(subject.source.read(row))))
    except BadImage:
        return None


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
    mark = None
    if is_right is not None:
        mark = element("span", "✓" if is_right else "✗", class_="right" if is_right else "wrong")
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
            mark,
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
