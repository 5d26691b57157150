"""Segmentation: the objects that answers rest on, cut out, for images that say the most."""

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.segmentation.pictures import fitted, overlaid
from fc7.engine.attribution.segmentation.seeds import recipe_words
from fc7.engine.attribution.segmentation.stored import StoredSegmentation, segmentations
from fc7.engine.errors import BadImage
from fc7.engine.models.targets import LABEL, PREDICTED, class_name
from fc7.engine.report.answers import Answers, agreement, choose, mark, read_answers
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import as_pixels, image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.words import plural, share

_ANCHOR, _TITLE = "segmentation", "Segmentation"
_FEW_PIXELS, _SIDE = 64, 288
_FOUND = "grabcut"


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


def kinds(areas: NDArray[np.float32]) -> list[tuple[str, NDArray[np.int64]]]:
    """Return what else is shown than the most certain: the largest masks and the smallest.

    An empty mask, which is the smallest, shows nothing and is left out.

    Args:
        areas: (M,), each mask's share of its image.
    """
    order = np.argsort(areas, kind="stable")
    return [("Largest", order[::-1]), ("Smallest", order[areas[order] > 0])]


def _job(subject: Subject, stored: StoredSegmentation, detail: Detail) -> Markup:
    answers = read_answers(subject, stored, stored.classes)
    areas = np.nan_to_num(stored.column("area")[answers.rows])
    heading = element("h3", stored.name, " ", element("small", _about(subject, stored)))
    groups = [
        element("div", element("h4", name), element("div", *cards, class_="pairs"), class_="group")
        for name, rows in choose(answers, detail.examples, kinds(areas))
        if (cards := _cards(subject, stored, answers, rows))
    ]
    if not groups:
        return join([heading, element("p", "No image can be read any more.", class_="missing")])
    how = stored.column("how")[answers.rows]
    note = element("p", _summary(stored, areas, how), class_="note")
    return join([heading, agreement(answers), note, *groups])


def _summary(stored: StoredSegmentation, areas: NDArray[np.float32], how: NDArray[np.uint8]) -> str:
    """Say how large the masks are, and which were found otherwise than they should be."""
    says = f"The masks cover {share(float(np.median(areas)))} of an image in the median. "
    counts = {
        name: int((how == number).sum()) for number, name in enumerate(stored.how) if name != _FOUND
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
    subject: Subject, stored: StoredSegmentation, answers: Answers, rows: list[int]
) -> list[Markup]:
    keys = subject.keys(rows)
    cards = []
    for row in rows:
        picture = _picture(subject, row)
        if picture is not None:
            is_right = answers.is_right(row)
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
    shape = picture.shape[0], picture.shape[1]
    caption = element(
        "figcaption",
        element(
            "div",
            element("b", name),
            " ",
            element("span", share(float(stored.value("probability", row))), class_="value"),
            mark(is_right),
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
