"""Textures: patches beside what was made of them, and how what tiles does."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fc7.engine.errors import BadImage
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import as_pixels, image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.store.stored import StoredMaps, stored_maps
from fc7.engine.style.texture_job import TECHNIQUE
from fc7.engine.words import number, plural, share, sides

_ANCHOR, _TITLE = "texture", "Textures"
_SIDE = 420


def textures(subject: Subject, detail: Detail) -> Section:
    """Show patch and texture of the first rows, for every finished job."""
    found = [one for one in stored_maps(subject.run, TECHNIQUE) if one.job.is_complete]
    if not found:
        return missing(_ANCHOR, _TITLE, "the run holds no textures; fc7 texture makes them")
    if subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_images)
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "Left the patch, right a picture with its texture: noise, changed until the network's "
        "channels go together as they do on the patch, wherever in the picture (Gatys, Ecker and "
        "Bethge, 2015). Below each pair: what is left of the noise's distance."
    )
    return Section(_ANCHOR, _TITLE, lede, join(_job(subject, one, detail) for one in found))


def _job(subject: Subject, stored: StoredMaps, detail: Detail) -> Markup:
    rows = np.flatnonzero(subject.good)
    heading = element("h3", stored.name, " ", element("small", _about(stored)))
    cards = _cards(subject, stored, [int(row) for row in rows[: 2 * detail.examples]])
    if not cards:
        return join([heading, element("p", "No patch can be read any more.", class_="missing")])
    median = float(np.median(_ratios(stored)[rows]))
    says = f"{plural(len(rows), 'patch').replace('patchs', 'patches')}; {share(median)} of the "
    note = element("p", f"{says}noise's distance is left in the median.", class_="note")
    return join([heading, note, element("div", *cards, class_="pairs")])


def _ratios(stored: StoredMaps) -> NDArray[np.float64]:
    """Return what is left of each row's first sample, (N,); 0 of none."""
    before, after = (stored.column(name)[:, 0].astype(np.float64) for name in ("before", "after"))
    return np.divide(after, before, out=np.zeros_like(after), where=before > 0)


def _about(stored: StoredMaps) -> str:
    about = stored.about
    layers = ", ".join(name for name, _ in about["layers"])
    tiles = "; tileable, shown twice each way" if about["tileable"] else ""
    octaves = plural(int(about["octaves"]), "octave")
    return f"{layers}; {about['pooling']} pooling; {octaves}{tiles}"


def _cards(subject: Subject, stored: StoredMaps, rows: list[int]) -> list[Markup]:
    assert subject.source is not None
    keys, ratios, cards = subject.keys(rows), _ratios(stored), []
    for row in rows:
        try:
            patch = Image.fromarray(as_pixels(subject.source.decode(subject.source.read(row))))
        except BadImage:
            continue
        cards.append(_card(stored, row, keys[row], patch, float(ratios[row])))
    return cards


def _card(stored: StoredMaps, row: int, key: str, patch: Image.Image, ratio: float) -> Markup:
    with Image.open(io.BytesIO(bytes(stored.job.run[stored.name][row]))) as file:
        texture = file.convert("RGB")
    size = sides(texture.height, texture.width)
    side = stored.about["side"]
    if side is not None:
        patch = ImageOps.contain(patch, (side, side), Image.Resampling.BILINEAR)
    if stored.about["tileable"]:
        texture = Image.fromarray(np.tile(np.asarray(texture), (2, 2, 1)))
    # At one scale, for a texture is known by the size of its grain.
    frame = max(patch.width, texture.width), max(patch.height, texture.height)
    pictures = []
    for one, alt in ((patch, key), (texture, f"A texture of {key}")):
        picture = Image.new("RGBA", frame)
        picture.paste(one, (0, 0))
        picture.thumbnail((_SIDE, _SIDE))
        pictures.append(image(webp(np.asarray(picture)), alt))
    left = f"{number(100 * ratio)} %"
    caption = element(
        "figcaption",
        element("div", element("b", left), class_="answer"),
        element("div", f"{size} pixels", class_="quiet"),
        element("div", key, class_="key", title=f"{key} (row {row})"),
    )
    return element("figure", element("div", *pictures, class_="pair"), caption, class_="occluded")
