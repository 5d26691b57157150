"""Which channels the network needs: every layer's importances in order, and its strongest."""

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.importance.stored import (
    ConvolutionLayer,
    StoredImportance,
    has_importance,
    read_stored,
)
from fc7.engine.errors import StoreError
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.maximal import channel_cards
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import LayerView, Subject
from fc7.engine.store.patches import patches_job, read_patches
from fc7.engine.words import number, plural, share

_ANCHOR, _TITLE = "importance", "Important channels"
_STEPS = 160
_LISTED = 4


def importance(subject: Subject, detail: Detail) -> Section:
    """Show how importance is spread over the channels of each convolution."""
    if not has_importance(subject.run):
        return missing(_ANCHOR, _TITLE, "the run holds no importances; fc7 importance makes them")
    if detail.is_nothing:
        return too_small(_ANCHOR, _TITLE)
    try:
        stored = read_stored(subject.run)
    except StoreError as error:
        return missing(_ANCHOR, _TITLE, str(error))
    lede = (
        "By how much removing a channel would change the loss, to first order and averaged over "
        "the images (Molchanov et al., 2017). Each layer's channels stand in order, the most "
        "important first, on a scale of the layer's own; the dark ones make up half of the whole. "
        f"{_of_what(stored)} fc7 prune removes what matters least."
    )
    figures = [
        _ranking(layer, scores) for layer, scores in zip(stored.layers, stored.taylor, strict=True)
    ]
    body = join([element("div", *figures, class_="rankings"), *_patches(subject, stored, detail)])
    return Section(_ANCHOR, _TITLE, lede, body)


def half(scores: NDArray[np.float64]) -> int:
    """Return how many of the most important channels make up half of a layer's importance."""
    ordered = np.sort(scores)[::-1].cumsum()
    return int(np.searchsorted(ordered, ordered[-1] / 2) + 1) if ordered[-1] > 0 else 0


def outline(heights: NDArray[np.float64], start: int, stop: int) -> str:
    """Return the outline of bars `start` to `stop` as an SVG path, one wide, 1 from top to base."""
    steps = "".join(
        f"V{1 - height:.3f}H{start + place + 1}" for place, height in enumerate(heights[start:stop])
    )
    return f"M{start} 1{steps}V1Z"


def _of_what(stored: StoredImportance) -> str:
    rows = plural(stored.rows, "image")
    if stored.target != "label":
        return f"The loss is that of the predicted class, over {rows}."
    right = f", {share(stored.accuracy)} of them right" if stored.accuracy is not None else ""
    return f"The loss is that of the label, {number(stored.loss)} over {rows}{right}."


def _ranking(layer: ConvolutionLayer, scores: NDArray[np.float64]) -> Markup:
    """Return one layer's bars, and what to say of them."""
    order = np.argsort(-scores, kind="stable")
    total, count = float(scores.sum()), half(scores)
    ordered = scores[order] / (scores.max() or 1.0)
    # Of a wide layer, as many bars as can be told apart.
    places = np.linspace(0, len(ordered) - 1, min(len(ordered), _STEPS)).round().astype(int)
    heights, dark = ordered[places], int((places < count).sum())
    says = f"half of it in {count} of {plural(layer.channels, 'channel')}"
    bars = element(
        "svg",
        element("path", d=outline(heights, dark, len(heights))),
        element("path", d=outline(heights, 0, dark), class_="half"),
        class_="ranks",
        viewBox=f"0 0 {len(heights)} 1",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"Importance of the channels of {layer.name}, in order: {says}",
    )
    listed = [
        f"{channel}\u00a0({share(float(scores[channel]) / total)})".replace(" %", "\u00a0%")
        for channel in order[:_LISTED].tolist()
    ]
    return element(
        "figure",
        element("b", layer.name),
        bars,
        element(
            "figcaption",
            element("p", says),
            element("p", f"most: {', '.join(listed)}", class_="quiet") if total > 0 else None,
        ),
        class_="ranking",
    )


def _patches(subject: Subject, stored: StoredImportance, detail: Detail) -> list[Markup]:
    """Return the maximal patches of the most important channels, where the run has them."""
    if subject.network is None or subject.source is None or not detail.channels:
        return []
    jobs = subject.run.jobs()
    views = {
        layer.name: layer
        for layer in subject.layers
        if patches_job(layer.name) in jobs and jobs[patches_job(layer.name)].is_complete
    }
    shown = []
    for layer, scores in zip(stored.layers, stored.taylor, strict=True):
        view = views.get(layer.name) or views.get(layer.path)
        if view is not None and view.channels == layer.channels:
            shown.append(_layer_patches(subject, view, scores, detail))
    return shown


def _layer_patches(
    subject: Subject, view: LayerView, scores: NDArray[np.float64], detail: Detail
) -> Markup:
    channels = np.argsort(-scores, kind="stable")[: max(1, detail.channels // 2)].tolist()
    try:
        patches = read_patches(subject.run, view.name)
    except StoreError as error:
        return element("p", f"{view.name}: {error}", class_="missing")
    best = np.asarray(patches.values[:, 0])
    dead = ~(best > 0) if view.rectified else np.zeros(len(best), dtype=np.bool_)
    return element(
        "div",
        element("h3", view.name, " ", element("small", "what its most important channels seek")),
        channel_cards(subject, view, patches, channels, detail.tile, dead),
        class_="layer",
    )
