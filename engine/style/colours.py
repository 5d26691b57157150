"""Brightness painted, colours kept: style transfer in the luminance alone.

    Y = 0.299 R + 0.587 G + 0.114 B,    x' = x + Y' - Y

Gatys, Bethge, Hertzmann and Shechtman (2016), "Preserving Color in Neural Artistic Style Transfer",
section 3.2. Y is the first of YIQ; to add the same number to red, green and blue changes Y by as
much and leaves I and Q as they are. Pixels that would leave [0, 1] are clamped there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fc7.engine.synthesis.parametrisation import Parametrisation
from fc7.engine.synthesis.randomness import Keys
from fc7.engine.synthesis.rows import each_row

_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114
# A deviation below a quarter of one of 256 levels is rounding: there is nothing to spread.
_FLAT = 2**-10


def luminance(images: Tensor) -> Tensor:
    """Return Y three times over: (N, 3, H, W) -> (N, 3, H, W), which networks take as images."""
    return _luminance(images).expand(-1, 3, -1, -1).contiguous()


def recoloured(painted: Tensor, images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] with the luminance of what was painted.

    Args:
        painted: (N, 3, H, W) in [0, 1]; its colours do not count.
        images: (N, 3, H, W) in [0, 1], whose colours stay.
    """
    return (images + (_luminance(painted) - _luminance(images))).clamp(0, 1)


def matched(style: Tensor, image: Tensor) -> Tensor:
    """Return a style's luminance (1, 3, H, W) with the mean and deviation of an image's.

        s / s' (Y' - m') + m,    equation 10 of the paper

    Clamped to [0, 1]; a style of one brightness becomes the image's mean.

    Args:
        style: (1, 3, H', W') in [0, 1].
        image: (1, 3, H, W) in [0, 1].
    """
    theirs, own = (_luminance(one).double() for one in (style, image))
    deviation = theirs.std(correction=0)
    ratio = torch.where(deviation > _FLAT, own.std(correction=0) / deviation, 0.0)
    found = ratio * (theirs - theirs.mean()) + own.mean()
    return found.float().clamp(0, 1).expand(-1, 3, -1, -1).contiguous()


@dataclass(frozen=True)
class Luminance:
    """Grey images: latents are (N, 1, H, W).

    Attributes:
        way: from latents to brightness.
    """

    way: Parametrisation

    def latent(self, images: Tensor) -> Tensor:
        """Return the latents of images' luminance."""
        return self.way.latent(each_row(_luminance, images))

    def noise(self, keys: Keys, size: tuple[int, int]) -> Tensor:
        """Return latents of random starts."""
        return self.way.noise(keys, size)[:, :1].contiguous()

    def images(self, latent: Tensor) -> Tensor:
        """Return grey images, (N, 3, H, W)."""
        return self.way.images(latent).expand(-1, 3, -1, -1)


def _luminance(images: Tensor) -> Tensor:
    """Return Y, (N, 1, H, W)."""
    return _RED * images[:, 0:1] + _GREEN * images[:, 1:2] + _BLUE * images[:, 2:3]
