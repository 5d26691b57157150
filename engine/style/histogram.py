"""Colours put where another image has them: histograms matched exactly, by rank.

    y[k-th smallest of P] = the floor((k + 1/2) Q / P)-th smallest of the Q that are wanted

each channel by itself, or each principal axis of the wanted colours, which then keep how channels
go together (Gatys, Bethge, Hertzmann and Shechtman 2016, "Preserving color in neural artistic style
transfer", match the covariance alone).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.rows import each_row

NONE = "none"


def match_channels(images: Tensor, wanted: Tensor) -> Tensor:
    """Return images with the histograms of others, in red, green and blue.

    Args:
        images: (N, 3, H, W) float.
        wanted: (N, 3, h, w) float, of any size.

    Returns:
        (N, 3, H, W): of each channel, no level comes more often, or less, than its share by one.
    """
    return each_row(_ranked, images, wanted)


def match_colours(images: Tensor, wanted: Tensor) -> Tensor:
    """Return images with the histograms of others along the principal axes of their colours.

    Arguments are those of `match_channels`; what leaves [0, 1] is clamped.
    """
    return each_row(_along_axes, images, wanted)


HISTOGRAMS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    NONE: lambda images, wanted: images,
    "channels": match_channels,
    "colours": match_colours,
}
"""How colours are matched, by name."""


def check_histogram(name: str) -> None:
    """Raise OptionError where there is no such way to match."""
    if name not in HISTOGRAMS:
        raise OptionError(f"no histogram {name!r}; there are {', '.join(HISTOGRAMS)}")


def _ranked(images: Tensor, wanted: Tensor) -> Tensor:
    values, goal = images.flatten(2), wanted.flatten(2).sort(2).values
    count, most = values.shape[2], goal.shape[2]
    places = (2 * torch.arange(count, device=values.device) + 1) * most // (2 * count)
    order = values.argsort(dim=2, stable=True)
    return torch.empty_like(values).scatter_(2, order, goal[:, :, places]).view_as(images)


def _along_axes(images: Tensor, wanted: Tensor) -> Tensor:
    goal = wanted.double()
    mean = goal.mean((2, 3), keepdim=True)
    centred = (goal - mean).flatten(2)
    axes: Tensor = torch.linalg.eigh(centred @ centred.mT).eigenvectors  # a column an axis
    turned = axes.mT @ (images.double() - mean).flatten(2)
    matched: Tensor = axes @ _ranked(turned[..., None], (axes.mT @ centred)[..., None])[..., 0]
    return (matched.view_as(images) + mean).clamp(0, 1).to(images.dtype)
