"""The strongest position of every channel, and its value.

    values[n, c] = max over p of activations[n, c, p],  positions[n, c] = the first such p

with p = y * W + x. This is what a maximal patch is made of: one value and one place for each image
and channel, instead of the whole map.

On a CPU torch's `max` with positions is not vectorised, but numpy's `max`, and its `argmax` of
neighbours in memory, are.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.spatial_max_triton import LARGEST, spatial_max_triton

_NARROW = (torch.float16, torch.bfloat16)
_DTYPES = (*_NARROW, torch.float32, torch.float64)

# On a CPU. Torch shares out among its threads what has more elements than this, and its `max` with
# positions whatever it has; the threads then wait for each other, busily, after every pass. So maps
# are cut into smaller parts, and where there are many, threads of our own take whole images.
_SHARED = 1 << 15
_ELEMENTS_A_THREAD = 1 << 22  # worth starting another thread for


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


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> Tensor:
    (positions,) = ctx.saved_tensors
    n, c, h, w = ctx.shape
    places = positions.long()[:, :, None]
    return gradient.new_zeros(n, c, h * w).scatter(2, places, gradient[:, :, None]).view(n, c, h, w)


_spatial_max.register_autograd(_backward, setup_context=_remember)


def _spatial_max_torch(activations: Tensor) -> tuple[Tensor, Tensor]:
    if activations.device.type != "cpu":
        values, positions = activations.flatten(2).max(2)
        return values, positions.to(torch.int32)
    columns = activations.shape[1] > 1 and activations.stride(1) < activations.stride(3)
    work = _of_columns if columns else _of_rows
    threads = 1 + activations.numel() // _ELEMENTS_A_THREAD
    threads = min(threads, torch.get_num_threads(), len(activations))
    if threads == 1:
        return work(activations)
    with ThreadPoolExecutor(threads) as pool:
        return _joined(list(pool.map(work, torch.tensor_split(activations, threads))))


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(parts) == 1:
        return parts[0]
    return torch.cat([values for values, _ in parts]), torch.cat([places for _, places in parts])


def _of_columns(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Where channels are neighbours: the best line of each map, then the best place in that line.

    The maximum over each line reads an image at the memory's speed. What is left for `argmax` is
    one element a line, and then one line, fetched while the image is still in the cache.
    """
    n, c, h, w = activations.shape
    maps = activations.permute(0, 2, 3, 1)
    as_is = maps.is_contiguous() and maps.dtype not in _NARROW
    wide = None if as_is else torch.empty((h * w, c), dtype=_widened(maps.dtype))
    images = (
        maps.numpy()
        if wide is None
        else (_copied(image.flatten(0, 1), wide).numpy() for image in maps)
    )
    values = torch.empty((n, c), dtype=_widened(maps.dtype))
    positions = torch.empty((n, c), dtype=torch.int32)
    value, position, channel = values.numpy(), positions.numpy(), np.arange(c)
    first = np.arange(w * c).reshape(w, c)  # where each element of the first line is
    places, best = np.empty_like(first), np.empty((w, c), dtype=value.dtype)
    for number, image in enumerate(images):
        lines = image.reshape(h, w, c)
        line = lines.max(1).argmax(0)
        np.add(first, line * (w * c), out=places)
        # Clipped, numpy need not ask of every place whether it exists.
        lines.reshape(-1).take(places, out=best, mode="clip")
        column = best.argmax(0)
        value[number] = best[column, channel]
        position[number] = line * w + column
    return values.to(activations.dtype), positions


def _of_rows(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Where positions are neighbours: numpy's argmax, on a few rows at once if they are widened."""
    n, c, h, w = activations.shape
    rows = activations.reshape(n * c, h * w)
    if rows.dtype in _NARROW:
        few = max(1, _SHARED // (h * w))
        wide = torch.empty(min(few, n * c), h * w)  # once: fresh memory would cost as much again
        positions = torch.cat([_first(_copied(part, wide)) for part in torch.split(rows, few)])
    else:
        positions = _first(rows)
    values = rows.gather(1, positions[:, None])
    return values.view(n, c), positions.view(n, c).to(torch.int32)


def _widened(dtype: torch.dtype) -> torch.dtype:
    """Return what numpy compares fast: it knows no bfloat16, and its float16 is slow."""
    return torch.float32 if dtype in _NARROW else dtype


def _copied(rows: Tensor, wide: Tensor) -> Tensor:
    """Copy rows into the first of the wide ones, a few at a time, and return those."""
    wide = wide[: len(rows)]
    few = max(1, _SHARED // max(1, rows.shape[1]))
    for to, part in zip(torch.split(wide, few), torch.split(rows, few), strict=True):
        for piece, source in zip(
            torch.split(to, _SHARED, 1), torch.split(part, _SHARED, 1), strict=True
        ):
            piece.copy_(source)
    return wide


def _first(values: Tensor) -> Tensor:
    """Return where along axis 1 the maximum or a NaN is first."""
    return torch.from_numpy(values.numpy().argmax(1))


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
