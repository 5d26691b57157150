"""Facets: the kinds of image that excite each class or channel, made and as they are."""

import numpy as np
import torch
from numpy.typing import NDArray

from fc7.engine.data import Source
from fc7.engine.data.facet_targets import FacetTarget
from fc7.engine.report.classes import ascent
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import as_pixels, centre_square, image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.synthesis.facet_figure import how, near_pictures, says, summary
from fc7.engine.synthesis.stored_facets import StoredFacets, name_of, stored_facets
from fc7.engine.words import plural

_ANCHOR, _TITLE = "facets", "The kinds of image that excite it"
_FEW_PIXELS, _A_DETAIL, _NEAR_SIDE = 96, 10, 64


def facet_images(subject: Subject, detail: Detail) -> Section:
    """Show the facets of every finished job, those of one class together."""
    found = [one for one in stored_facets(subject.run) if one.job.is_complete]
    if not found:
        return missing(_ANCHOR, _TITLE, "the run holds no images of facets; see fc7 facets")
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "A class or a channel can stand for several kinds of image. The rows that excite it were "
        "clustered, and of each cluster an image was made, beginning with the mean of the images "
        "nearest to its middle (Nguyen, Yosinski and Clune, 2016). Below each image: that mean, "
        "some of those images, and the ascent."
    )
    return Section(_ANCHOR, _TITLE, lede, join(_job(subject, one, detail) for one in found))


def _job(subject: Subject, stored: StoredFacets, detail: Detail) -> Markup:
    shown = min(len(stored.maps), detail.examples * _A_DETAIL)
    note = summary(stored, subject.network)
    if shown < len(stored.maps):
        note += f"; the first {shown} are shown"
    source, targets = stored.images(), stored.targets()
    cards = [_card(subject, stored, source, targets[row], row) for row in range(shown)]
    return join(
        [
            element("h3", stored.name, " ", element("small", how(stored))),
            element("p", note + ".", class_="note"),
            element("div", *cards, class_="painted"),
        ]
    )


def _card(
    subject: Subject, stored: StoredFacets, source: Source | None, target: FacetTarget, row: int
) -> Markup:
    name = name_of(target, subject.network)
    picture, start = stored.picture(row), stored.start(row)
    crisp = "crisp" if max(picture.shape[:2]) <= _FEW_PIXELS else None
    members = plural(int(stored.value("members", row)), "row")
    near = [image(webp(_small(start)), f"the mean of {members}", title="the mean it began with")]
    if source is not None and subject.network is not None:
        near += [
            image(webp(_small(each)), key, title=key)
            for key, each in near_pictures(stored, subject.network, source, row)
        ]
    caption = element(
        "figcaption",
        element("b", f"{name}, {target.facet}"),
        " ",
        element("span", says(stored, subject.network, row), class_="value"),
        element("small", members),
        element("span", *near, class_="near"),
        ascent(stored.curve(row)),
    )
    made = image(webp(picture), f"made to excite {name}", class_=crisp)
    return element("figure", made, caption, class_="painting")


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture's middle square, no larger than what is shown."""
    return as_pixels(centre_square(torch.from_numpy(picture).permute(2, 0, 1), _NEAR_SIDE))
