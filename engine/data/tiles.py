"""Pictures for people: square tiles of those that are not, and differences large enough to see."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BLANK = 128
"""The grey of what lies beside a picture that is not square, and of a picture that is missing."""
# From here on the reader should see pixels rather than a blur made of them.
_CRISP_ENLARGEMENT = 4


def fit_tile(picture: Tensor, tile: int) -> NDArray[np.uint8]:
    """Scale uint8 (3, H, W) to fit a grey square: uint8 (tile, tile, 3)."""
    from PIL import Image

    height, width = picture.shape[-2:]
    scale = tile / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    crisp = scale >= _CRISP_ENLARGEMENT
    # PIL rather than torch: on pictures this small, waking torch's threads is the whole cost.
    scaled = Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy())).resize(
        (new_width, new_height), Image.Resampling.NEAREST if crisp else Image.Resampling.BICUBIC
    )
    out = np.full((tile, tile, 3), BLANK, dtype=np.uint8)
    top, left = (tile - new_height) // 2, (tile - new_width) // 2
    out[top : top + new_height, left : left + new_width] = np.asarray(scaled)
    return out


def magnified(difference: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint8], float]:
    """Draw a difference of two images so that it can be seen: grey where there is none.

    Args:
        difference: (3, H, W), of pixels in [0, 1].

    Returns:
        uint8 (H, W, 3), and the factor by which differences are larger in it: a power of two, the
        largest by which none leaves the range; 1 where there is no difference.
    """
    most = float(np.abs(difference).max(initial=0.0))
    factor = 2.0 ** math.floor(math.log2((255 - BLANK) / 255 / most)) if most > 0 else 1.0
    grey = np.round(BLANK + 255 * factor * difference.transpose(1, 2, 0))
    return np.ascontiguousarray(np.clip(grey, 0, 255).astype(np.uint8)), factor
