"""Activation maps of a few images: what is left of a picture at every depth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import BadImage
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import as_pixels, heatmap, image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import LayerView, Subject
from fc7.engine.words import number, sides

if TYPE_CHECKING:
    from torch import Tensor

    from fc7.engine.models import Layer

_ANCHOR, _TITLE = "maps", "Activation maps"
_CHANNELS = 8
# No map is drawn larger than this; those of early layers are averaged down to it.
_LARGEST = 96


def maps(subject: Subject, detail: Detail) -> Section:
    """Show the strongest maps of every spatial layer beside the image they come from."""
    spatial = [layer for layer in subject.layers if layer.grid is not None]
    if not spatial:
        return missing(_ANCHOR, _TITLE, "the run holds no layer with positions, such as conv5")
    if subject.network is None or subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_network or subject.why_no_images)
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    rows, inputs = _examples(subject, detail.examples)
    if not rows:
        return missing(_ANCHOR, _TITLE, "no image can be read any more")
    strongest = _strongest(subject, spatial, inputs)
    keys = subject.keys(rows)
    cards = [
        _card(
            subject, row, keys[row], picture, spatial, {n: s[place] for n, s in strongest.items()}
        )
        for place, (row, picture) in enumerate(zip(rows, inputs, strict=True))
    ]
    lede = (
        f"{len(rows)} images drawn at random, as the network sees them, and for each layer the "
        f"{_CHANNELS} channels that answer most strongly anywhere in the image. Yellow is a map's "
        "own maximum, dark blue is zero or less."
    )
    return Section(_ANCHOR, _TITLE, lede, element("div", *cards, class_="examples"))


def _examples(subject: Subject, count: int) -> tuple[list[int], list["Tensor"]]:
    """Draw good rows, of different labels as long as there are some: numbers and network inputs."""
    assert subject.source is not None
    assert subject.network is not None
    rows: list[int] = []
    inputs: list[Tensor] = []
    for row in varied_rows(subject, "maps"):
        try:
            image = subject.source.decode(subject.source.read(row))
        except BadImage:
            continue
        rows.append(row)
        inputs.append(subject.network.transform(image))
        if len(rows) == count:
            break
    return rows, inputs


def varied_rows(subject: Subject, purpose: str, most: int = 64) -> list[int]:
    """Draw up to `most` good rows at random, all labels once before any comes twice."""
    good = np.flatnonzero(subject.good)
    rng = subject.random(purpose)
    drawn = rng.choice(good, min(len(good), 32 * most), replace=False)
    labels = subject.labels[drawn]
    seen: dict[int, int] = {}
    turn = np.empty(len(drawn), dtype=np.int64)
    for place, label in enumerate(labels.tolist()):
        turn[place] = seen.get(label, 0)
        seen[label] = int(turn[place]) + 1
    return [int(row) for row in drawn[np.argsort(turn, kind="stable")][:most]]


def _strongest(
    subject: Subject, spatial: Sequence[LayerView], inputs: Sequence["Tensor"]
) -> dict[str, list[list[tuple[int, float, NDArray[np.float32]]]]]:
    """Return by layer, and for each image, its strongest channels: number, peak, small map."""
    import torch

    network = subject.network
    assert network is not None

    def reduce(_: "Layer", activation: "Tensor") -> Any:
        return [_strongest_of(maps.float()) for maps in activation]

    batch = torch.stack(list(inputs)).to(network.device).float() / 255
    with torch.inference_mode():
        return network.activations(batch, [layer.name for layer in spatial], reduce=reduce)


def _strongest_of(maps: "Tensor") -> list[tuple[int, float, NDArray[np.float32]]]:
    """Choose among the maps (C, H, W) of one image, and shrink those chosen."""
    from torch.nn.functional import adaptive_avg_pool2d

    peaks = maps.amax(dim=(1, 2))
    order = peaks.argsort(descending=True, stable=True)[:_CHANNELS]
    height, width = maps.shape[1:]
    small = maps[order]
    if max(height, width) > _LARGEST:
        small = adaptive_avg_pool2d(small, (min(height, _LARGEST), min(width, _LARGEST)))
    values = small.cpu().numpy()
    return [
        (int(channel), float(peaks[channel]), values[place])
        for place, channel in enumerate(order.tolist())
    ]


def _card(
    subject: Subject,
    row: int,
    key: str,
    picture: "Tensor",
    spatial: Sequence[LayerView],
    strongest: dict[str, list[tuple[int, float, NDArray[np.float32]]]],
) -> Markup:
    pixels = as_pixels(picture)
    crisp = "crisp" if max(pixels.shape[:2]) <= 64 else None
    name = subject.label_name(int(subject.labels[row]))
    caption = element(
        "figcaption",
        element("span", key, class_="key", title=f"{key} (row {row})"),
        element("span", name, class_="label") if name else None,
    )
    figure = element(
        "figure",
        image(
            webp(pixels),
            f"{key}, as the network sees it",
            class_=crisp,
        ),
        caption,
        class_="seen",
    )
    strips = [_strip(layer, strongest[layer.name]) for layer in spatial]
    return element("article", figure, element("div", *strips, class_="depths"), class_="example")


def _strip(layer: LayerView, found: list[tuple[int, float, NDArray[np.float32]]]) -> Markup:
    assert layer.grid is not None
    pictures = (
        element(
            "figure",
            image(
                heatmap(values),
                f"{layer.name}, channel {channel}: up to {number(peak)}",
                class_="map",
                title=f"{layer.name}, channel {channel}: up to {number(peak)}",
            ),
            element("figcaption", channel),
        )
        for channel, peak, values in found
    )
    name = element(
        "div",
        element("b", layer.name),
        element("span", sides(*layer.grid)),
        class_="depth-name",
    )
    return element("div", name, element("div", join(pictures), class_="strip"), class_="depth")
