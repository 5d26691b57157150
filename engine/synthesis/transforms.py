"""What happens to an image before the network sees it: it should stay itself moved or turned.

An objective averaged over small changes has fewer images that please it by accident (Olah et al.,
2017, "Feature Visualization", the section on transformation robustness; Lucid's transforms). A
row's changes are drawn by its own key, anew at each step. All are differentiable. Rows share a call
and no sum: on a CPU a row and its gradient are the same to the bit in any company. On a GPU the
sums in the gradient of `Scale` and `Rotate` have no fixed order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.pixels import (
    GREY,
    Colour,
    check_at_least,
    check_colour,
    from_centre,
    plane,
)
from fc7.engine.synthesis.randomness import Keys, Purpose, integers


class Transform(Protocol):
    """From images to what the network sees of them."""

    def __call__(self, images: Tensor, keys: Keys) -> Tensor:
        """Return images, (N, 3, H, W), of images (N, 3, H, W); the keys are theirs."""


@dataclass(frozen=True)
class Jitter:
    """A roll by up to so many pixels down and across: what leaves on one side enters on the other.

    Attributes:
        pixels: at least 0; all offsets from -pixels to pixels are as likely.

    Raises:
        OptionError: pixels is out of range.
    """

    pixels: int

    def __post_init__(self) -> None:
        check_at_least("jitter", self.pixels, 0)

    def __call__(self, images: Tensor, keys: Keys) -> Tensor:
        """Return images, (N, 3, H, W)."""
        return rolled(images, _offsets(keys, self.pixels))


@dataclass(frozen=True)
class Shift:
    """A shift by up to so many pixels down and across; a colour enters.

    Lucid's jitter crops an image that was padded before: both in one.

    Attributes:
        pixels: as for `Jitter`.
        colour: what enters.

    Raises:
        OptionError: one of them is out of range.
    """

    pixels: int
    colour: Colour = GREY

    def __post_init__(self) -> None:
        check_at_least("jitter", self.pixels, 0)
        check_colour(self.colour)

    def __call__(self, images: Tensor, keys: Keys) -> Tensor:
        """Return images, (N, 3, H, W)."""
        margin = self.pixels
        wide = rolled(_padded(images, margin, self.colour), _offsets(keys, margin))
        return _middle(wide, (images.shape[2], images.shape[3]))


@dataclass(frozen=True)
class Scale:
    """The image made larger or smaller about its middle, by bilinear sampling.

    The size in pixels stays: a larger image loses its margin, and of a smaller one the pixels at
    the edge repeat outwards.

    Attributes:
        factors: each as likely; above 1 is larger.

    Raises:
        OptionError: there are none, or one is not above 0.
    """

    factors: Sequence[float]

    def __post_init__(self) -> None:
        _check_factors(self.factors)

    def __call__(self, images: Tensor, keys: Keys) -> Tensor:
        """Return images, (N, 3, H, W)."""
        factors = _chosen(self.factors, keys, Purpose.SCALE)
        return _sampled(images, factors, torch.zeros_like(factors))


@dataclass(frozen=True)
class Rotate:
    """The image turned about its middle, by bilinear sampling; pixels at the edge repeat outwards.

    Attributes:
        degrees: the angles, each as likely; positive turns counter-clockwise.

    Raises:
        OptionError: there are none, or one is no number.
    """

    degrees: Sequence[float]

    def __post_init__(self) -> None:
        _check_degrees(self.degrees)

    def __call__(self, images: Tensor, keys: Keys) -> Tensor:
        """Return images, (N, 3, H, W)."""
        angles = _chosen(self.degrees, keys, Purpose.ROTATION).deg2rad()
        return _sampled(images, torch.ones_like(angles), angles)


@dataclass(frozen=True)
class Affine:
    """The image shifted, made larger or smaller and turned, and shifted again; a colour enters.

    Lucid's padding, jitter, scaling, turn and second jitter at once: one sampling takes a fraction
    of the time of all these and blurs once. The image's middle is that of scale and turn, whatever
    came into it by the first shift.

    Attributes:
        factors: as for `Scale`, and drawn like its.
        degrees: as for `Rotate`, likewise.
        before: as `Jitter`'s pixels, of the first shift.
        after: likewise, of the second.
        colour: all that lies outside the image.

    Raises:
        OptionError: one of them is out of range.
    """

    factors: Sequence[float]
    degrees: Sequence[float]
    before: int = 0
    after: int = 0
    colour: Colour = GREY

    def __post_init__(self) -> None:
        _check_factors(self.factors)
        _check_degrees(self.degrees)
        check_at_least("jitter", self.before, 0)
        check_at_least("jitter", self.after, 0)
        check_colour(self.colour)

    def __call__(self, images: Tensor, keys: Keys) -> Tensor:
        """Return images, (N, 3, H, W)."""
        factors = _chosen(self.factors, keys, Purpose.SCALE)
        angles = _chosen(self.degrees, keys, Purpose.ROTATION).deg2rad()
        before, after = _offsets(keys.within(0), self.before), _offsets(keys.within(1), self.after)
        grid = _grid(images, factors, angles, before, after)
        # Outside is zero to the sampling, so the colour is, for as long as that takes.
        colour = plane(self.colour, images)
        return F.grid_sample(images - colour, grid, align_corners=False) + colour


@dataclass(frozen=True)
class Pad:
    """A margin of one colour: (N, 3, H, W) -> (N, 3, H + 2 pixels, W + 2 pixels).

    `Compose` cuts it off at its end; between, jitter and turns move the margin in, not pixels out.

    Attributes:
        pixels: at least 0.
        colour: of the margin.

    Raises:
        OptionError: one of them is out of range.
    """

    pixels: int
    colour: Colour = GREY

    def __post_init__(self) -> None:
        check_at_least("the margin", self.pixels, 0)
        check_colour(self.colour)

    def __call__(self, images: Tensor, keys: Keys) -> Tensor:
        """Return images, (N, 3, H + 2 pixels, W + 2 pixels)."""
        return _padded(images, self.pixels, self.colour)


@dataclass(frozen=True)
class Compose:
    """One transform after the other, then the middle of the size that came in.

    Attributes:
        transforms: of one kind there may be several: each draws numbers of its own.
    """

    transforms: Sequence[Transform]

    def __call__(self, images: Tensor, keys: Keys) -> Tensor:
        """Return images, (N, 3, H, W)."""
        found = images
        for place, transform in enumerate(self.transforms):
            found = transform(found, keys.within(place))
        return _middle(found, (images.shape[2], images.shape[3]))


def rolled(images: Tensor, offsets: Tensor) -> Tensor:
    """Return each row rolled by its own offsets.

    Args:
        images: (N, C, H, W).
        offsets: (N, 2) int64, down and across.
    """
    found: Tensor = _Roll.apply(images, offsets)
    return found


class _Roll(torch.autograd.Function):
    """A roll's gradient is rolled back: no sums, which indexing would make of it."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, offsets: Tensor) -> Tensor:
        ctx.offsets = offsets
        if images.device.type == "cpu":
            # A quarter of the time that indexing takes.
            found = torch.empty_like(images)
            for row, image, by in zip(found, images, offsets.tolist(), strict=True):
                row.copy_(image.roll(by, (1, 2)))
            return found
        return _rolled_by_index(images, offsets)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return _Roll.apply(g, -ctx.offsets), None


def _rolled_by_index(images: Tensor, offsets: Tensor) -> Tensor:
    numbers = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    down, across = (
        (torch.arange(length) - offsets[:, axis, None]).remainder(length).to(images.device)
        for axis, length in enumerate(images.shape[2:])
    )
    # Indices on both sides of the colours put these last.
    indexed = images[numbers, :, down[:, :, None], across[:, None, :]]
    return indexed.permute(0, 3, 1, 2).contiguous()


def _offsets(keys: Keys, most: int) -> Tensor:
    return integers(keys, Purpose.JITTER, 2, 2 * most + 1) - most


def _chosen(values: Sequence[float], keys: Keys, purpose: Purpose) -> Tensor:
    """Return one of the values a row, (N,) float64."""
    choices = integers(keys, purpose, 1, len(values))[:, 0]
    return torch.tensor(list(values), dtype=torch.float64)[choices]


def _check_factors(factors: Sequence[float]) -> None:
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise OptionError(f"the factors are {factors}; at least one, each above 0, will do")


def _check_degrees(degrees: Sequence[float]) -> None:
    if not degrees or not all(map(math.isfinite, degrees)):
        raise OptionError(f"the angles are {degrees}; at least one number will do")


def _padded(images: Tensor, pixels: int, colour: Colour) -> Tensor:
    height, width = images.shape[2:]
    size = (len(images), 3, height + 2 * pixels, width + 2 * pixels)
    wide = plane(colour, images).expand(size).clone()
    wide[:, :, pixels : pixels + height, pixels : pixels + width] = images
    return wide


def _middle(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle of images, (N, 3, *size)."""
    for axis, length in zip((2, 3), size, strict=True):
        images = images.narrow(axis, (images.shape[axis] - length) // 2, length)
    return images


def _sampled(images: Tensor, factors: Tensor, angles: Tensor) -> Tensor:
    """Return images made larger by factors and turned by angles in radians, each (N,) float64."""
    still = torch.zeros(len(images), 2, dtype=torch.int64)
    grid = _grid(images, factors, angles, still, still)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _grid(images: Tensor, factors: Tensor, angles: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return where each pixel comes from, (N, H, W, 2), in half sides from the middle.

    Args:
        images: whose size and dtype count.
        factors: (N,) float64, by which the image grows.
        angles: (N,) float64, in radians.
        before: (N, 2), down and across, pixels by which the image was shifted before.
        after: likewise, after.
    """
    turns = torch.stack([angles.cos(), angles.sin()], 1) / factors[:, None]
    cosines, sines = turns.to(images)[:, :, None, None].unbind(1)
    height, width = images.shape[2:]
    sides = torch.tensor([height, width], dtype=torch.float64)
    there, back = ((2 * by / sides)[:, :, None, None].unbind(1) for by in (before, after))
    down = (from_centre(height)[:, None] - back[0]).to(images)
    across = (from_centre(width) - back[1]).to(images)
    # Coordinates are in half sides, which differ in pixels: hence the sides' ratio. Not by torch's
    # affine_grid, whose product of matrices may be of less precision than float32.
    columns = across * cosines - down * sines * (height / width) - there[1].to(images)
    rows = across * sines * (width / height) + down * cosines - there[0].to(images)
    return torch.stack([columns, rows], -1)
