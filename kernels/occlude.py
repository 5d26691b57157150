"""Images with one box covered each: what occlusion sensitivity feeds a network.

    out[b, p, c, y, x] = fill[b, c, y, x]    where box p covers (y, x),
                         images[b, c, y, x]  elsewhere

Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2:
slide a grey square over the image and watch the class score fall.

Writing the result is all the work, so it is written once, in the dtype and layout that the network
reads. On a GPU a program holds one tile of the image, and of the fill, in registers and writes it
to position after position, 16 bytes a thread. Most boxes miss most tiles, and a tile that is
missed is stored as it is.

On a CPU the copy of an image is covered while it is in the cache. A result beyond 32 MiB is fresh
memory in every call, and most of the time goes into page faults: ask for smaller ranges.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.backend import tl, triton

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # of a result
BOX_DTYPES = (torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)
LARGEST_IMAGE = 2**30  # elements: offsets inside one covered image are 32 bits wide
BYTES_PER_THREAD = 4 * 2**20  # worth starting another thread for, on a CPU


def occlude(
    images: Tensor,
    boxes: Tensor,
    fill: float | Tensor = 0.0,
    *,
    start: int = 0,
    stop: int | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Return every image once for every box, with that box covered.

    Values are cast, never scaled. There is no gradient: a backward pass through the result raises
    NotImplementedError.

    Args:
        images: (B, C, H, W), float16, bfloat16, float32, float64 or uint8, any strides.
        boxes: (P, 4) integers, (top, left, bottom, right) in pixels, on the CPU or beside the
            images. Half open, so that bottom - top is the height. What lies outside the image is
            cut off; where bottom <= top or right <= left the box is empty and covers nothing.
        fill: what covers: a number, or a tensor beside the images: a number (), a colour (C,), an
            image (C, H, W), or one for each image (B, C, H, W), such as blurred copies.
        start: the first box to use.
        stop: the box before which to end; None is P. So P may be larger than memory allows.
        dtype: of the result, one of the floating ones; None is that of the images.
        memory_format: `torch.channels_last` lays each image out as (H, W, C), so that
            `out.flatten(0, 1)` is a channels_last batch without a copy.

    Returns:
        (B, stop - start, C, H, W).

    Raises:
        ValueError: a shape, dtype, device, range or memory format is not as said above.
    """
    dtype = dtype or images.dtype
    if images.ndim != 4 or math.prod(images.shape[1:]) > LARGEST_IMAGE:
        raise ValueError(
            f"expected images (B, C, H, W) with C * H * W <= 2^30, got {tuple(images.shape)}"
        )
    if images.dtype not in (*DTYPES, torch.uint8) or dtype not in DTYPES:
        raise ValueError(
            f"expected images of uint8 or one of {DTYPES}, and a dtype of the latter, "
            f"got {images.dtype} and {dtype}"
        )
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype not in BOX_DTYPES:
        raise ValueError(
            f"expected boxes (P, 4) of {BOX_DTYPES}, got {tuple(boxes.shape)} of {boxes.dtype}"
        )
    stop = len(boxes) if stop is None else stop
    if not 0 <= start <= stop <= len(boxes):
        raise ValueError(f"expected 0 <= start <= stop <= {len(boxes)}, got {start} and {stop}")
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        raise ValueError(f"expected contiguous_format or channels_last, got {memory_format}")
    number, cover = 0.0, None
    if isinstance(fill, Tensor):
        cover = _as_images(fill, images).to(dtype).expand(images.shape)
    else:
        number = float(fill)
    channels_last = memory_format is torch.channels_last
    covered: Tensor = _occlude(images, boxes[start:stop], cover, number, dtype, channels_last)
    return covered


def grid_boxes(height: int, width: int, window: int, stride: int) -> Tensor:
    """Return the boxes of a square window slid over an image, row by row: (P, 4) int32.

    Each axis has ceil((size - window) / stride) + 1 positions, as in Captum; the last window is
    cut off at the border. A window of 16 and a stride of 8 make 27 * 27 = 729 at 224 pixels.

    Raises:
        ValueError: the stride is less than 1, or the window less than 1 or larger than the image.
    """
    if not 1 <= window <= min(height, width) or stride < 1:
        raise ValueError(
            f"expected a window of 1 to {min(height, width)} pixels and a stride of 1 at least, "
            f"got {window} and {stride}"
        )
    tops, lefts = (
        torch.arange(-((window - size) // stride) + 1, dtype=torch.int32) * stride
        for size in (height, width)
    )
    top, left = torch.meshgrid(tops, lefts, indexing="ij")
    bottom, right = (top + window).clamp_max(height), (left + window).clamp_max(width)
    return torch.stack([top, left, bottom, right], dim=-1).reshape(-1, 4)


def _as_images(fill: Tensor, images: Tensor) -> Tensor:
    """Check a fill, and shape it to expand to the images: of a colour, strides stay zero."""
    _, c, h, w = images.shape
    if tuple(fill.shape) not in ((), (c,), (c, h, w), tuple(images.shape)):
        raise ValueError(
            f"expected a fill of shape (), {(c,)}, {(c, h, w)} or {tuple(images.shape)}, "
            f"got {tuple(fill.shape)}"
        )
    if fill.device != images.device or fill.dtype not in (*DTYPES, torch.uint8):
        raise ValueError(
            f"expected a fill on {images.device} of uint8 or one of {DTYPES}, "
            f"got {fill.dtype} on {fill.device}"
        )
    return fill[:, None, None] if fill.ndim == 1 else fill


@torch.library.custom_op("fc7::occlude", mutates_args=())
def _occlude(
    images: Tensor,
    boxes: Tensor,
    fill: Tensor | None,
    number: float,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    out: Tensor = _empty(images, boxes, fill, number, dtype, channels_last)
    if backend.uses_triton(images):
        path = _occlude_triton
    else:
        path = _occlude_cpu if images.device.type == "cpu" else _occlude_torch
    if out.numel() > 0:
        # Cast once: from here on values are only copied.
        images = images.detach().to(dtype)
        rounded = torch.tensor(number, dtype=dtype).item()
        path(images, boxes, rounded if fill is None else fill.detach(), out, channels_last)
    return out


@_occlude.register_fake
def _empty(
    images: Tensor,
    boxes: Tensor,
    fill: Tensor | None,
    number: float,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    b, c, h, w = images.shape
    if channels_last:
        shape = (b, boxes.shape[0], h, w, c)
        return torch.empty(shape, dtype=dtype, device=images.device).permute(0, 1, 4, 2, 3)
    return torch.empty((b, boxes.shape[0], c, h, w), dtype=dtype, device=images.device)


def _refuse_gradient(context: Any, gradient: Tensor) -> None:
    raise NotImplementedError("occlude has no gradient: detach its result or its images")


_occlude.register_autograd(_refuse_gradient)


def _occlude_cpu(
    images: Tensor, boxes: Tensor, fill: float | Tensor, out: Tensor, channels_last: bool
) -> None:
    # numpy copies on one core, so positions are shared out among threads. Torch would share out
    # every single copy, and waiting for each other would cost as much as the copy.
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    cover = torch.as_tensor(fill, dtype=out.dtype).expand(images.shape)
    source = _bits(images.permute(order).contiguous())
    covers = _bits(cover.permute(order))
    target = _bits(out.permute(0, *(1 + axis for axis in order)))
    places = [
        (*(() if channels_last else (...,)), slice(top, bottom), slice(left, right))
        for top, left, bottom, right in boxes.to(torch.int64).clamp_min(0).tolist()
    ]

    def write(first: int, last: int) -> None:
        for at in range(first, last):
            image, position = divmod(at, len(places))
            copy, place = target[image, position], places[position]
            # `copy[...] = ` is memcpy, a tenth slower than this where memory is fresh, as measured.
            np.bitwise_or(source[image], 0, out=copy)
            copy[place] = covers[image][place]

    threads = min(torch.get_num_threads(), 1 + out.nbytes // BYTES_PER_THREAD)
    cuts = [len(source) * len(places) * thread // threads for thread in range(threads + 1)]
    if threads == 1:
        write(*cuts)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, cuts[:-1], cuts[1:]))


def _bits(tensor: Tensor) -> NDArray[Any]:
    """View a CPU tensor's values as integers: numpy has no bfloat16."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize]
    return tensor.view(integers).numpy()


def _occlude_torch(
    images: Tensor, boxes: Tensor, fill: float | Tensor, out: Tensor, channels_last: bool
) -> None:
    # For a device that is neither a CPU nor one of Triton's.
    y = torch.arange(images.shape[2], device=images.device)[:, None]
    x = torch.arange(images.shape[3], device=images.device)
    top, left, bottom, right = boxes.to(images.device)[:, :, None, None].unbind(1)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    out.copy_(images[:, None])
    cover = torch.as_tensor(fill, dtype=out.dtype, device=out.device).expand(images.shape)
    torch.where(inside[None, :, None], cover[:, None], out, out=out)


def _occlude_triton(
    images: Tensor, boxes: Tensor, fill: float | Tensor, out: Tensor, channels_last: bool
) -> None:
    b, positions, c, h, w = out.shape
    boxes = boxes.to(images.device)
    if boxes.dtype != torch.int32:
        boxes = boxes.to(torch.int64).clamp(0, max(h, w)).to(torch.int32)
    if out.dtype == torch.float64:  # Triton takes a number as float32
        fill = torch.as_tensor(fill, dtype=out.dtype, device=out.device).expand(images.shape)
    block = 4096 // out.itemsize  # two stores of 16 bytes a thread
    tiles = triton.cdiv(c * h * w, block)
    chunk = _positions_per_program(
        positions, b * tiles, programs=32 * backend.multiprocessors(images.device)
    )
    # Triton launches on the current device.
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _occlude_kernel[(b * triton.cdiv(positions, chunk) * tiles,)](
            images,
            boxes.contiguous(),
            fill,
            out,
            positions,
            chunk,
            *images.stride(),
            *(fill.stride() if isinstance(fill, Tensor) else (0, 0, 0, 0)),
            FILL_IS_NUMBER=not isinstance(fill, Tensor),
            CHANNELS_LAST=channels_last,
            C=c,
            H=h,
            W=w,
            BLOCK=block,
            num_warps=4,
            maxnreg=backend.ALL_REGISTERS,
        )


def _positions_per_program(positions: int, tiles: int, programs: int) -> int:
    """Choose how many positions a tile is streamed to; untuned, for no GPU was at hand.

    Fewer make more programs, which fill the GPU; more spread the cost of reading the tile and of
    finding its coordinates.
    """
    return max(1, min(64, positions, positions * tiles // programs))


# The size is compiled in, for an experiment has one: divisions by it become multiplications, and
# the compiler sees that neighbours in memory lie in one row, so that it loads 16 bytes as well.
@triton.jit
def _occlude_kernel(
    images,
    boxes,
    fill,  # a pointer, or a number
    out,
    positions,
    chunk,  # how many of them a program writes
    image_stride_b,
    image_stride_c,
    image_stride_y,
    image_stride_x,
    fill_stride_b,
    fill_stride_c,
    fill_stride_y,
    fill_stride_x,
    FILL_IS_NUMBER: tl.constexpr,  # noqa: N803
    CHANNELS_LAST: tl.constexpr,  # noqa: N803
    C: tl.constexpr,  # noqa: N803
    H: tl.constexpr,  # noqa: N803
    W: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    SIZE: tl.constexpr = C * H * W  # noqa: N806
    TILES: tl.constexpr = (SIZE + BLOCK - 1) // BLOCK  # noqa: N806
    chunks = tl.cdiv(positions, chunk)
    tile = tl.program_id(0) % TILES
    first = tl.program_id(0) // TILES % chunks * chunk
    image = (tl.program_id(0) // TILES // chunks).to(tl.int64)

    at = tile * BLOCK + tl.arange(0, BLOCK)  # where in one covered image, as it lies in memory
    valid = at < SIZE
    if CHANNELS_LAST:
        y, x, c = at // (W * C), at // C % W, at % C
    else:
        c, y, x = at // (H * W), at // W % H, at % W
    top_row, bottom_row = tl.min(y, 0), tl.max(y, 0)

    # The strides are anybody's: a view's last element may lie beyond 2^31.
    y64, x64, c64 = y.to(tl.int64), x.to(tl.int64), c.to(tl.int64)
    pixels = images + image * image_stride_b
    pixels += c64 * image_stride_c + y64 * image_stride_y + x64 * image_stride_x
    shown = tl.load(pixels, mask=valid, other=0)
    if FILL_IS_NUMBER:
        hidden = tl.full([BLOCK], fill, tl.float32).to(out.dtype.element_ty)
    else:
        covers = fill + image * fill_stride_b
        covers += c64 * fill_stride_c + y64 * fill_stride_y + x64 * fill_stride_x
        hidden = tl.load(covers, mask=valid, other=0)

    boxes += first.to(tl.int64) * 4
    out += (image * positions + first) * SIZE
    for _ in range(first, tl.minimum(first + chunk, positions)):
        top, left = tl.load(boxes), tl.load(boxes + 1)
        bottom, right = tl.load(boxes + 2), tl.load(boxes + 3)
        value = shown
        if (top <= bottom_row) & (bottom > top_row):
            inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
            value = tl.where(inside, hidden, shown)
        tl.store(out + at, value, mask=valid)
        boxes += 4
        out += SIZE


def occlude_reference(
    images: NDArray[np.float64], boxes: NDArray[np.int64], fill: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The definition, pixel by pixel: (B, C, H, W), (P, 4) and (B, C, H, W) to (B, P, C, H, W)."""
    b, c, h, w = images.shape
    out = np.empty((b, len(boxes), c, h, w))
    for image in range(b):
        for position, (top, left, bottom, right) in enumerate(boxes):
            for y in range(h):
                for x in range(w):
                    covered = top <= y < bottom and left <= x < right
                    out[image, position, :, y, x] = (fill if covered else images)[image, :, y, x]
    return out
