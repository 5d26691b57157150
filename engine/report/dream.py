"""DeepDream: images beside what became of them, those that gained the most and the least."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc7.engine.errors import BadImage
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import as_pixels, image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.store.stored import StoredMaps, stored_maps
from fc7.engine.synthesis.dream_job import TECHNIQUE
from fc7.engine.synthesis.dream_options import gain_words
from fc7.engine.words import number, plural, sides

_ANCHOR, _TITLE = "dream", "Dreams"
_FEW_PIXELS, _SIDE = 64, 420


def dreams(subject: Subject, detail: Detail) -> Section:
    """Show image and dream of chosen rows, for every finished job."""
    found = [one for one in stored_maps(subject.run, TECHNIQUE) if one.job.is_complete]
    if not found:
        return missing(_ANCHOR, _TITLE, "the run holds no dreams; fc7 dream makes them")
    if subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_images)
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "Left the image, right what the network makes of it: moved step by step along the "
        "gradient of what a layer sees in it already, from a small copy to its own size "
        "(Mordvintsev, Olah and Tyka, 2015). Below each pair: how much what was asked for rose."
    )
    return Section(_ANCHOR, _TITLE, lede, join(_job(subject, one, detail) for one in found))


def chosen(gains: NDArray[np.float32], count: int) -> list[tuple[str, list[int]]]:
    """Return headings, each with up to `count` places in gains (M,); none comes twice."""
    order = np.argsort(-np.nan_to_num(gains), kind="stable").tolist()
    most, least = order[:count], order[count:][-count:][::-1]
    return [(name, places) for name, places in (("Most", most), ("Least", least)) if places]


def _job(subject: Subject, stored: StoredMaps, detail: Detail) -> Markup:
    rows = np.flatnonzero(subject.good)
    heading = element("h3", stored.name, " ", element("small", _about(stored)))
    groups = []
    for name, places in chosen(stored.column("gain")[rows], detail.examples):
        cards = _cards(subject, stored, [int(row) for row in rows[places]])
        if cards:
            pairs = element("div", *cards, class_="pairs")
            groups.append(element("div", element("h4", f"{name} gained"), pairs, class_="group"))
    if not groups:
        return join([heading, element("p", "No image can be read any more.", class_="missing")])
    return join([heading, element("p", _summary(stored, rows), class_="note"), *groups])


def _summary(stored: StoredMaps, rows: NDArray[np.int64]) -> str:
    before, after = (stored.column(name)[rows].astype(np.float64) for name in ("before", "after"))
    says = f"{plural(len(rows), 'image')}; what was asked for rose from "
    return (
        f"{says}{number(float(np.median(before)))} to {number(float(np.median(after)))} in the "
        "median."
    )


def _about(stored: StoredMaps) -> str:
    """Say what was asked for, and how."""
    about = stored.about
    asked = f"the norm of {about['layer']}"
    if about["channel"] is not None:
        asked = f"channel {about['channel']} of {about['layer']}"
    if about["guide"] is not None:
        asked = f"what {about['layer']} sees of {about['guide_name']}"
    octaves = plural(int(about["octaves"]), "octave")
    return (
        f"{asked}; {octaves} of {plural(int(about['steps']), 'step')}, each larger by "
        f"{about['ratio']:g}"
    )


def _cards(subject: Subject, stored: StoredMaps, rows: list[int]) -> list[Markup]:
    assert subject.source is not None
    keys, cards = subject.keys(rows), []
    for row in rows:
        try:
            original = Image.fromarray(as_pixels(subject.source.decode(subject.source.read(row))))
        except BadImage:
            continue
        cards.append(_card(stored, row, keys[row], original))
    return cards


def _card(stored: StoredMaps, row: int, key: str, original: Image.Image) -> Markup:
    with Image.open(io.BytesIO(bytes(stored.job.run[stored.name][row]))) as file:
        dream = file.convert("RGB")
    size = sides(dream.height, dream.width)
    # One as large as the other: the dream may have been resized first.
    original = original.resize(dream.size, Image.Resampling.BICUBIC)
    crisp = "crisp" if max(dream.size) <= _FEW_PIXELS else None
    pictures = []
    rose = gain_words(stored.value("before", row), stored.value("after", row))
    for picture, alt in ((original, key), (dream, f"Dreamt from {key}")):
        picture.thumbnail((_SIDE, _SIDE))
        pictures.append(image(webp(np.asarray(picture)), alt, class_=crisp))
    caption = element(
        "figcaption",
        element("div", element("b", rose), class_="answer"),
        element("div", f"{size} pixels", class_="quiet"),
        element("div", key, class_="key", title=f"{key} (row {row})"),
    )
    return element("figure", element("div", *pictures, class_="pair"), caption, class_="occluded")
