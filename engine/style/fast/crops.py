"""Squares cut out of images for training, each by a key alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fc7.engine.data.transform import Transform

_MARGIN = 8


def shrunk(image: Tensor, crop: int) -> Tensor:
    """Return uint8 (3, H, W) whose shorter side is at least `crop` and at most 9/8 of it.

    Raises:
        BadImage: the longer side would be so long that nobody can hold it.
    """
    short = min(image.shape[-2:])
    wanted = min(max(short, crop), crop + crop // _MARGIN)
    return image if wanted == short else Transform(wanted, None)(image)


def random_crop(image: Tensor, crop: int, key: Sequence[int]) -> Tensor:
    """Cut a square out of an image: uint8 (3, H, W) to uint8 (3, crop, crop).

    Args:
        image: no side is below `crop`.
        crop: the square's side in pixels.
        key: of where it is.
    """
    drawn = np.random.default_rng(list(key))
    height, width = image.shape[-2:]
    top, left = drawn.integers(0, height - crop + 1), drawn.integers(0, width - crop + 1)
    cut: Tensor = image[:, top : top + crop, left : left + crop]
    return cut


def shares_of_places(places: Sequence[int], styles: int) -> Tensor:
    """Return (N, S) float32: at each place of the order of training, the style whose turn it is."""
    turns = torch.tensor(places, dtype=torch.int64) % styles
    return torch.nn.functional.one_hot(turns, styles).float()
