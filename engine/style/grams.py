"""Styles as numbers: Gram matrices by layer, scaled, and mixed.

    G = F F^T / (H W),    a mixture of styles: sum over styles of w G,  the w adding up to 1

Each is divided by its own image's places, so that images of any sizes compare and mix. G is the raw
second moment, and so a mixture of G's is that of an image that has each style on a share w of it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.rows import each_row

Grams = Mapping[str, Tensor]
"""Gram matrices by layer, (N, C, C)."""


def mixed(styles: Sequence[Grams], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted sum of styles' Gram matrices; weights are divided by their sum.

    Raises:
        OptionError: there are not as many weights as styles, one of them is below 0 or no number,
            or all are 0.
    """
    shares = mixture(len(styles), weights)
    return {
        layer: sum(
            (share * style[layer] for share, style in zip(shares[1:], styles[1:], strict=True)),
            start=shares[0] * styles[0][layer],
        )
        for layer in styles[0]
    }


def mixture(count: int, weights: Sequence[float]) -> list[float]:
    """Return shares of so many styles that add up to 1; equal ones where no weight is given.

    Raises:
        OptionError: see `mixed`.
    """
    given = list(weights) or [1.0] * count
    if len(given) != count:
        raise OptionError(f"{count} styles and {len(given)} weights; give one each, or none")
    total = sum(given)  # infinite where fsum would raise
    if not (all(0 <= weight < math.inf for weight in given) and 0 < total < math.inf):
        raise OptionError(f"weights are {given}; each must be 0 or more, and one above 0")
    return [weight / total for weight in given]


def at_scale(image: Tensor, scale: float) -> Tensor:
    """Return a style image (N, 3, H, W) with sides of so many times their length.

    Its texture grows by as much: what spans ten pixels of a layer's receptive field then spans ten
    times the scale.

    Raises:
        OptionError: the scale is no number above 0, or leaves no pixel.
    """
    if not 0 < scale < math.inf:
        raise OptionError(f"style scale is {scale}; it must be above 0")
    size = [round(side * scale) for side in image.shape[2:]]
    if min(size) < 1:
        raise OptionError(f"at the scale of {scale} nothing is left of {tuple(image.shape[2:])}")
    return at_size(image, (size[0], size[1]))


def at_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images in [0, 1], without aliasing: (N, 3, H, W) -> (N, 3, *size)."""
    if images.shape[2:] == size:
        return images
    resized: Tensor = functional.interpolate(
        images, size, mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp(0, 1)


def rows_at_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (N, 3, H, W) at a size, each row as if alone; see `at_size`."""
    return each_row(partial(at_size, size=size), images)


def joined(rows: Sequence[Grams]) -> dict[str, Tensor]:
    """Return the Gram matrices of several rows as those of a batch."""
    return {layer: torch.cat([row[layer] for row in rows]) for layer in rows[0]}
