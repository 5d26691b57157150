"""From a gradient by a pixel's three colours to one number that says how important the pixel is.

    largest    max over colours |g|           Simonyan, Vedaldi and Zisserman, 2014, section 3.1
    sum        sum over colours |g|           Smilkov et al., 2017, call it the absolute value
    positive   sum over colours max(g, 0)     what speaks for the class

A single pixel's gradient is noisy, and the pointing game looks at the single largest one. What is
often done about it is a Gaussian over the map, which asks for the most important neighbourhood.
"""

from typing import Literal, get_args

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fc7.engine.errors import OptionError

How = Literal["largest", "sum", "positive"]


def importance(maps: Tensor, how: How = "largest", blur: float = 0.0) -> Tensor:
    """Return one number a pixel.

    Args:
        maps: (N, 3, H, W), gradients by the pixels, or what a method makes of them.
        how: "largest", "sum" or "positive", as above.
        blur: standard deviation in pixels of the Gaussian that smooths the result; 0 leaves it.

    Returns:
        (N, H, W) float32, at least 0, the higher the more important.

    Raises:
        OptionError: an option is out of range.
        ValueError: the maps have another shape.
    """
    if how not in get_args(How) or not 0 <= blur < float("inf"):
        raise OptionError(
            f"how is {how!r} and blur {blur}; there are {', '.join(get_args(How))}, and a blur of "
            "0 pixels or more"
        )
    if maps.ndim != 4 or maps.shape[1] != 3:
        raise ValueError(f"expected maps (N, 3, H, W), got {tuple(maps.shape)}")
    values = {
        "largest": lambda: maps.abs().amax(1),
        "sum": lambda: maps.abs().sum(1),
        "positive": lambda: maps.clamp(min=0).sum(1),
    }[how]().float()
    if not blur:
        return values
    deviations = (0, blur, blur)
    smooth = gaussian_filter(values.cpu().numpy().astype(np.float64), deviations, mode="nearest")
    return torch.from_numpy(smooth).to(values)
