"""What gradient ascent moves: the pixels themselves, or numbers that images are made of.

    Pixels          x = z
    SigmoidPixels   x = sigmoid(C z)
    Fourier         x = sigmoid(C F(s z))

F is an orthonormal Fourier transform, s a spectrum that falls as those of photographs do, and C
turns colours that vary independently in photographs into red, green and blue. Steps in z then meet
all frequencies and colours alike. See Olah, Mordvintsev and Schubert, 2017, "Feature
Visualization" (Distill), the section on preconditioning, and their code, Lucid.

All latents have their images' shape. Each row is computed as if alone.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.pixels import GREY, Colour, check_at_least, check_colour, plane
from fc7.engine.synthesis.randomness import Keys, Purpose, normal
from fc7.engine.synthesis.rows import each_row

DEVIATION = 0.01

# A root of the covariance of ImageNet's colours, as published with Lucid (optvis/param/color.py),
# by its largest column: a unit of latent is then at most a unit before the sigmoid.
_PUBLISHED = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOURS: NDArray[np.float64] = _PUBLISHED / np.sqrt((_PUBLISHED**2).sum(0).max())
_INVERSE: NDArray[np.float64] = np.linalg.inv(COLOURS).astype(np.float64)


class Parametrisation(Protocol):
    """From latents to images, and back."""

    def latent(self, images: Tensor) -> Tensor:
        """Return the latents, (N, 3, H, W), of images (N, 3, H, W) in [0, 1]."""

    def noise(self, keys: Keys, size: tuple[int, int]) -> Tensor:
        """Return latents of random starts, (N, 3, H, W) float32 on the CPU, each by its key."""

    def images(self, latent: Tensor) -> Tensor:
        """Return images, (N, 3, H, W), differentiably; in [0, 1] where the sigmoid sees to it."""


@dataclass(frozen=True)
class Pixels:
    """The pixels themselves. A step can leave [0, 1]: clamp after it.

    Attributes:
        colour: about which random starts lie.
        deviation: of a random start, in [0, 1]'s units.

    Raises:
        OptionError: one of them is out of range.
    """

    colour: Colour = GREY
    deviation: float = DEVIATION

    def __post_init__(self) -> None:
        check_colour(self.colour)
        check_at_least("deviation", self.deviation, 0)

    def latent(self, images: Tensor) -> Tensor:
        """Return a copy of the images."""
        return images.clone()

    def noise(self, keys: Keys, size: tuple[int, int]) -> Tensor:
        """Return the colour and normal noise, clamped to [0, 1]."""
        drawn = normal(keys, Purpose.START, (3, *size)) * self.deviation
        return (drawn + plane(self.colour, drawn)).clamp(0, 1)

    def images(self, latent: Tensor) -> Tensor:
        """Return the latents."""
        return latent


@dataclass(frozen=True)
class SigmoidPixels:
    """Pixels before a sigmoid, which keeps them in (0, 1).

    Attributes:
        decorrelated: whether a latent's channels are ImageNet's independent colours.
        deviation: of a random start's latents, about the middle grey.
        margin: images are brought into [margin, 1 - margin] before the sigmoid is undone, for it
            reaches neither 0 nor 1, and moves little near them. The default changes no pixel by
            more than a quarter of a level of 8 bits.

    Raises:
        OptionError: one of them is out of range.
    """

    decorrelated: bool = False
    deviation: float = DEVIATION
    margin: float = 2**-10

    def __post_init__(self) -> None:
        check_at_least("deviation", self.deviation, 0)
        _check_margin(self.margin)

    def latent(self, images: Tensor) -> Tensor:
        """Return the latents of these images: `images` brings them back to rounding."""
        return each_row(self._latent, images)

    def noise(self, keys: Keys, size: tuple[int, int]) -> Tensor:
        """Return normal noise."""
        return normal(keys, Purpose.START, (3, *size)) * self.deviation

    def images(self, latent: Tensor) -> Tensor:
        """Return the images of these latents."""
        return each_row(self._images, latent)

    def _latent(self, images: Tensor) -> Tensor:
        found = _before_sigmoid(images, self.margin)
        return (_mixed(_INVERSE, found) if self.decorrelated else found).to(images.dtype)

    def _images(self, latent: Tensor) -> Tensor:
        return (_mixed(COLOURS, latent) if self.decorrelated else latent).sigmoid()


@dataclass(frozen=True)
class Fourier:
    """Spectra of decorrelated colours: what Lucid ascends by default.

    Lucid's latents are the real and imaginary parts of half a spectrum. Here the transform is
    Hartley's (1942), whose numbers are theirs turned by 45 degrees: real, as many as pixels, none
    twice, and of any height and width. Scales are Lucid's, and so is the image's change with a
    step, but for the columns of frequency 0 and 1/2, of which Lucid holds each number twice.

    Attributes:
        decay: the power by which the spectrum falls with the frequency.
        decorrelated: as for `SigmoidPixels`, likewise the next two.
        deviation: likewise.
        margin: likewise.

    Raises:
        OptionError: one of them is out of range.
    """

    decay: float = 1.0
    decorrelated: bool = True
    deviation: float = DEVIATION
    margin: float = 2**-10

    def __post_init__(self) -> None:
        check_at_least("decay", self.decay, 0)
        check_at_least("deviation", self.deviation, 0)
        _check_margin(self.margin)

    def latent(self, images: Tensor) -> Tensor:
        """Return the latents of these images: `images` brings them back to rounding."""
        return each_row(self._latent, images)

    def noise(self, keys: Keys, size: tuple[int, int]) -> Tensor:
        """Return normal noise."""
        return normal(keys, Purpose.START, (3, *size)) * self.deviation

    def images(self, latent: Tensor) -> Tensor:
        """Return the images of these latents."""
        return each_row(self._images, latent)

    def _latent(self, images: Tensor) -> Tensor:
        found = _before_sigmoid(images, self.margin)
        found = _mixed(_INVERSE, found) if self.decorrelated else found
        return (_hartley(found) / self._spectrum(found)).to(images.dtype)

    def _images(self, latent: Tensor) -> Tensor:
        signal: Tensor = _Hartley.apply(latent * self._spectrum(latent))
        return (_mixed(COLOURS, signal) if self.decorrelated else signal).sigmoid()

    def _spectrum(self, like: Tensor) -> Tensor:
        height, width = like.shape[2:]
        return _spectrum(height, width, self.decay, like.dtype, like.device)


@lru_cache(maxsize=8)
def _spectrum(
    height: int, width: int, decay: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return Lucid's scale of each frequency, (H, W), in the order of a Fourier transform.

    1 / max(f, 1 / max(H, W)) ** decay by a quarter, f in cycles a pixel. The root of 2 makes up for
    frequencies that Lucid counts once and means twice.
    """
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    frequency = np.maximum(np.hypot(down, across), 1 / max(height, width))
    # Kept for later calls, which may need a gradient through it: never of inference mode.
    with torch.inference_mode(False):
        return torch.from_numpy(math.sqrt(2) / 4 / frequency**decay).to(device, dtype)


class _Hartley(torch.autograd.Function):
    """The transform is symmetric, so a gradient goes back through the transform itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _hartley(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        back: Tensor = _Hartley.apply(g)
        return back


def _hartley(x: Tensor) -> Tensor:
    """Return the sums of x by cos + sin, over root(H W): (..., H, W), its own inverse."""
    if not x.numel():
        return x.clone()
    width = x.shape[-1]
    half = torch.fft.rfft2(x, norm="ortho")
    found = torch.empty_like(x)
    torch.sub(half.real, half.imag, out=found[..., : width // 2 + 1])
    # What the half lacks is at the negative frequencies, where the imaginary parts change sign.
    lacking = (half.real + half.imag)[..., 1 : width - width // 2].flip(-1)
    found[..., :1, width // 2 + 1 :] = lacking[..., :1, :]
    found[..., 1:, width // 2 + 1 :] = lacking[..., 1:, :].flip(-2)
    return found


class _Mixed(torch.autograd.Function):
    """A gradient goes back by the matrix's transpose, which autograd would do in twice the time."""

    @staticmethod
    def forward(ctx: Any, channels: Tensor, matrix: NDArray[np.float64]) -> Tensor:
        ctx.matrix = matrix
        found = torch.empty_like(channels)
        first, *others = channels.unbind(1)
        for row, mixed in zip(matrix.tolist(), found.unbind(1), strict=True):
            torch.mul(first, row[0], out=mixed)
            for factor, channel in zip(row[1:], others, strict=True):
                mixed.add_(channel, alpha=factor)
        return found

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return _Mixed.apply(g, ctx.matrix.T), None


def _mixed(matrix: NDArray[np.float64], channels: Tensor) -> Tensor:
    """Return a matrix, (3, 3), times each pixel of (N, 3, H, W)."""
    found: Tensor = _Mixed.apply(channels, matrix)
    return found


def _before_sigmoid(images: Tensor, margin: float) -> Tensor:
    """Return what the sigmoid makes images of, in float64."""
    return images.double().clamp(margin, 1 - margin).logit()


def _check_margin(margin: float) -> None:
    if not 0 < margin < 0.5:
        raise OptionError(f"margin is {margin}; it lies between 0 and 0.5")
