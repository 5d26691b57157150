"""Segmentation: the objects that answers rest on, cut out, for images that say the most."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.segmentation.pictures import fitted, overlaid
from fc7.engine.attribution.segmentation.seeds import recipe_words
from fc7.engine.attribution.segmentation.stored import StoredSegmentation, segmentations
from fc7.engine.attribution.targets import LABEL, PREDICTED, class_name, classes_of_labels
from fc7.engine.errors import BadImage
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import as_pixels, image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.words import plural, share

_ANCHOR, _TITLE = "segmentation", "Segmentation"
_FEW_PIXELS, _SIDE = 64, 288
_FOUND = "grabcut"


@dataclass(frozen=True)
class Masks:
    """What is known of the rows that have masks.

    Attributes:
        rows: (M,), the good rows.
        probability: (M,) float32, of the class that was asked about.
        area: (M,) float32, the mask's share of the image.
        how: (M,), how the mask was found, a number into `StoredSegmentation.how`.
        wrong: (M,) bool, where the prediction is not the label.
        labelled: (M,) bool, where there is a label that is one of the network's classes.
    """

    rows: NDArray[np.int64]
    probability: NDArray[np.float32]
    area: NDArray[np.float32]
    how: NDArray[np.uint8]
    wrong: NDArray[np.bool_]
    labelled: NDArray[np.bool_]


def segmentation(subject: Subject, detail: Detail) -> Section:
    """Show image and mask of chosen rows, for every finished segmentation job."""
    found = [one for one in segmentations(subject.run) if one.job.is_complete]
    if not found:
        return missing(_ANCHOR, _TITLE, "the run holds no masks; fc7 segment makes them")
    if subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_images)
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "Nobody has drawn these outlines. The saliency map of the answer marks the pixels that it "
        "depends on most and least, and GrabCut finds by colours and edges where the object ends "
        "(Simonyan, Vedaldi and Zisserman, 2014): the image, and the object in colour before its "
        "background."
    )
    return Section(_ANCHOR, _TITLE, lede, join(_job(subject, one, detail) for one in found))


def read_masks(subject: Subject, stored: StoredSegmentation) -> Masks:
    """Read the columns beside the masks."""
    rows = np.flatnonzero(subject.good)
    probability, area = (
        np.nan_to_num(stored.column(name)[rows]) for name in ("probability", "area")
    )
    labels = subject.labels[rows]
    classes = None
    if subject.has_labels:
        names = subject.network.labels if subject.network is not None else None
        highest = int(subject.labels.max())
        classes = classes_of_labels(subject.run.label_names, highest, names, stored.classes)
    labelled = (labels >= 0) & (classes is not None)
    wrong = np.zeros(len(rows), np.bool_)
    if classes is not None:
        wrong = labelled & (classes[labels.clip(min=0)] != stored.column("predicted")[rows])
    return Masks(rows, probability, area, stored.column("how")[rows], wrong, labelled)


def choose(masks: Masks, count: int) -> Iterator[tuple[str, list[int]]]:
    """Yield what is shown: a heading and up to `count` rows, none of which comes twice."""
    certain = np.argsort(-masks.probability, kind="stable")
    small = np.argsort(masks.area, kind="stable")
    right = certain[(masks.labelled & ~masks.wrong)[certain]]
    # The wrong ones first, for the others could take what little there is; an empty mask, which
    # is the smallest, shows nothing.
    orders = (
        ("Wrong", certain[masks.wrong[certain]]),
        ("Most certain, and right", right) if len(right) else ("Most certain", certain),
        ("Least certain", certain[::-1]),
        ("Largest", small[::-1]),
        ("Smallest", small[masks.area[small] > 0]),
    )
    taken: set[int] = set()
    for heading, order in orders:
        fresh = [row for row in masks.rows[order].tolist() if row not in taken][:count]
        taken |= set(fresh)
        if fresh:
            yield heading, fresh


def _job(subject: Subject, stored: StoredSegmentation, detail: Detail) -> Markup:
    masks = read_masks(subject, stored)
    heading = element("h3", stored.name, " ", element("small", _about(subject, stored)))
    groups = [
        element(
            "div", element("h4", name), element("div", *cards, class_="cutouts"), class_="group"
        )
        for name, rows in choose(masks, detail.examples)
        if (cards := _cards(subject, stored, masks, rows))
    ]
    if not groups:
        return join([heading, element("p", "No image can be read any more.", class_="missing")])
    return join([heading, element("p", _summary(stored, masks), class_="note"), *groups])


def _summary(stored: StoredSegmentation, masks: Masks) -> str:
    """Say how large the masks are, and which were found otherwise than they should be."""
    says = f"The masks cover {share(float(np.median(masks.area)))} of an image in the median. "
    counts = {
        name: int((masks.how == number).sum())
        for number, name in enumerate(stored.how)
        if name != _FOUND
    }
    others = [f"{plural(count, 'mask')} {name}" for name, count in counts.items() if count]
    if not others:
        return says + "All were found by GrabCut."
    return says + f"Not found by GrabCut: {', '.join(others)}."


def _about(subject: Subject, stored: StoredSegmentation) -> str:
    """Say how the masks were made."""
    asked = {PREDICTED: "the predicted class", LABEL: "the label's class"}.get(
        str(stored.target)
    ) or class_name(subject.network, int(stored.target))
    gradient = "guided gradient" if stored.rule == "guided" else "gradient"
    return f"{gradient} of {asked}; {recipe_words(stored.recipe)}"


def _cards(
    subject: Subject, stored: StoredSegmentation, masks: Masks, rows: list[int]
) -> list[Markup]:
    keys = subject.keys(rows)
    wrong = set(masks.rows[masks.wrong].tolist())
    labelled = set(masks.rows[masks.labelled].tolist())
    cards = []
    for row in rows:
        picture = _picture(subject, row)
        if picture is not None:
            is_right = row not in wrong if row in labelled else None
            cards.append(_card(subject, stored, row, keys[row], picture, is_right))
    return cards


def _picture(subject: Subject, row: int) -> NDArray[np.uint8] | None:
    """Return a row's image as large as the page shows it, uint8 (H, W, 3), or None."""
    from PIL import Image

    assert subject.source is not None
    try:
        pixels = as_pixels(subject.source.decode(subject.source.read(row)))
    except BadImage:
        return None
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    return np.array(picture)


def _card(
    subject: Subject,
    stored: StoredSegmentation,
    row: int,
    key: str,
    picture: NDArray[np.uint8],
    is_right: bool | None,
) -> Markup:
    mask = stored.mask(row)
    target, predicted = (int(stored.value(name, row)) for name in ("target", "predicted"))
    name, area = class_name(subject.network, target), float(mask.mean())
    how = stored.how[int(stored.value("how", row))]
    crisp = "crisp" if max(picture.shape[:2]) <= _FEW_PIXELS else None
    says = [f"{share(area)} of the image"]
    if how != _FOUND:
        says.append(f"{how} instead of GrabCut")
    if target != predicted:
        says.append(f"predicted: {class_name(subject.network, predicted)}")
    if is_right is False:
        says.append(f"label: {subject.label_name(int(subject.labels[row]))}")
    mark = None
    if is_right is not None:
        mark = element("span", "✓" if is_right else "✗", class_="right" if is_right else "wrong")
    shape = picture.shape[0], picture.shape[1]
    caption = element(
        "figcaption",
        element(
            "div",
            element("b", name),
            " ",
            element("span", share(float(stored.value("probability", row))), class_="value"),
            mark,
            class_="answer",
        ),
        element("div", "; ".join(says), class_="quiet"),
        element("div", key, class_="key", title=f"{key} (row {row})"),
    )
    pictures = (
        image(webp(picture), key, class_=crisp),
        image(
            webp(overlaid(picture, fitted(mask, shape))),
            f"The object that {name} rests on, cut out: {share(area)} of the image",
            class_=crisp,
        ),
    )
    return element("figure", element("div", *pictures, class_="pair"), caption, class_="occluded")
