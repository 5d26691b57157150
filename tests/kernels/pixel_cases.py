"""Windows of random positions, for the kernels that read and write lists of pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fc7.kernels import Bounds, PixelList, Residual, Slides, pixel_list


def slides(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Slides:
    """The same down and across."""
    return Slides(*((side, side) for side in (kernel, stride, padding, dilation)))


def output_size(size: tuple[int, int], slides: Slides) -> tuple[int, int]:
    """Return height and width of the map that a kernel makes of another."""
    down, across = (
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, kernel, stride, padding, dilation in zip(
            size, slides.kernel, slides.stride, slides.padding, slides.dilation, strict=True
        )
    )
    return down, across


def draw(shape: Sequence[int], dtype: torch.dtype, device: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator).to(device, dtype)


def windows(size: tuple[int, int], device: str, seed: int, positions: int = 2) -> PixelList:
    """Return a window in each of two corners, an empty one, a single pixel, and some anywhere."""
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    boxes = [
        (0, 0, min(3, height), min(2, width)),
        (height - min(2, height), width - min(4, width), height, width),
        (height // 2, width // 2, height // 2, width // 2 + 1),
        (height // 2, width // 2, height // 2 + 1, width // 2 + 1),
    ]
    for _ in range(positions):
        top, left, down, across = torch.rand(4, generator=generator).tolist()
        top, left = int(top * height), int(left * width)
        bottom = top + 1 + int(down * min(5, height - top))
        right = left + 1 + int(across * min(5, width - left))
        boxes.append((top, left, min(bottom, height), min(right, width)))
    return pixel_list(torch.tensor(boxes, device=device), size)


def residual(
    images: int, channels: int, target: PixelList, dtype: torch.dtype, seed: int
) -> Residual:
    """Return differences on the target's map, in windows of their own."""
    device = str(target.boxes.device)
    pixels = windows(target.size, device, seed)
    return Residual(draw((images, len(pixels), channels), dtype, device, seed + 1), pixels)


def bounds(images: int, channels: int, target: PixelList, dtype: torch.dtype, seed: int) -> Bounds:
    """Return those of a map that is active in half of its places."""
    device = str(target.boxes.device)
    before = draw((images, *target.size, channels), dtype, device, seed)
    return Bounds(before.clamp_max(0), before.clamp_min(0).neg())


def absent_list(pixels: int, size: tuple[int, int], positions: int = 729) -> PixelList:
    """Return a list without memory, for kernels that are compiled and do not run."""

    def absent(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    starts = absent(positions, dtype=torch.int64)
    return PixelList(size, absent(positions, 4), starts, absent(pixels), absent(pixels))
