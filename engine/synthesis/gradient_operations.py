"""What is done to gradients before a step. Each row is computed as if alone.

Gradients are (N, 3, H, W), by pixels or by latents. What is about places in the image (small
pixels, masks, blur) means gradients by pixels. A gradient that is zero stays zero.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.percentiles import check_percentile, without_small
from fc7.engine.synthesis.pixels import check_at_least, from_centre
from fc7.engine.synthesis.rows import each_row
from fc7.engine.synthesis.smoothing import gaussian_blur


class GradientOperation(Protocol):
    """From gradients to gradients."""

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return gradients, (N, 3, H, W)."""


@dataclass(frozen=True)
class DropSmallGradients:
    """Zero where a pixel's gradient, by its norm over colours, is small: it stays as it is.

    Attributes:
        percentile: of the norms of a row's gradients, below which they are small; in [0, 100].

    Raises:
        OptionError: the percentile is out of range.
    """

    percentile: float

    def __post_init__(self) -> None:
        check_percentile(self.percentile)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return gradients, (N, 3, H, W)."""
        return without_small(gradients, self.percentile)


@dataclass(frozen=True)
class UnitMean:
    """Gradients over the mean of a row's absolute values, as DeepDream's (Mordvintsev, 2015)."""

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return gradients, (N, 3, H, W)."""
        return each_row(self._of, gradients)

    def _of(self, gradients: Tensor) -> Tensor:
        return _over(gradients, gradients.double().abs().mean((1, 2, 3)))


@dataclass(frozen=True)
class UnitNorm:
    """Gradients over a row's Euclidean norm."""

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return gradients, (N, 3, H, W)."""
        return each_row(self._of, gradients)

    def _of(self, gradients: Tensor) -> Tensor:
        return _over(gradients, _lengths(gradients))


@dataclass(frozen=True)
class ClipNorm:
    """Gradients whose norm, over a row, is above a limit are shortened to it.

    Attributes:
        limit: above 0.

    Raises:
        OptionError: the limit is out of range.
    """

    limit: float

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise OptionError(f"the limit of norms is {self.limit}; it must be above 0")

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return gradients, (N, 3, H, W)."""
        return each_row(self._of, gradients)

    def _of(self, gradients: Tensor) -> Tensor:
        # By 1, exactly, where the norm is within the limit.
        return _over(gradients, (_lengths(gradients) / self.limit).clamp(min=1))


@dataclass(frozen=True)
class CentreGaussian:
    """Gradients by exp(-r^2 / 2 width^2), r from the middle in half sides (Nguyen et al., 2016).

    Attributes:
        width: in half sides, above 0: at 1, the middle of each side counts 0.61.

    Raises:
        OptionError: the width is out of range.
    """

    width: float

    def __post_init__(self) -> None:
        _check_width(self.width)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return gradients, (N, 3, H, W)."""
        down, across = (
            (-0.5 * (from_centre(length) / self.width).square()).exp().to(gradients)
            for length in gradients.shape[2:]
        )
        return gradients * down[:, None] * across


@dataclass(frozen=True)
class CentreBox:
    """Gradients within a box about the middle, zero outside.

    Attributes:
        width: of the box, as a share of each side, above 0: 1 is all. One pixel stays, or two where
            the side is even, however narrow the box.

    Raises:
        OptionError: the width is out of range.
    """

    width: float

    def __post_init__(self) -> None:
        _check_width(self.width)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return gradients, (N, 3, H, W)."""
        down, across = (
            from_centre(length).abs() <= max(self.width, 1 / length)
            for length in gradients.shape[2:]
        )
        outside = ~(down[:, None] & across).to(gradients.device)
        return gradients.masked_fill(outside, 0)


@dataclass(frozen=True)
class BlurGradients:
    """Gradients smoothed by a Gaussian.

    Attributes:
        width: standard deviation in pixels, at least 0.

    Raises:
        OptionError: the width is out of range.
    """

    width: float

    def __post_init__(self) -> None:
        check_at_least("the width of blur", self.width, 0)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return gradients, (N, 3, H, W)."""
        return gaussian_blur(gradients, self.width)


def _lengths(gradients: Tensor) -> Tensor:
    # In float64 no square of a float32 overflows, or vanishes.
    return gradients.double().square().sum((1, 2, 3)).sqrt()


def _over(gradients: Tensor, scales: Tensor) -> Tensor:
    """Return gradients over a positive float64 number a row, (N,); zero where that is 0."""
    scales = scales.masked_fill(scales == 0, 1)[:, None, None, None]
    return (gradients / scales).to(gradients.dtype)


def _check_width(width: float) -> None:
    check_at_least("the width of the mask", width, 0)
    if width == 0:
        raise OptionError("the width of the mask is 0, which leaves nothing; it must be above 0")
