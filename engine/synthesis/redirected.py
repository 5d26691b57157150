"""A way back through ReLUs that are shut, for a target that nothing reaches.

    y  = x where x > 0, else 0
    gx = g where x > 0 or g > 0, else 0

Of a unit that no image at hand excites every gradient is zero, and ascent never starts. Here a
gradient also passes a shut ReLU if it asks for more of it (the "redirected gradients" of Lucid,
Olah et al., "Feature visualization", 2017, https://distill.pub/2017/feature-visualization). It is
no derivative of anything, and meant for the first few steps.
"""

from typing import Any

import torch
from torch import Tensor

from fc7.engine.models.rectified import Rectified


class Redirected(Rectified):
    """While active, in this thread, shut ReLUs pass on what would open them."""

    def __init__(self) -> None:
        super().__init__("plain")

    def _rectify(self, x: Tensor, low: Any, high: Any, inplace: bool) -> Tensor | None:
        if isinstance(low, Tensor) or low != 0 or not x.is_floating_point():
            return None
        if high is not None:
            return None  # its slope beyond the upper end is zero in any case
        self.rewritten += 1
        y: Tensor = _Redirected.apply(x)
        return y


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x > 0)
        return x.clamp(min=0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (is_open,) = ctx.saved_tensors
        return torch.where(is_open | (g > 0), g, 0)
