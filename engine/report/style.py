"""Style transfer: content, styles and picture side by side, with the losses by layer."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc7.engine.data.pairs import PairsSource
from fc7.engine.errors import BadImage
from fc7.engine.report.curves import loss_curves
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import as_pixels, image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.store.stored import StoredMaps, stored_maps
from fc7.engine.style.transfer_job import TECHNIQUE
from fc7.engine.words import plural, sides

_ANCHOR, _TITLE = "style", "Contents in the style of others"
_A_DETAIL, _SIDE, _FEW_PIXELS, _STYLES = 4, 420, 64, 4


def style_pictures(subject: Subject, detail: Detail) -> Section:
    """Show the first pictures of every finished job."""
    found = [one for one in stored_maps(subject.run, TECHNIQUE) if one.job.is_complete]
    if not found:
        return missing(_ANCHOR, _TITLE, "the run holds no pictures in a style; see fc7 style")
    if not isinstance(subject.source, PairsSource):
        return missing(_ANCHOR, _TITLE, subject.why_no_images)
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    source = subject.source
    lede = (
        "Left the content, then the style, then what was made of both: an image whose features "
        "are the content's in a deep layer, and whose Gram matrices are the style's in several "
        "(Gatys, Ecker and Bethge, 2016). Below: the loss of each layer, as a share of what is "
        "wanted, over the evaluations, on a logarithmic scale."
    )
    body = join(_job(subject, source, one, detail) for one in found)
    return Section(_ANCHOR, _TITLE, lede, body)


def _job(subject: Subject, source: PairsSource, stored: StoredMaps, detail: Detail) -> Markup:
    rows = np.flatnonzero(subject.good)
    shown = [int(row) for row in _spread(rows, detail.examples * _A_DETAIL)]
    cards = _cards(subject, source, stored, shown)
    heading = element("h3", stored.name, " ", element("small", about(stored)))
    if not cards:
        return join([heading, element("p", "No image can be read any more.", class_="missing")])
    note = plural(len(rows), "picture") + (
        f"; {len(shown)} are shown" if len(rows) > len(shown) else ""
    )
    grid = element("div", *cards, class_="occlusions")
    return join([heading, element("p", note + ".", class_="note"), grid])


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return up to so many rows, from first to last, so that all contents and styles have turns."""
    if len(rows) <= count:
        return rows
    places = np.linspace(0, len(rows) - 1, count).astype(np.int64)
    return np.take(rows, places)


def about(stored: StoredMaps) -> str:
    """Say how pictures were made."""
    asked = stored.about
    parts = [f"content {asked['content_weight']:g} to style {asked['style_weight']:g}"]
    if len(asked["mix"]) > 1:
        parts.append("mixed " + " : ".join(f"{share:.2g}" for share in asked["mix"]))
    if asked["style_scale"] != 1:
        parts.append(f"strokes \u00d7 {asked['style_scale']:g}")
    if asked["scales"] > 1:
        parts.append(plural(asked["scales"], "scale"))
    if asked["keep_colours"]:
        parts.append("in the content's colours")
    if asked["start"] != "content":
        parts.append(f"from {asked['start']}")
    return ", ".join([*parts, plural(asked["evaluations"], "evaluation")])


def _cards(
    subject: Subject, source: PairsSource, stored: StoredMaps, rows: list[int]
) -> list[Markup]:
    keys, cards = subject.keys(rows), []
    for row in rows:
        try:
            originals = [as_pixels(source.decode(source.read(row)))]
            styles = source.styles_of(row)
            originals += [as_pixels(source.style(one)) for one in styles[:_STYLES]]
        except BadImage:
            continue
        cards.append(_card(stored, row, keys[row], originals))
    return cards


def _card(stored: StoredMaps, row: int, key: str, originals: list[NDArray[np.uint8]]) -> Markup:
    with Image.open(io.BytesIO(bytes(stored.job.run[stored.name][row]))) as file:
        made = file.convert("RGB")
    size, crisp = sides(made.height, made.width), None
    if max(made.size) <= _FEW_PIXELS:
        crisp = "crisp"
    pictures = []
    alts = ["content", *["style"] * (len(originals) - 1), "picture"]
    for picture, alt in zip([*map(Image.fromarray, originals), made], alts, strict=True):
        picture.thumbnail((_SIDE, _SIDE))
        pictures.append(image(webp(np.asarray(picture)), f"{alt} of {key}", class_=crisp))
    curves = np.asarray(stored.job.run[f"{stored.name}.curve"][row])
    drawn = loss_curves(dict(zip(stored.about["terms"], curves, strict=True)))
    caption = element(
        "figcaption",
        element("div", key, class_="key", title=f"{key} (row {row})"),
        element("div", f"{size} pixels", class_="quiet"),
        drawn,
    )
    return element("figure", element("div", *pictures, class_="trio"), caption, class_="occluded")
