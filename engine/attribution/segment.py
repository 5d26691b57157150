"""Object segmentation without supervision: GrabCut, told by a saliency map where to look.

Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks" (ICLR workshop 2014), section
3.2: the pixels above the map's 95 % quantile are the object's and teach GrabCut its colours, those
below the 30 % quantile are the background's; the graph cut decides about the rest, and the largest
connected component of what it finds is the mask. GrabCut is Rother, Kolmogorov and Blake (SIGGRAPH
2004), as OpenCV has it.

Beyond the paper: the map is smoothed first, since gradients lie on edges while the seeds should
lie in the object, and pixels between `probable` and `foreground` may teach the object's colours
without being bound to it. By default there are none, as in the paper. Both were measured, see
`fc7.bench.segmentation`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.attribution.saliency import saliency_maps
from fc7.engine.attribution.segmentation.grabcut import cut_out
from fc7.engine.attribution.segmentation.seeds import Recipe
from fc7.engine.models import Network


def segment_image(
    image: NDArray[np.uint8],
    saliency: NDArray[np.floating[Any]],
    foreground: float = 0.95,
    probable: float = 0.95,
    background: float = 0.3,
    iterations: int = 5,
) -> NDArray[np.bool_]:
    """Return where in an image its object is.

    Args:
        image: uint8 (H, W, 3), RGB.
        saliency: (h, w), the higher the more important; it covers the image, at any resolution.
        foreground: see `Recipe`.
        probable: likewise.
        background: likewise.
        iterations: likewise.

    Returns:
        bool (H, W). What cannot be had by GrabCut is had otherwise, or is empty; see `How`.

    Raises:
        OptionError: an option is out of range, or OpenCV is not installed.
        ValueError: an argument has another shape or dtype.
    """
    recipe = Recipe(foreground, probable, background, iterations)
    return cut_out(image, saliency, recipe).mask


def segment(
    network: Network,
    images: Tensor,
    targets: Tensor | Sequence[int] | None = None,
    recipe: Recipe | None = None,
) -> Tensor:
    """Return where in each image the object is that the network's answer depends on.

    Args:
        network: the network.
        images: (N, 3, H, W), float in [0, 1], as the network takes them.
        targets: N class numbers; those that the network predicts if None.
        recipe: how.

    Returns:
        bool (N, H, W), on the CPU. A row's mask does not depend on the others.

    Raises:
        OptionError: a class is out of range, or OpenCV is not installed.
    """
    maps = saliency_maps(network, images, targets).cpu().numpy()
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    found = [
        cut_out(np.ascontiguousarray(image), saliency, recipe or Recipe()).mask
        for image, saliency in zip(pixels, maps, strict=True)
    ]
    return torch.from_numpy(np.stack(found)) if found else torch.zeros(maps.shape, dtype=torch.bool)
