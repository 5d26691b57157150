"""How the Gram matrix's products are cut up among a GPU's programs.

A pure function of shapes, so that a test can ask what a GPU that is not there would be given.
"""

from typing import NamedTuple

from torch import Tensor

BYTES_PER_STEP = 128  # of each channel: a line of the cache


class Plan(NamedTuple):
    """How a product is cut up.

    Attributes:
        tile: channels of a tile's side.
        step: pixels that a program multiplies at a time.
        splits: programs that share the pixels of a pair of tiles.
        pixels_per_split: what each of them takes, a multiple of `step`.
        warps: of a program.
        stages: steps in flight.
    """

    tile: int
    step: int
    splits: int
    pixels_per_split: int
    warps: int
    stages: int


def plan(
    images: int, channels: int, pixels: int, itemsize: int, aligned: bool, multiprocessors: int
) -> Plan:
    """Choose the tiles for features of `itemsize` bytes each.

    Chosen by counting bytes, registers and blocks; untuned on a GPU. One tile reads the features
    once, so up to 128 channels memory is the limit. Beyond, tiles of 128 read them half as often as
    tiles of 64; their 128 x 128 sums take 64 registers of each of 256 threads. What cannot be read
    and written 128 bits at a time (`aligned` false) needs a register pair for every address, and
    gets smaller tiles.
    """
    tile, warps = (128, 8) if channels > 64 and aligned else (64, 4)
    step = BYTES_PER_STEP // itemsize if aligned else 32
    steps = -(-pixels // step)
    blocks = max(1, images * pairs_of_tiles(channels, tile))
    # Two blocks a multiprocessor, but four steps a block: a share is written and read once more.
    splits = max(1, min(2 * multiprocessors // blocks, steps // 4))
    steps_per_split = -(-steps // splits)
    splits = -(-steps // steps_per_split)  # so that no split is left without pixels
    return Plan(tile, step, splits, steps_per_split * step, warps, stages=3)


def pairs_of_tiles(channels: int, tile: int) -> int:
    """Return how many tiles lie on the diagonal and below it."""
    tiles = -(-channels // tile)
    return tiles * (tiles + 1) // 2


def is_collapsed(features: Tensor) -> bool:
    """Say whether pixel p of a map lies at p * stride(3)."""
    _, _, h, w = features.shape
    return h == 1 or features.stride(2) == w * features.stride(3)


def is_aligned(features: Tensor) -> bool:
    """Say whether Triton will know that 128 bits can be moved at a time, features and G alike."""
    stride_n, stride_c, _, stride_w = features.stride()
    nchw = stride_w == 1 and stride_c % 16 == 0
    channels_last = stride_c == 1 and stride_w % 16 == 0
    whole = stride_n % 16 == 0 and features.shape[1] % 16 == 0
    return is_collapsed(features) and whole and (nchw or channels_last)
