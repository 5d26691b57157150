"""Photographs that nobody took: JPEGs of a photograph's size, spectrum and weight.

White noise would be ten times as heavy as a photograph and flat colour a tenth, and the time to
decode a JPEG goes with its bytes. The amplitudes of natural images fall as 1/f (Field, 1987),
which gives every octave of two-dimensional frequencies the same energy. So each picture is a sum
of octaves of smooth noise, shared in part by the three colours; a few discs put in edges.
500 x 375 pixels come to about 100 KB, as ImageNet's do.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 500, 375
QUALITY = 92
_OCTAVES = 7
_OCTAVE, _FINEST = 20.0, 5.0  # grey levels of each octave; a lens blurs the finest
_DISCS = 5


def photograph(
    seed: int, number: int, width: int = WIDTH, height: int = HEIGHT
) -> NDArray[np.uint8]:
    """Return one picture, uint8 (height, width, 3); the same for the same seed and number."""
    rng = np.random.default_rng([seed, number])
    contrast = rng.uniform(0.6, 1.4)
    picture = 118 + rng.normal(0, 25, (2, 2, 3)).astype(np.float32)
    for halvings in reversed(range(_OCTAVES)):
        shape = (-(-height // 2**halvings), -(-width // 2**halvings))
        picture = _stretched(picture, shape)
        grey = rng.standard_normal((*shape, 1), np.float32)
        colour = rng.standard_normal((*shape, 3), np.float32) if halvings else 0
        picture += contrast * (_OCTAVE if halvings else _FINEST) * (grey + 0.5 * colour)
    rows, columns = np.ogrid[:height, :width]
    for _ in range(_DISCS):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(10, 90)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        picture[inside] += rng.normal(0, 35, 3).astype(np.float32)
    return picture.clip(0, 255).astype(np.uint8)


def _stretched(picture: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize float32 (H, W, 3) smoothly to (*shape, 3)."""
    bands = [
        np.asarray(Image.fromarray(band).resize(shape[::-1], Image.Resampling.BILINEAR))
        for band in np.ascontiguousarray(picture.transpose(2, 0, 1))
    ]
    return np.stack(bands, axis=2)


def make_photographs(
    folder: Path, count: int, seed: int = 0, workers: int | None = None
) -> list[Path]:
    """Write `count` JPEGs into a new folder, on all cores, and return their paths.

    Args:
        folder: does not exist yet.
        count: how many; names are numbers, so that the order of names is that of numbers.
        seed: of all of them.
        workers: threads; PIL and numpy let go of Python's lock. None for one a core.
    """
    folder.mkdir(parents=True)

    def write(number: int) -> Path:
        path = folder / f"{number:06d}.jpg"
        Image.fromarray(photograph(seed, number)).save(path, quality=QUALITY)
        return path

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(write, range(count)))
