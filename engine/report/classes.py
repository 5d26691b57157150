"""Class visualization: the images made of classes, channels or neurons, and how they came about."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.synthesis.class_figure import how, name_of, says, summary
from fc7.engine.synthesis.stored import StoredClasses, stored_classes

_ANCHOR, _TITLE = "classes", "What it would paint"
_FEW_PIXELS, _A_DETAIL, _POINTS = 96, 8, 60
_WIDTH, _HEIGHT = 120, 26


def class_images(subject: Subject, detail: Detail) -> Section:
    """Show the images of every finished job, the best first."""
    found = [one for one in stored_classes(subject.run) if one.job.is_complete]
    if not found:
        return missing(_ANCHOR, _TITLE, "the run holds no images that were made; see fc7 classes")
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "Images that nobody took. Each began as noise and was changed, step by step, along the "
        "gradient of what it was to excite (Simonyan, Vedaldi and Zisserman, 2014; Olah, "
        "Mordvintsev and Schubert, 2017). Below each image: how strongly it does, and the ascent."
    )
    return Section(_ANCHOR, _TITLE, lede, join(_job(subject, one, detail) for one in found))


def _job(subject: Subject, stored: StoredClasses, detail: Detail) -> Markup:
    rows = _shown(stored, detail.examples * _A_DETAIL)
    note = summary(stored)
    if len(rows) < len(stored.maps):
        note += f"; the {len(rows)} that score highest are shown"
    units = stored.units()
    cards = [_card(subject, stored, row, int(units[row])) for row in rows]
    return join(
        [
            element("h3", stored.name, " ", element("small", how(stored))),
            element("p", note + ".", class_="note"),
            element("div", *cards, class_="painted"),
        ]
    )


def _shown(stored: StoredClasses, most: int) -> list[int]:
    """Return the rows that are shown, in their order: all, or those of the highest scores."""
    scores = np.nan_to_num(stored.column("score"), nan=-np.inf)
    best = np.argsort(-scores, kind="stable")[:most]
    return sorted(best.tolist())


def _card(subject: Subject, stored: StoredClasses, row: int, unit: int) -> Markup:
    picture, name = stored.picture(row), name_of(stored, subject.network, unit)
    crisp = "crisp" if max(picture.shape[:2]) <= _FEW_PIXELS else None
    caption = element(
        "figcaption",
        element("b", name),
        " ",
        element("span", says(stored, row), class_="value"),
        ascent(stored.curve(row)),
    )
    made = image(webp(picture), f"made to excite {name}", class_=crisp)
    return element("figure", made, caption, class_="painting")


def ascent(curve: NDArray[np.float32]) -> Markup | None:
    """Draw a curve of scores over steps as a small line."""
    finite = curve[np.isfinite(curve)]
    if len(finite) < 2 or float(np.ptp(finite)) == 0:
        return None
    chosen = finite[np.linspace(0, len(finite) - 1, min(len(finite), _POINTS)).astype(int)]
    share = (chosen - chosen.min()) / np.ptp(chosen)
    points = " ".join(
        f"{x:.1f},{y:.1f}" for x, y in zip(_across(len(chosen)), _down(share), strict=True)
    )
    label = f"from {finite[0]:.3g} to {finite[-1]:.3g} in {len(curve)} steps"
    line = element("polyline", points=points)
    return element(
        "svg", line, class_="ascent", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img",
        preserveAspectRatio="none", aria_label=label,
    )  # fmt: skip


def _across(count: int) -> Sequence[float]:
    spread: list[float] = np.linspace(1, _WIDTH - 1, count).tolist()
    return spread


def _down(share: NDArray[np.float32]) -> Sequence[float]:
    places: list[float] = (1 + (_HEIGHT - 2) * (1 - share)).tolist()
    return places
