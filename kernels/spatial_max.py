"""The strongest position of every channel, and its value.

    values[n, c] = max over p of activations[n, c, p],  positions[n, c] = the first such p

with p = y * W + x. This is what a maximal patch is made of: one value and one place for each image
and channel, instead of the whole map.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def spatial_max(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum of each map and its flat position.

    Args:
        activations: (N, C, H, W), any floating dtype and strides, H * W of 1 at least.

    Returns:
        values (N, C) in the dtype of `activations`, and positions (N, C) int32. The first position
        wins ties; a NaN wins over every number.

    Raises:
        ValueError: the shape is not (N, C, H, W), or a map is empty.
    """
    if activations.ndim != 4 or activations.shape[2] * activations.shape[3] == 0:
        raise ValueError(f"expected (N, C, H, W) with H, W >= 1, got {tuple(activations.shape)}")
    n, c, h, w = activations.shape
    if activations.is_contiguous(memory_format=torch.channels_last) and c > 1:
        # In memory the channels lie side by side: reduce over rows of C.
        values, positions = activations.permute(0, 2, 3, 1).reshape(n, h * w, c).max(1)
    else:
        values, positions = activations.reshape(n, c, h * w).max(2)
    return values, positions.to(torch.int32)


def spatial_max_reference(
    activations: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """The definition, a loop over images and channels."""
    n, c, h, w = activations.shape
    values = np.empty((n, c))
    positions = np.empty((n, c), dtype=np.int32)
    for image in range(n):
        for channel in range(c):
            best, best_at = activations[image, channel, 0, 0], 0
            for at in range(1, h * w):
                value = activations[image, channel, at // w, at % w]
                if value > best or (np.isnan(value) and not np.isnan(best)):
                    best, best_at = value, at
            values[image, channel], positions[image, channel] = best, best_at
    return values, positions
