"""Inversion: images beside what is left of them behind one layer after the other."""

import numpy as np

from fc7.engine.report.answers import seen_of
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.store.stored import StoredMaps, stored_maps
from fc7.engine.synthesis.invert_job import TECHNIQUE
from fc7.engine.words import share

_ANCHOR, _TITLE = "invert", "What is left of an image"
_FEW_PIXELS = 96


def inversions(subject: Subject, detail: Detail) -> Section:
    """Show some images, each with what was found of it behind every layer that was asked."""
    found = [one for one in stored_maps(subject.run, TECHNIQUE) if one.job.is_complete]
    if not found:
        return missing(_ANCHOR, _TITLE, "the run holds no inversions; fc7 invert makes them")
    if subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_images)
    if not subject.good.any():
        return missing(_ANCHOR, _TITLE, "no image could be used")
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "Images that a layer answers to as it does to the first of each row, found from that "
        "answer alone (Mahendran and Vedaldi, 2015). What comes back is what the layer still "
        "tells; what does not, it has let go. Features off: how far the layer's answer is from "
        "the one looked for, as a share of it; pixels off: the same of the image itself."
    )
    stored = _by_depth(subject, found)
    good = np.flatnonzero(subject.good)
    places = np.linspace(0, len(good) - 1, min(detail.examples, len(good))).round().astype(int)
    rows = sorted(set(good[places].tolist()))
    keys = subject.keys(rows)
    strips = [_strip(subject, stored, row, keys[row]) for row in rows]
    return Section(_ANCHOR, _TITLE, lede, join([_means(stored, good.tolist()), *strips]))


def _by_depth(subject: Subject, found: list[StoredMaps]) -> list[StoredMaps]:
    """Return the jobs as their layers run, where the network is there to say so."""
    order = list(subject.network.layers) if subject.network is not None else []
    return sorted(
        found, key=lambda one: order.index(layer) if (layer := one.about["layer"]) in order else 0
    )


def _means(stored: list[StoredMaps], rows: list[int]) -> Markup:
    """Say how far off each layer's images are in the mean."""
    said = []
    for one in stored:
        features, pixels = (
            float(np.nanmean(one.column(name)[rows])) for name in ("error", "pixel_error")
        )
        said.append(f"{one.about['layer']} {share(features)} and {share(pixels)}")
    return element("p", f"Features and pixels off in the mean: {'; '.join(said)}.", class_="note")


def _strip(subject: Subject, stored: list[StoredMaps], row: int, key: str) -> Markup:
    seen = seen_of(subject, stored[0].job, row)
    cards = []
    if seen is not None:
        crisp = "crisp" if max(seen.shape[:2]) <= _FEW_PIXELS else None
        original = image(webp(seen), f"{key}, as the network sees it", class_=crisp)
        caption = element("figcaption", element("b", "the image"))
        cards.append(element("figure", original, caption, class_="painting"))
    cards += [_card(one, row, key) for one in stored]
    heading = element("h4", key, title=f"{key} (row {row})")
    return element("div", heading, element("div", *cards, class_="painted"), class_="group")


def _card(stored: StoredMaps, row: int, key: str) -> Markup:
    layer = str(stored.about["layer"])
    picture = np.ascontiguousarray(np.asarray(stored.maps[row]).transpose(1, 2, 0))
    crisp = "crisp" if max(picture.shape[:2]) <= _FEW_PIXELS else None
    off = share(stored.value("error", row))
    pixels = share(stored.value("pixel_error", row))
    caption = element(
        "figcaption",
        element("b", layer),
        " ",
        element("span", f"features {off}, pixels {pixels} off", class_="quiet"),
    )
    made = image(webp(picture), f"{key}, found again behind {layer}", class_=crisp)
    return element("figure", made, caption, class_="painting")
