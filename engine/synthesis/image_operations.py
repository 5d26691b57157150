"""What is done to images between steps, after Yosinski et al., 2015, section 4.

"Understanding Neural Networks Through Deep Visualization" regularises by operations that are no
gradient of anything. Zero is the network's mean colour, an argument. Each row is computed as if
alone, and every percentile is of the row's own pixels. Nothing is written over.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.percentiles import check_percentile, norms, replaced
from fc7.engine.synthesis.pixels import Colour, check_at_least, check_colour, plane
from fc7.engine.synthesis.rows import each_row
from fc7.engine.synthesis.smoothing import gaussian_blur


class ImageOperation(Protocol):
    """From images after a step to what the next step starts from."""

    def __call__(self, images: Tensor, gradients: Tensor, steps: NDArray[np.int64]) -> Tensor:
        """Return images, (N, 3, H, W).

        Args:
            images: (N, 3, H, W).
            gradients: (N, 3, H, W), of the objective by the images, at the step just made.
            steps: (N,) how many steps each row has made, this one included.
        """


@dataclass(frozen=True)
class Decay:
    """c + (1 - rate) (x - c): a step towards a colour, which L2 would give.

    Attributes:
        rate: in [0, 1].
        colour: the network's mean.

    Raises:
        OptionError: one of them is out of range.
    """

    rate: float
    colour: Colour

    def __post_init__(self) -> None:
        check_colour(self.colour)
        if not 0 <= self.rate <= 1:
            raise OptionError(f"the rate of decay is {self.rate}; it lies between 0 and 1")

    def __call__(self, images: Tensor, gradients: Tensor, steps: NDArray[np.int64]) -> Tensor:
        """Return images, (N, 3, H, W)."""
        colour = plane(self.colour, images)
        return (images - colour) * (1 - self.rate) + colour


@dataclass(frozen=True)
class Blur:
    """Gaussian blur now and then; rows that are not due stay as they are, to the bit.

    Attributes:
        width: standard deviation in pixels, at least 0.
        every: steps from one blur to the next, at least 1.

    Raises:
        OptionError: one of them is out of range.
    """

    width: float
    every: int = 1

    def __post_init__(self) -> None:
        check_at_least("the width of blur", self.width, 0)
        check_at_least("the number of steps between blurs", self.every, 1)

    def __call__(self, images: Tensor, gradients: Tensor, steps: NDArray[np.int64]) -> Tensor:
        """Return images, (N, 3, H, W)."""
        due = torch.from_numpy(np.flatnonzero(steps % self.every == 0)).to(images.device)
        if not len(due):
            return images
        return images.index_copy(0, due, gaussian_blur(images.index_select(0, due), self.width))


@dataclass(frozen=True)
class _ZeroSmall(ABC):
    """A colour instead of pixels of which something is small.

    Attributes:
        percentile: below which it is small, of a row's own pixels; in [0, 100].
        colour: the network's mean.

    Raises:
        OptionError: one of them is out of range.
    """

    percentile: float
    colour: Colour

    def __post_init__(self) -> None:
        check_colour(self.colour)
        check_percentile(self.percentile)

    def __call__(self, images: Tensor, gradients: Tensor, steps: NDArray[np.int64]) -> Tensor:
        """Return images, (N, 3, H, W)."""
        return each_row(self._of, images, gradients)

    def _of(self, images: Tensor, gradients: Tensor) -> Tensor:
        colour = plane(self.colour, images)
        sizes = self._sizes(images - colour, gradients)
        return replaced(images, sizes, self.percentile, colour)

    @abstractmethod
    def _sizes(self, images: Tensor, gradients: Tensor) -> Tensor:
        """Return what is small or large, (N, H, W), of images less the colour."""


class ZeroSmallNorm(_ZeroSmall):
    """A colour instead of pixels that differ from it by little, by the norm over colours."""

    def _sizes(self, images: Tensor, gradients: Tensor) -> Tensor:
        return norms(images)


class ZeroSmallContribution(_ZeroSmall):
    """A colour instead of pixels without which the objective would change by little.

    By how much is estimated as |sum over colours of (x - c) * gradient|.
    """

    def _sizes(self, images: Tensor, gradients: Tensor) -> Tensor:
        return (images.double() * gradients).sum(1).abs()


class ZeroSmallGradient(_ZeroSmall):
    """A colour instead of pixels whose gradient is small, by its norm over colours."""

    def _sizes(self, images: Tensor, gradients: Tensor) -> Tensor:
        return norms(gradients)


@dataclass(frozen=True)
class Clamp:
    """Values brought into a range.

    Attributes:
        low: the least.
        high: the largest.

    Raises:
        OptionError: the range is empty.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise OptionError(f"no value lies between {self.low} and {self.high}")

    def __call__(self, images: Tensor, gradients: Tensor, steps: NDArray[np.int64]) -> Tensor:
        """Return images, (N, 3, H, W)."""
        return images.clamp(self.low, self.high)
