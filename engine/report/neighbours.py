"""Neighbours of sample images, in a layer and in pixels: what the network finds alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fc7.engine.features.neighbors import label_agreement, neighbors_job
from fc7.engine.report.maps import varied_rows
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import Subject
from fc7.engine.store.vectors import PIXELS, vector_layers
from fc7.engine.words import number, share

_ANCHOR, _TITLE = "neighbours", "Nearest neighbours"
SHOWN = 10


def neighbours(subject: Subject, detail: Detail) -> Section:
    """Show queries with their nearest images in the run's layer and in pixel space."""
    layer = graph_layer(subject)
    if layer is None:
        return missing(_ANCHOR, _TITLE, "the run holds no neighbours; fc7 index finds them")
    spaces = [layer]
    if layer != PIXELS and has_graph(subject, PIXELS):
        spaces.append(PIXELS)
    headline = _headline(subject, spaces)
    lede = (
        f"Images drawn at random, each with its {SHOWN} nearest in {_named(layer)}"
        + (" and, below, in plain pixels" if PIXELS in spaces[1:] else "")
        + ", nearest first, by Euclidean distance. "
        + ("A green frame with a tick marks the query's own label." if subject.has_labels else "")
    )
    if not subject.has_pictures:
        why = element("p", f"Not shown: {subject.why_no_images}.", class_="missing")
        return Section(_ANCHOR, _TITLE, lede, join([headline, why]))
    if not detail.queries:
        return too_small(_ANCHOR, _TITLE)
    graphs = {space: read_ids(subject, space) for space in spaces}
    queries = [
        row
        for row in varied_rows(subject, "neighbours")
        if graphs[layer].shape[1] and graphs[layer][row, 0] >= 0
    ][: detail.queries]
    body = join([headline, *_queries(subject, graphs, queries, detail.tile)])
    return Section(_ANCHOR, _TITLE, lede, body)


def graph_layer(subject: Subject) -> str | None:
    """Return the layer whose neighbours the page shows: the deepest vector layer that has some."""
    vectors = vector_layers(subject.run)[::-1]
    others = [layer.values for layer in subject.layers if layer.values not in vectors]
    return next((name for name in [*vectors, *others, PIXELS] if has_graph(subject, name)), None)


def has_graph(subject: Subject, layer: str) -> bool:
    """Whether the run holds a finished neighbour graph of that layer."""
    jobs = subject.run.jobs()
    return neighbors_job(layer) in jobs and jobs[neighbors_job(layer)].is_complete


def read_ids(subject: Subject, layer: str) -> NDArray[np.int64]:
    """Return the nearest rows of every row, (N, at most 10), over the graph's memory map."""
    ids: NDArray[np.int64] = subject.run.job(neighbors_job(layer)).result("ids")
    return ids[:, :SHOWN]


def chance(labels: NDArray[np.int32]) -> float:
    """Return how likely two different labelled rows, drawn at random, share their label."""
    counts = np.bincount(labels[labels >= 0]).astype(np.float64)
    total = counts.sum()
    return float((counts * (counts - 1)).sum() / (total * (total - 1))) if total > 1 else 0.0


def _named(layer: str) -> str:
    return "plain pixels" if layer == PIXELS else layer


def _headline(subject: Subject, spaces: Sequence[str]) -> Markup | None:
    """Return label agreement in each space, over all rows, or None where there are no labels."""
    shares = {space: label_agreement(subject.run, space, SHOWN) for space in spaces}
    boxes = [
        element(
            "div",
            element("dd", share(value)),
            element("dt", f"of the {SHOWN} nearest in {_named(space)} share the label"),
            class_="figure-box" + (" lead" if place == 0 else ""),
        )
        for place, (space, value) in enumerate(shares.items())
        if value is not None
    ]
    if not boxes:
        return None
    boxes.append(
        element(
            "div",
            element("dd", share(chance(subject.labels))),
            element("dt", "would by chance"),
            class_="figure-box",
        )
    )
    return element("dl", *boxes, class_="figures")


def _queries(
    subject: Subject, graphs: dict[str, NDArray[np.int64]], queries: list[int], tile: int
) -> list[Markup]:
    """Return one block a query, its rows of neighbours beneath each other."""
    distances = {
        space: subject.run.job(neighbors_job(space)).result("distances") for space in graphs
    }
    shown = sorted({*queries, *(int(r) for ids in graphs.values() for r in ids[queries].flat)})
    rows = [row for row in shown if row >= 0]
    keys = subject.keys(rows)
    tiles = dict(zip(rows, subject.squares(rows, tile), strict=True))
    pictures = {row: None if pixels is None else webp(pixels) for row, pixels in tiles.items()}
    crisp = {row for row, pixels in tiles.items() if pixels is not None and len(pixels) <= 40}

    def picture(row: int, query: int | None, distance: float | None) -> Markup:
        label = subject.label_name(int(subject.labels[row]))
        alike = query is not None and label != "" and subject.labels[row] == subject.labels[query]
        about = keys[row] + (f" ({label})" if label else "")
        about += "" if distance is None else f", at distance {number(distance)}"
        file = pictures[row]
        return element(
            "figure",
            element("div", "no image", class_="gap", title=about)
            if file is None
            else image(file, about, title=about, class_="crisp" if row in crisp else None),
            element("figcaption", label or keys[row], title=about),
            class_="neighbour" + (" alike" if alike else ""),
        )

    blocks = []
    for query in queries:
        strips = [
            element(
                "div",
                element("div", _named(space).removeprefix("plain "), class_="space"),
                element(
                    "div",
                    *(
                        picture(int(row), query, float(distances[space][query, place]))
                        for place, row in enumerate(ids[query].tolist())
                        if row >= 0
                    ),
                    class_="strip",
                ),
                class_="found",
            )
            for space, ids in graphs.items()
        ]
        blocks.append(
            element(
                "article",
                element("div", picture(query, None, None), class_="asked"),
                element("div", *strips, class_="answers"),
                class_="query",
            )
        )
    return blocks
