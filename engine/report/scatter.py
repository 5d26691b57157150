"""Projections as a scatter plot to wander in: points, labels, thumbnails and neighbours."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.report.markup import Markup, element, join, json_block
from fc7.engine.report.neighbours import graph_layer, read_ids
from fc7.engine.report.section import Section, missing, too_small
from fc7.engine.report.sprites import PER_SHEET, SHEET_COLUMNS, sheets
from fc7.engine.report.subject import Subject
from fc7.engine.store import Job
from fc7.engine.words import plural, share

_ANCHOR, _TITLE = "projection", "The data set as a map"
_NAMES = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}
# In this order people read them: from the plainest to the most faithful to neighbourhoods.
_ORDER = ("pca", "umap", "tsne")
# More points than this cannot be told apart, and could not be drawn sixty times a second.
_MOST_POINTS = 40_000
_MOST_NAMES = 2000
_FEW_ROWS = 2000
_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Plot:
    """One projection of the run: a tab."""

    layer: str
    method: str
    coordinates: NDArray[np.float32]
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """What people call the method."""
        return _NAMES.get(self.method, self.method)


def scatter(subject: Subject, rows: int, max_bytes: int) -> Section:
    """Draw the run's projections, with thumbnails for at most `rows` rows.

    Args:
        subject: the run.
        rows: how many rows get a thumbnail, a key and their neighbours.
        max_bytes: what all of it may add to the page.
    """
    plots = find_plots(subject)
    if not plots:
        why = "the run holds no projection; fc7 project makes them"
        return missing(_ANCHOR, _TITLE, why)
    drawn, all_rows = choose_rows(subject, plots)
    if not all_rows:
        return missing(_ANCHOR, _TITLE, "no row has been projected")
    # What the controls around the plot take, generously.
    max_bytes -= 6_000 + 200 * len(plots)
    bytes_per_point = (8 * len(plots) + 8) * 4 // 3 + 1
    drawn = drawn[: max(0, max_bytes // 2) // bytes_per_point]
    if not len(drawn):
        return too_small(_ANCHOR, _TITLE)
    payload = _payload(subject, plots, drawn, rows, max_bytes - len(drawn) * bytes_per_point)
    tabs = element(
        "div",
        *(
            element(
                "button",
                plot.name if len({p.layer for p in plots}) == 1 else f"{plot.name} · {plot.layer}",
                type="button",
                role="tab",
                data_plot=place,
                aria_selected="true" if place == 0 else "false",
                tabindex="0" if place == 0 else "-1",
            )
            for place, plot in enumerate(plots)
        ),
        class_="tabs",
        role="tablist",
        aria_label="Projections",
    )
    notes = join(
        element("p", _note(plot), class_="note", data_note=place, hidden=place > 0)
        for place, plot in enumerate(plots)
    )
    return Section(
        _ANCHOR,
        _TITLE,
        _lede(plots, len(drawn), all_rows, payload["pictured"], rows),
        join(
            [
                _stage(tabs, subject.has_labels, bool(payload["sheets"])),
                notes,
                json_block("scatter-data", payload),
            ]
        ),
    )


def find_plots(subject: Subject) -> list[Plot]:
    """Return the run's finished projections, those of one layer beside each other."""
    plots = []
    for name, job in subject.run.jobs().items():
        layer, _, method = name.removeprefix("project-").rpartition("-")
        if not name.startswith("project-") or not layer or not job.is_complete:
            continue
        coordinates = job.result("coordinates")
        if coordinates.ndim == 2 and coordinates.shape[1] >= 2:
            plots.append(Plot(layer, method, coordinates, _info(job)))
    order = {method: place for place, method in enumerate(_ORDER)}
    return sorted(plots, key=lambda plot: (plot.layer, order.get(plot.method, len(order))))


def choose_rows(subject: Subject, plots: list[Plot]) -> tuple[NDArray[np.int64], int]:
    """Choose up to 40,000 projected rows in random order, so that any first n are a sample too.

    Returns:
        The rows, and how many there were to choose from: those in every projection, or, where no
        row is in all, those in any.
    """
    counts = np.zeros(len(subject.run), dtype=np.uint8)
    for plot in plots:
        for start in range(0, len(counts), _BLOCK_ROWS):
            block = plot.coordinates[start : start + _BLOCK_ROWS]
            counts[start : start + len(block)] += np.isfinite(block).all(axis=1)
    everywhere = counts == len(plots)
    candidates = np.flatnonzero(everywhere if everywhere.any() else counts > 0)
    count = min(len(candidates), _MOST_POINTS)
    return subject.random("scatter").choice(candidates, count, replace=False), len(candidates)


def _payload(
    subject: Subject, plots: list[Plot], drawn: NDArray[np.int64], rows: int, max_bytes: int
) -> dict[str, Any]:
    """Return everything the script draws, the first `pictured` rows with thumbnails and keys."""
    names = _names(subject, drawn)
    max_bytes -= len(json.dumps(names))
    asked = drawn[:rows]
    side = 64 if len(asked) <= _FEW_ROWS else 48
    keys = subject.keys(asked)
    layer = graph_layer(subject)
    near = read_ids(subject, layer) if layer is not None else None
    longest = max((len(json.dumps(key)) for key in keys.values()), default=0)
    cost = longest + 8 + (0 if near is None else near.shape[1] * 16 // 3 + 1)
    if subject.has_pictures:
        found, pictured = sheets(subject.squares(asked, side), side, cost, max_bytes)
    else:
        found, pictured = [], min(len(asked), max(0, max_bytes) // cost)
    asked = asked[:pictured]
    return {
        "plots": [
            {
                "name": plot.name,
                "layer": plot.layer,
                "method": plot.method,
                "xy": _packed(np.asarray(plot.coordinates[drawn][:, :2]), "<f4"),
            }
            for plot in plots
        ],
        "rows": _packed(drawn, "<i4"),
        "labels": _packed(subject.labels[drawn], "<i4"),
        "names": names,
        "pictured": pictured,
        "keys": [keys[int(row)] for row in asked],
        "graph": layer,
        "near": None if near is None else _packed(_places(near[asked], asked), "<i4"),
        "nearest": 0 if near is None else near.shape[1],
        "sheets": found,
        "side": side,
        "columns": SHEET_COLUMNS,
        "perSheet": PER_SHEET,
    }


def _names(subject: Subject, drawn: NDArray[np.int64]) -> list[tuple[int, str, int]]:
    """Return (label, name, rows) of the labels drawn, the commonest 2,000 at most."""
    labels = subject.labels[drawn]
    present, counts = np.unique(labels[labels >= 0], return_counts=True)
    common = np.sort(np.argsort(-counts, kind="stable")[:_MOST_NAMES])
    return [
        (int(label), subject.label_name(int(label)), int(count))
        for label, count in zip(present[common], counts[common], strict=True)
    ]


def _places(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for row numbers where they stand in `rows`, and -1 for those that do not."""
    if not len(rows):
        return np.full(ids.shape, -1, dtype=np.int64)
    order = np.argsort(rows)
    at = np.minimum(np.searchsorted(rows, ids, sorter=order), len(rows) - 1)
    return np.where(rows[order[at]] == ids, order[at], -1)


def _packed(values: NDArray[Any], dtype: str) -> str:
    """Return an array's bytes, little-endian and in C order, as base64."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def _info(job: Job) -> dict[str, Any]:
    record = job.result_record() or {}
    return dict(record.get("info", {}))


def _lede(plots: list[Plot], drawn: int, rows: int, pictured: int, asked: int) -> str:
    layers = " and ".join(dict.fromkeys(plot.layer for plot in plots))
    points = (
        f"All {plural(rows, 'projected row')}"
        if drawn == rows
        else f"{drawn:,} of {plural(rows, 'projected row')}, drawn at random,"
    )
    lede = f"{points} as points: images that lie close are alike in {layers}."
    if pictured < drawn:
        why = "" if pictured >= min(asked, drawn) else ", as many as the file's size limit allows"
        lede += f" {pictured:,} of them, drawn at random, can be pointed at{why}."
    return lede


def _note(plot: Plot) -> str:
    """Say of a projection what a reader has to know before believing it."""
    says = {
        "pca": "PCA is linear: distances along the axes are real, but two axes hold little.",
        "umap": "UMAP keeps neighbourhoods; the distances between clusters mean little.",
        "tsne": "t-SNE keeps neighbourhoods; sizes of clusters and distances between them mean "
        "nothing.",
    }
    parts = [says.get(plot.method, "")]
    ratio = plot.info.get("explained_variance_ratio")
    if ratio:
        parts[0] = "PCA is linear: distances along the axes are real distances."
        parts.append(f"These two axes hold {share(sum(ratio[:2]))} of the variance.")
    if plot.coordinates.shape[1] > 2:
        parts.append(f"The first two of {plot.coordinates.shape[1]} axes are drawn.")
    return " ".join(part for part in parts if part)


def _stage(tabs: Markup, has_labels: bool, has_pictures: bool) -> Markup:
    """Return the plot's frame: controls, canvas, and the panel beside it."""

    def button(name: str, text: str, about: str) -> Markup:
        return element("button", text, type="button", data_do=name, title=about, aria_label=about)

    pictures = element(
        "label",
        element("input", type="checkbox", id="scatter-pictures"),
        " pictures",
        class_="toggle",
    )
    tools = element(
        "div",
        pictures if has_pictures else None,
        button("out", "\u2212", "Zoom out"),
        button("in", "+", "Zoom in"),
        button("reset", "reset", "Show everything"),
        class_="tools",
    )
    legend = element(
        "div",
        element(
            "div",
            element("b", "Labels"),
            button("all", "all", "Show all labels"),
            button("none", "none", "Hide all labels"),
            class_="legend-head",
        ),
        element("div", class_="legend", id="scatter-legend"),
        class_="legend-box",
    )
    canvas = element(
        "canvas",
        id="scatter",
        tabindex="0",
        role="img",
        aria_label="Scatter plot of the projected images. Drag to move, scroll to zoom, click a "
        "point to pin it; arrow keys, plus, minus and 0 do the same.",
    )
    return element(
        "div",
        element("div", tabs, tools, class_="bar"),
        element(
            "div",
            element("div", canvas, class_="canvas"),
            element(
                "aside",
                element("div", class_="detail", id="scatter-detail"),
                legend if has_labels else None,
                class_="panel",
            ),
            class_="plot",
        ),
        element("noscript", element("p", "The plot needs JavaScript.", class_="missing")),
        class_="scatter",
    )
