"""Losses by term over a descent, as lines: on a logarithmic scale, for they fall by powers."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fc7.engine.report.markup import Markup, element
from fc7.engine.report.pictures import viridis_palette
from fc7.engine.words import number

_WIDTH, _HEIGHT, _POINTS = 300, 90, 120


def loss_curves(curves: Mapping[str, NDArray[np.float32]]) -> Markup | None:
    """Draw a line for each term, (E,) each, and list where each begins and ends.

    What is not above 0 has no logarithm and is left out. None where nothing is left.
    """
    known = {term: _logarithm(curve) for term, curve in curves.items()}
    shown = {term: curve for term, curve in known.items() if np.isfinite(curve).sum() > 1}
    if not shown:
        return None
    every = np.concatenate(list(shown.values()))
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    colours = dict(zip(shown, _colours(len(shown)), strict=True))
    lines = [
        element("polyline", points=_points(curve, low, high), stroke=colours[term])
        for term, curve in shown.items()
    ]
    count = max(map(len, shown.values()))
    chart = element(
        "svg", *lines, class_="curves", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img",
        preserveAspectRatio="none",
        aria_label=f"losses from {10**high:.3g} down to {10**low:.3g} in {count} evaluations",
    )  # fmt: skip
    return element("div", chart, element("ul", *_legend(curves, colours), class_="terms"))


def _legend(curves: Mapping[str, NDArray[np.float32]], colours: Mapping[str, str]) -> list[Markup]:
    listed = []
    for term, colour in colours.items():
        swatch = element(
            "svg",
            element("rect", width=8, height=8, fill=colour),
            viewBox="0 0 8 8",
            class_="swatch",
        )
        begins, ends = float(curves[term][0]), float(curves[term][-1])
        listed.append(element("li", swatch, f"{term} {number(begins)} \u2192 {number(ends)}"))
    return listed


def _logarithm(curve: NDArray[np.float32]) -> NDArray[np.float64]:
    values = curve.astype(np.float64)
    return np.log10(values, out=np.full(len(values), np.nan), where=values > 0)


def _points(curve: NDArray[np.float64], low: float, high: float) -> str:
    places = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), _POINTS)).astype(int))
    places = places[np.isfinite(curve[places])]
    across = 1 + (_WIDTH - 2) * places / max(1, len(curve) - 1)
    down = 1 + (_HEIGHT - 2) * (high - curve[places]) / ((high - low) or 1.0)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))


def _colours(count: int) -> list[str]:
    """Return so many colours, from dark to light, that stand out from white and from black."""
    palette = viridis_palette()
    places = np.linspace(8, len(palette) - 10, count).astype(int)
    return ["#" + bytes(palette[place].tolist()).hex() for place in places]
