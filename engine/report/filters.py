"""The first layer's filters as pictures: the one layer whose weights can be looked at directly."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fc7.engine.report.markup import element, join
from fc7.engine.report.pictures import image, png
from fc7.engine.report.section import Section, missing
from fc7.engine.report.subject import Subject
from fc7.engine.words import number, sides

if TYPE_CHECKING:
    from fc7.engine.models import Network

_ANCHOR, _TITLE = "filters", "First-layer filters"
_MOST = 128


def filters(subject: Subject) -> Section:
    """Show the filters of the first convolution, if it reads colours through a window."""
    if subject.network is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_network)
    found = first_filters(subject.network)
    if found is None:
        return missing(
            _ANCHOR, _TITLE, "the network does not begin with a convolution that reads RGB"
        )
    path, weights = found
    norms = np.sqrt((weights.astype(np.float64) ** 2).sum(axis=(1, 2, 3)))
    shown = np.arange(len(weights))
    if len(weights) > _MOST:
        shown = np.sort(np.argsort(-norms, kind="stable")[:_MOST])
    pictures = join(
        image(
            png(filter_picture(weights[index])),
            f"Filter {index} of {path}",
            class_="filter",
            title=f"filter {index}, L2 norm {number(norms[index])}",
        )
        for index in shown.tolist()
    )
    height, width = weights.shape[2:]
    count = (
        f"The {len(weights)} filters"
        if len(shown) == len(weights)
        else f"The {len(shown)} of {len(weights)} filters with the largest norm"
    )
    random = (
        " The weights are random, so they show no structure."
        if subject.network.weights == "random"
        else ""
    )
    lede = (
        f"{count} of {path}, {sides(height, width)} pixels of RGB each. Mid-grey is a weight "
        f"of zero; every filter is scaled to its own largest weight.{random}"
    )
    return Section(_ANCHOR, _TITLE, lede, element("div", pictures, class_="filters"))


def first_filters(network: "Network") -> tuple[str, NDArray[np.float32]] | None:
    """Return the name and the weights (C, 3, kh, kw) of the first convolution, or None.

    None where that convolution does not read three channels through a window of at least 3 x 3.
    """
    from torch import nn

    names = {layer.path: name for name, layer in network.layers.items()}
    for path, module in network.model.named_modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach()
            if weight.shape[1] != 3 or min(weight.shape[2:]) < 3:
                return None
            return names.get(path, path), weight.float().cpu().numpy()
    return None


def filter_picture(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn weights (3, kh, kw) into uint8 (kh, kw, 3): zero is 128, the largest 1 or 255."""
    peak = float(np.abs(weights).max())
    scaled = weights / peak if peak > 0 else weights
    return np.round(128 + 127 * scaled).astype(np.uint8).transpose(1, 2, 0).copy()
