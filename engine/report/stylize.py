"""Fast style: images, the style they were given, and what came of it."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from fc7.engine.errors import BadImage
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import as_pixels, image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.store.stored import StoredMaps, stored_maps
from fc7.engine.style.fast.job import TECHNIQUE
from fc7.engine.words import share, sides

_ANCHOR, _TITLE = "stylize", "Styles in one pass"
_FEW_PIXELS, _SIDE, _STYLES = 64, 420, 4


def styles(subject: Subject, detail: Detail) -> Section:
    """Show content, style and result of some rows, for every style of every finished job."""
    found = [one for one in stored_maps(subject.run, TECHNIQUE) if one.job.is_complete]
    if not found:
        return missing(_ANCHOR, _TITLE, "the run holds no styles; fc7 stylize apply gives them")
    if subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_images)
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "Left the image, in the middle the style, right what a network that was trained for it "
        "makes of the image in one pass (Johnson, Alahi and Fei-Fei, 2016)."
    )
    body = join(_look(subject, one, detail) for one in found)
    return Section(_ANCHOR, _TITLE, lede, body)


def _look(subject: Subject, stored: StoredMaps, detail: Detail) -> Markup:
    given = sorted(stored.about["styles"], key=lambda style: -float(style["share"]))
    words = ", ".join(
        str(style["name"]) if len(given) == 1 else f"{share(style['share'])} {style['name']}"
        for style in given
    )
    heading = element("h3", stored.name, " ", element("small", words))
    good = np.flatnonzero(subject.good)
    # From all over the data set, for neighbours in a folder are often alike.
    places = np.linspace(0, len(good) - 1, min(detail.examples, len(good)))
    rows = [int(row) for row in good[places.round().astype(np.int64)]]
    cards = _cards(subject, stored, rows, given[:_STYLES])
    if not cards:
        return join([heading, element("p", "No image can be read any more.", class_="missing")])
    return join([heading, element("div", *cards, class_="pairs")])


def _cards(
    subject: Subject, stored: StoredMaps, rows: list[int], given: list[dict[str, Any]]
) -> list[Markup]:
    assert subject.source is not None
    keys, cards = subject.keys(rows), []
    paintings = [painting for style in given if (painting := _painting(style)) is not None]
    for row in rows:
        try:
            original = Image.fromarray(as_pixels(subject.source.decode(subject.source.read(row))))
        except BadImage:
            continue
        made = _opened(bytes(stored.job.run[stored.name][row]))
        # One as large as the other: the image may have been resized first.
        original = original.resize(made.size, Image.Resampling.BICUBIC)
        size = sides(made.height, made.width)
        caption = element(
            "figcaption",
            element("div", f"{size} pixels", class_="quiet"),
            element("div", keys[row], class_="key", title=f"{keys[row]} (row {row})"),
        )
        triple = element(
            "div",
            _shown(original, keys[row]),
            element("div", *paintings),
            _shown(made, f"{keys[row]} in this style"),
            class_="trio",
        )
        cards.append(element("figure", triple, caption, class_="occluded"))
    return cards


def _painting(style: dict[str, Any]) -> Markup | None:
    """Show a style; a network may come from anywhere, and its pictures with it."""
    try:
        picture = _opened(base64.b64decode(style["picture"]))
    except OSError:  # no image, as Pillow says it
        return None
    return _shown(picture, str(style["name"]))


def _shown(picture: Image.Image, alt: str) -> Markup:
    crisp = "crisp" if max(picture.size) <= _FEW_PIXELS else None
    picture = picture.copy()
    picture.thumbnail((_SIDE, _SIDE))
    return image(webp(np.asarray(picture)), alt, class_=crisp)


def _opened(file: bytes) -> Image.Image:
    with Image.open(io.BytesIO(file)) as opened:
        return opened.convert("RGB")
