"""ReLUs that leak, so that a search is not caught by those that happen to be shut.

    y = x where x > 0, else slope x      (Maas, Hannun and Ng, 2013)

What is below zero has a gradient, and an image can find its way from it. As the slope falls from
one search to the next, the network becomes itself, and the image follows.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional

from fc7.engine.models.rectified import Rectified


class Leaky(Rectified):
    """While active, in this thread, every ReLU leaks.

    Args:
        slope: below zero, at least 0; 0 is a ReLU.
    """

    def __init__(self, slope: float) -> None:
        super().__init__("plain")
        self._slope = slope

    def _rectify(self, x: Tensor, low: Any, high: Any, inplace: bool) -> Tensor | None:
        if self._slope == 0 or high is not None:
            return super()._rectify(x, low, high, inplace)
        if isinstance(low, Tensor) or low != 0 or not x.is_floating_point():
            return None
        self.rewritten += 1
        y: Tensor = (functional.leaky_relu_ if inplace else functional.leaky_relu)(x, self._slope)
        return y
