"""The strongest position of every channel, and its value.

    values[n, c] = max over p of activations[n, c, p],  positions[n, c] = the first such p

with p = y * W + x. This is what a maximal patch is made of: one value and one place for each image
and channel, instead of the whole map.

On a CPU torch's `max` with positions is not vectorised, but `amax` and numpy's `argmax` of
neighbours in memory are.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.spatial_max_triton import LARGEST, spatial_max_triton

_NARROW = (torch.float16, torch.bfloat16)
_DTYPES = (*_NARROW, torch.float32, torch.float64)
_CACHED = 1 << 17  # elements that are widened at once on a CPU: 512 KB


def spatial_max(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum of each map and its flat position.

    Values are differentiable, as `torch.max`'s are: the gradient goes to the position.

    Args:
        activations: (N, C, H, W), float16, bfloat16, float32 or float64, any strides, H * W of 1 to
            2^31 - 2^12.

    Returns:
        values (N, C) in the dtype of `activations`, and positions (N, C) int32. The first position
        wins ties, and -0.0 equals 0.0; a NaN wins over every number, the first of them.

    Raises:
        ValueError: the shape is not (N, C, H, W), or a map is empty or too large.
        TypeError: the dtype is another.
    """
    if activations.ndim != 4 or activations.shape[2] * activations.shape[3] == 0:
        raise ValueError(f"expected (N, C, H, W) with H, W >= 1, got {tuple(activations.shape)}")
    if activations.shape[2] * activations.shape[3] > LARGEST:
        raise ValueError(f"expected H * W <= {LARGEST}, got {tuple(activations.shape)}")
    if activations.dtype not in _DTYPES:
        raise TypeError(f"expected {', '.join(map(str, _DTYPES))}, got {activations.dtype}")
    result: tuple[Tensor, Tensor] = _spatial_max(activations)
    return result


@torch.library.custom_op("fc7::spatial_max", mutates_args=())
def _spatial_max(activations: Tensor) -> tuple[Tensor, Tensor]:
    activations = activations.detach()
    if activations.shape[0] * activations.shape[1] == 0:
        return _outputs(activations)
    # A float64's order does not fit a 64-bit key together with a position.
    if backend.uses_triton(activations) and activations.dtype != torch.float64:
        return spatial_max_triton(activations)
    return _spatial_max_torch(activations)


@_spatial_max.register_fake
def _(activations: Tensor) -> tuple[Tensor, Tensor]:
    return _outputs(activations)


def _outputs(activations: Tensor) -> tuple[Tensor, Tensor]:
    shape = activations.shape[:2]
    return activations.new_empty(shape), activations.new_empty(shape, dtype=torch.int32)


def _remember(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.shape = inputs[0].shape
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> Tensor:
    (positions,) = ctx.saved_tensors
    n, c, h, w = ctx.shape
    places = positions.long()[:, :, None]
    return gradient.new_zeros(n, c, h * w).scatter(2, places, gradient[:, :, None]).view(n, c, h, w)


_spatial_max.register_autograd(_backward, setup_context=_remember)


def _spatial_max_torch(activations: Tensor) -> tuple[Tensor, Tensor]:
    if activations.device.type != "cpu":
        values, positions = activations.flatten(2).max(2)
    elif activations.shape[1] > 1 and activations.stride(1) < activations.stride(3):
        values, positions = _of_columns(activations)
    else:
        values, positions = _of_rows(activations)
    return values, positions.to(torch.int32)


def _of_columns(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Where channels are neighbours: the best line of the map, then the best place in that line.

    `amax` over the lines reads the map at the memory's speed; `max` with its slow positions sees
    one element a line, and then one line.
    """
    n, c, _, w = activations.shape
    maps = activations.permute(0, 2, 3, 1)
    # The first line that has the maximum, or the first that has a NaN: (N, 1, 1, C).
    line = maps.amax(2, keepdim=True).max(1, keepdim=True).indices
    values, column = maps.gather(1, line.expand(n, 1, w, c)).max(2)
    return values.view(n, c), torch.add(column, line[:, 0], alpha=w).view(n, c)


def _of_rows(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Where positions are neighbours: numpy's argmax, on float32 and float64.

    numpy has no bfloat16 and a slow float16: they are widened, by parts that stay in the cache.
    """
    n, c, h, w = activations.shape
    rows = activations.reshape(n * c, h * w)
    positions = torch.empty(n * c, dtype=torch.int64)
    found = positions.numpy()
    if rows.dtype in _NARROW:
        at_once = min(n * c, max(1, _CACHED // (h * w)))
        wide = torch.empty(at_once, h * w)
        for start in range(0, n * c, at_once):
            part = rows[start : start + at_once]
            widened = wide[: len(part)].copy_(part).numpy()
            widened.argmax(1, out=found[start : start + at_once])
    else:
        rows.numpy().argmax(1, out=found)
    return rows.gather(1, positions[:, None]).view(n, c), positions.view(n, c)


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
