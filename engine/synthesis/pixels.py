"""Colours, and where a pixel lies in its image."""

import math

import torch
from torch import Tensor

from fc7.engine.errors import OptionError

Colour = tuple[float, float, float]
"""Red, green and blue in [0, 1]."""

GREY: Colour = (0.5, 0.5, 0.5)


def check_colour(colour: Colour) -> None:
    """Raise OptionError unless a colour is three numbers in [0, 1]."""
    if len(colour) != 3 or not all(0 <= value <= 1 for value in colour):
        raise OptionError(f"the colour is {colour}; three numbers of 0 to 1 will do")


def check_at_least(what: str, value: float, least: float) -> None:
    """Raise OptionError unless a number is finite and not below the least."""
    if not (math.isfinite(value) and value >= least):
        raise OptionError(f"{what} is {value}; it must be a number of at least {least:g}")


def plane(colour: Colour, like: Tensor) -> Tensor:
    """Return a colour as (1, 3, 1, 1), of a tensor's dtype and device."""
    return torch.tensor(colour, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)


def from_centre(length: int) -> Tensor:
    """Return how far each of `length` pixels lies from the middle, (length,) float64.

    In half sides: the outer edges are at -1 and 1, and of a single pixel the middle at 0.
    """
    return (2 * torch.arange(length, dtype=torch.float64) + 1 - length) / length
