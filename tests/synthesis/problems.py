"""Problems to minimise, and scipy's answers to them, one at a time in float64."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from fc7.engine.synthesis.lbfgs import ValueAndGradient
from fc7.kernels.gram import gram

Values = Callable[[Tensor], Tensor]
"""From points (N, *shape) to (N,)."""


def by_autograd(values: Values) -> ValueAndGradient:
    def value_and_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            found = values(x)
            (gradient,) = torch.autograd.grad(found.sum(), x)
        return found.detach(), gradient

    return value_and_gradient


def rosenbrock(x: Tensor) -> Tensor:
    """(N, D) -> (N,); 0 where every element is 1."""
    a, b = x[:, :-1], x[:, 1:]
    return (100 * (b - a * a).square() + (1 - a).square()).sum(1)


def quadratic(scales: Tensor, centres: Tensor) -> Values:
    """Sum of scales (x - centres)^2, both (N, D)."""
    return lambda x: (scales * (x - centres).square()).sum(1)


class GramProblems:
    """Images to be given the Gram matrices of others, through a small network of random weights.

    Args:
        count: images.
        seed: of weights and images.

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
        """Sum over layers of the squared distance, relative to the target's: (N,)."""
        total = images.new_zeros(len(images))
        for found, wanted in zip(self._grams(images), self._targets, strict=True):
            goal = wanted[rows]
            total = total + (found - goal).square().sum((1, 2)) / goal.square().sum((1, 2))
        return total


def scipy_of(
    values: Values, start: Tensor, evaluations: int = 10_000, tolerance: float = 0.0
) -> tuple[float, int]:
    """Minimise one row, (1, *shape), by L-BFGS-B; return the loss and the evaluations it took."""
    function = by_autograd(values)

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(flat).to(start.dtype).view_as(start)
        value, gradient = function(x)
        return value.item(), gradient.double().numpy().ravel()

    options = {"maxfun": evaluations, "maxiter": evaluations, "ftol": tolerance, "gtol": tolerance}
    found = minimize(
        value_and_gradient,
        start.double().numpy().ravel(),
        jac=True,
        method="L-BFGS-B",
        options={**options, "maxcor": 10},
    )
    return float(found.fun), int(found.nfev)
