"""Maximal patches: the nine places of the data set that excite a channel most."""

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import StoreError
from fc7.engine.features.crops import crop_patches
from fc7.engine.models import receptive_field
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import LayerView, Subject
from fc7.engine.store.patches import Patches, patches_job, read_patches
from fc7.engine.words import number, plural, sides

_ANCHOR, _TITLE = "patches", "Maximal patches"
_SHOWN = 9
_DEAD_LISTED = 12


def maximal(subject: Subject, detail: Detail) -> Section:
    """Show the maximal patches of the channels that vary most, layer by layer."""
    jobs = subject.run.jobs()
    layers = [layer for layer in subject.layers if patches_job(layer.name) in jobs]
    layers = [layer for layer in layers if jobs[patches_job(layer.name)].is_complete]
    if not layers:
        return missing(_ANCHOR, _TITLE, "the run holds no maximal patches; fc7 patches makes them")
    if subject.network is None or subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_network or subject.why_no_images)
    if not detail.channels:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "For each layer the channels whose answer varies most over the data set, and for each of "
        "them the nine images that excite it most, the strongest first, cut out of the original "
        "to what the winning position sees. Point at a patch for its value."
    )
    body = join(_layer(subject, layer, detail) for layer in layers)
    return Section(_ANCHOR, _TITLE, lede, body)


def choose_channels(values: NDArray[np.float32], dead: NDArray[np.bool_], count: int) -> list[int]:
    """Choose the channels with the largest standard deviation, dead ones last of all.

    Args:
        values: (rows, C), a sample of what the channels answer.
        dead: (C,), those never above zero.
        count: how many; ties go to the lower number.
    """
    spread = values.std(axis=0, dtype=np.float64)
    order = np.lexsort((np.arange(len(spread)), -spread, dead))
    return [int(channel) for channel in order[:count]]


def _layer(subject: Subject, layer: LayerView, detail: Detail) -> Markup:
    assert subject.network is not None
    assert subject.source is not None
    try:
        patches = read_patches(subject.run, layer.name)
    except StoreError as error:
        return element("p", f"{layer.name}: {error}", class_="missing")
    best = np.asarray(patches.values[:, 0])
    # Only a ReLU makes a channel dead: a logit below zero says something too.
    dead = ~(best > 0) if layer.rectified else np.zeros(len(best), dtype=np.bool_)
    channels = choose_channels(subject.sample_values(layer), dead, detail.channels)
    return element(
        "div",
        element("h3", layer.name, " ", element("small", _about(subject, layer))),
        _dead_note(layer, np.flatnonzero(dead)) if dead.any() else None,
        channel_cards(subject, layer, patches, channels, detail.tile, dead),
        class_="layer",
    )


def channel_cards(
    subject: Subject,
    layer: LayerView,
    patches: Patches,
    channels: list[int],
    tile: int,
    dead: NDArray[np.bool_],
) -> Markup:
    """Return a card of maximal patches for each of some channels.

    Args:
        subject: with images and network.
        layer: of the run.
        patches: the layer's.
        channels: which.
        tile: side of a patch in pixels.
        dead: (C,), channels never above zero.
    """
    assert subject.network is not None
    assert subject.source is not None
    tiles = crop_patches(subject.source, subject.network, patches, layer.name, channels, tile)
    keys = subject.keys(patches.rows[channels].reshape(-1).clip(min=0))
    cards = [
        _card(subject, layer, patches, channel, tiles[place], keys, bool(dead[channel]))
        for place, channel in enumerate(channels)
    ]
    return element("div", *cards, class_="channels")


def _about(subject: Subject, layer: LayerView) -> str:
    """Say what a layer is: its channels, its positions and what each of these sees."""
    assert subject.network is not None
    channels = plural(layer.channels, "channel" if layer.grid else "unit")
    if layer.grid is None:
        return f"{channels}, each sees the whole input"
    field = receptive_field(subject.network, layer.name)
    sees = "all of the input" if field.is_global else f"{sides(*field.size)} pixels"
    return f"{channels}, {sides(*layer.grid)} positions, each sees {sees}"


def _dead_note(layer: LayerView, dead: NDArray[np.int64]) -> Markup:
    listed = ", ".join(str(channel) for channel in dead[:_DEAD_LISTED].tolist())
    more = ", …" if len(dead) > _DEAD_LISTED else ""
    return element(
        "p",
        element("span", "dead", class_="badge"),
        f" {len(dead):,} of {layer.channels:,} are never above zero on this data: {listed}{more}",
        class_="note",
    )


def _card(
    subject: Subject,
    layer: LayerView,
    patches: Patches,
    channel: int,
    tiles: NDArray[np.uint8],
    keys: dict[int, str],
    is_dead: bool,
) -> Markup:
    pictures = []
    for rank in range(min(_SHOWN, patches.k)):
        row, value = int(patches.rows[channel, rank]), float(patches.values[channel, rank])
        if row < 0:
            continue
        about = f"{number(value)}: {keys[row]}"
        label = subject.label_name(int(subject.labels[row]))
        about += f" ({label})" if label else ""
        pictures.append(image(webp(tiles[rank]), about, title=about, class_="patch"))
    best = float(patches.values[channel, 0])
    return element(
        "figure",
        element("div", join(pictures), class_="nine"),
        element(
            "figcaption",
            element("b", _channel_name(subject, layer, channel)),
            element("span", number(best), class_="value", title="the largest value"),
            element("span", "dead", class_="badge") if is_dead else None,
        ),
        class_="channel",
    )


def _channel_name(subject: Subject, layer: LayerView, channel: int) -> str:
    """Return a class's name for a unit of the last layer, else the channel's number."""
    network = subject.network
    assert network is not None
    last = list(network.layers)[-1]
    if network.labels and layer.name == last and layer.channels == len(network.labels):
        return network.labels[channel]
    return f"{'channel' if layer.grid else 'unit'} {channel}"
