"""What an image is fined for: one number a row, with a gradient by autograd.

    L2               sum of (x - c)^2                      Simonyan et al., 2014, equation 2
    LAlpha           sum of |x - c|^a                      Mahendran and Vedaldi, 2015, section 2
    TotalVariation   sum of (dx^2 + dy^2)^(b / 2)          likewise
    CentreBias       sum of r^2 (x - c)^2

c is the network's mean colour, which it sees as zero; sums run over pixels and colours, as in the
papers, so that a penalty grows with the image's area.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from fc7.engine.synthesis.pixels import Colour, check_at_least, check_colour, from_centre, plane
from fc7.engine.synthesis.rows import each_row


class Penalty(Protocol):
    """From images to how far each is from what is wanted."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return values, (N,) and at least 0, of images (N, 3, H, W)."""


@dataclass(frozen=True)
class L2:
    """The squared distance to a colour.

    Attributes:
        colour: the network's mean.

    Raises:
        OptionError: the colour is none.
    """

    colour: Colour

    def __post_init__(self) -> None:
        check_colour(self.colour)

    def __call__(self, images: Tensor) -> Tensor:
        """Return values, (N,)."""
        return each_row(self._of, images)

    def _of(self, images: Tensor) -> Tensor:
        return (images - plane(self.colour, images)).square().sum((1, 2, 3))


@dataclass(frozen=True)
class LAlpha:
    """The distance to a colour by a power that spares small differences and fines large ones.

    Attributes:
        colour: the network's mean.
        alpha: the power, at least 1; Mahendran and Vedaldi's is 6.

    Raises:
        OptionError: one of them is out of range.
    """

    colour: Colour
    alpha: float = 6.0

    def __post_init__(self) -> None:
        check_colour(self.colour)
        check_at_least("alpha", self.alpha, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return values, (N,)."""
        return each_row(self._of, images)

    def _of(self, images: Tensor) -> Tensor:
        squares = (images - plane(self.colour, images)).square()
        return _power(squares, self.alpha / 2).sum((1, 2, 3))


@dataclass(frozen=True)
class TotalVariation:
    """How much neighbours differ, of each colour by itself.

    dx and dy are the differences to the pixel on the right and to the one below; at the edge, where
    there is none, they are 0.

    Attributes:
        beta: the power of a difference, at least 1: 2 blurs, 1 allows for edges.

    Raises:
        OptionError: beta is out of range.
    """

    beta: float = 2.0

    def __post_init__(self) -> None:
        check_at_least("beta", self.beta, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return values, (N,)."""
        return each_row(self._of, images)

    def _of(self, images: Tensor) -> Tensor:
        across = F.pad(images[..., 1:] - images[..., :-1], (0, 1))
        down = F.pad(images[..., 1:, :] - images[..., :-1, :], (0, 0, 0, 1))
        return _power(across.square() + down.square(), self.beta / 2).sum((1, 2, 3))


@dataclass(frozen=True)
class CentreBias:
    """The squared distance to a colour, by a weight that grows with the distance to the middle.

    r^2 is 0 in the middle, 1 at the middle of each side, and 2 in the corners.

    Attributes:
        colour: the network's mean.

    Raises:
        OptionError: the colour is none.
    """

    colour: Colour

    def __post_init__(self) -> None:
        check_colour(self.colour)

    def __call__(self, images: Tensor) -> Tensor:
        """Return values, (N,)."""
        return each_row(self._of, images)

    def _of(self, images: Tensor) -> Tensor:
        down, across = (from_centre(length).square() for length in images.shape[2:])
        weights = (down[:, None] + across).to(images)
        return ((images - plane(self.colour, images)).square() * weights).sum((1, 2, 3))


def _power(squares: Tensor, exponent: float) -> Tensor:
    """Return squares ** exponent, the exponent at least 1/2, with a finite gradient everywhere.

    Below an exponent of 1 the derivative by a square is infinite at 0, and infinity times the
    square's own derivative, 0, is NaN. There the function of the difference has a minimum, so that
    0 is a subgradient. Elsewhere value and gradient are the formula's: no epsilon rounds them off.
    """
    if exponent == 1:
        return squares
    if exponent > 1:
        return squares.pow(exponent)
    flat = squares == 0
    return squares.masked_fill(flat, 1).pow(exponent).masked_fill(flat, 0)
