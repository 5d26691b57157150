"""Images at other sizes: octaves, smaller and smaller, and a step closer.

Linear interpolation between pixels, the outermost of which stay where they are, as
`scipy.ndimage.zoom(order=1)` has it, which DeepDream was made with. A row's pixels do not depend
on other rows.
"""

from functools import partial

import torch
from torch import Tensor

from fc7.engine.synthesis.rows import each_row


def octave_sizes(size: tuple[int, int], count: int, ratio: float) -> list[tuple[int, int]]:
    """Return heights and widths in pixels, from `size` down, each the last one's by the ratio."""
    sizes = [size]
    for _ in range(count - 1):
        height, width = sizes[-1]
        sizes.append((max(1, round(height * (1 / ratio))), max(1, round(width * (1 / ratio)))))
    return sizes


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images: (N, C, H, W) -> (N, C, *size)."""
    height, width = images.shape[2:]
    if (height, width) == size:
        return images
    rows = torch.linspace(0, height - 1, size[0], dtype=torch.float64)
    columns = torch.linspace(0, width - 1, size[1], dtype=torch.float64)
    return each_row(lambda part: _sampled(_sampled(part, rows, 2), columns, 3), images)


def closer(images: Tensor, factor: float) -> Tensor:
    """Enlarge images about their middle, and cut off what is outside: (N, C, H, W), the same."""
    for axis in (2, 3):
        middle = (images.shape[axis] - 1) / 2
        places = torch.arange(images.shape[axis], dtype=torch.float64)
        places = middle + (places - middle) / factor
        images = each_row(partial(_sampled, places=places, axis=axis), images)
    return images


def _sampled(images: Tensor, places: Tensor, axis: int) -> Tensor:
    """Return images at places along an axis, float64 (K,) between 0 and its length less one."""
    last = images.shape[axis] - 1
    before = places.floor().clamp(0, last)
    shape = [-1 if number == axis else 1 for number in range(images.ndim)]
    weights = (places - before).to(images.device, images.dtype).reshape(shape)
    index = before.long().to(images.device)
    low = images.index_select(axis, index)
    return low.lerp_(images.index_select(axis, (index + 1).clamp_(max=last)), weights)
