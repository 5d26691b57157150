"""Problems to minimise, of which a batch holds several, and other people's L-BFGS on them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fc7.engine.synthesis.lbfgs import ValueAndGradient
from fc7.kernels.gram import gram

Values = Callable[[Tensor], Tensor]
"""From points (N, *shape) to (N,)."""


def by_autograd(values: Values) -> ValueAndGradient:
    """Return values, (N,), as a function that also has their gradients."""

    def value_and_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            found = values(x)
            (gradient,) = torch.autograd.grad(found.sum(), x)
        return found.detach(), gradient

    return value_and_gradient


class GramProblems:
    """Images to be given the Gram matrices of others, through a small network of random weights.

    Args:
        count: images.
        seed: of weights and images.
        size: height and width in pixels.

    Attributes:
        start: (N, 3, H, W), noise.
    """

    def __init__(self, count: int = 6, seed: int = 0, size: tuple[int, int] = (24, 20)) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._weights = [
            torch.randn(b, a, 3, 3, generator=generator) * (2 / (9 * a)) ** 0.5
            for a, b in ((3, 12), (12, 20), (20, 24))
        ]
        coarse = torch.rand(count, 3, 6, 5, generator=generator)
        strength = torch.linspace(0.3, 1, count)[:, None, None, None]
        images = nn.functional.interpolate(coarse, size, mode="bilinear") * strength
        images += 0.1 * torch.rand(count, 3, *size, generator=generator)
        self._targets = self._grams(images)
        self.start = torch.rand(count, 3, *size, generator=generator)

    def _grams(self, images: Tensor) -> list[Tensor]:
        found, x = [], images
        for weight in self._weights:
            x = nn.functional.conv2d(x, weight, padding=1)
            found.append(gram(x))
            x = nn.functional.avg_pool2d(x.relu(), 2)
        return found

    def values(self, images: Tensor, rows: slice = slice(None)) -> Tensor:
        """Return the squared distances of all layers' matrices, relative to the goal's: (N,)."""
        total = images.new_zeros(len(images))
        for found, wanted in zip(self._grams(images), self._targets, strict=True):
            goal = wanted[rows]
            total = total + (found - goal).square().sum((1, 2)) / goal.square().sum((1, 2))
        return total


def scipy_of(
    function: ValueAndGradient, start: Tensor, evaluations: int = 10_000, tolerance: float = 0.0
) -> tuple[float, int]:
    """Minimise one row, (1, *shape), by L-BFGS-B; return the loss and the evaluations it took."""
    from scipy.optimize import minimize

    def value_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        x = torch.from_numpy(flat).to(start.dtype).view_as(start)
        value, gradient = function(x)
        return value.item(), gradient.double().numpy().ravel()

    limits = {"maxfun": evaluations, "maxiter": evaluations, "ftol": tolerance, "gtol": tolerance}
    found = minimize(
        value_and_gradient,
        start.double().numpy().ravel(),
        jac=True,
        method="L-BFGS-B",
        options={**limits, "maxcor": 10},
    )
    return float(found.fun), int(found.nfev)


def torch_of(
    function: ValueAndGradient, start: Tensor, evaluations: int, search: str | None
) -> tuple[Tensor, int]:
    """Minimise the sum over a batch by `torch.optim.LBFGS`, which takes it for one vector.

    Returns:
        The losses of the rows, (N,), and how often all were evaluated.
    """
    x = start.clone().requires_grad_()
    optimiser: Any = torch.optim.LBFGS(
        [x],
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=10,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn=search,
    )
    count = 0

    def closure() -> Tensor:
        nonlocal count
        count += 1
        values, gradients = function(x)
        x.grad = gradients
        return values.sum()

    optimiser.step(closure)
    return function(x)[0], count
