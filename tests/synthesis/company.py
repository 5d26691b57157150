"""Pictures, and whether a row comes out the same in any company, to the bit."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc7.engine.synthesis.randomness import Keys

COLOUR = (0.485, 0.456, 0.406)
SIZES = [(1, 1), (1, 6), (7, 1), (7, 5), (6, 8), (13, 9), (37, 53)]


def images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def gradients(count: int, size: tuple[int, int], seed: int = 1) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def keys(count: int, seed: int = 0) -> Keys:
    """Return keys of unlike rows: other seeds, other steps, some of them negative or huge."""
    drawn = np.random.default_rng(seed)
    seeds = drawn.integers(-(2**62), 2**62, count)
    return Keys(seeds, drawn.integers(0, 1000, count))


def taken(keys: Keys, rows: Sequence[int]) -> Keys:
    return Keys(keys.seeds[list(rows)], keys.steps[list(rows)], keys.place)


def array(tensor: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = tensor.detach().double().numpy()
    return found


def same_in_any_company(function: Callable[[list[int]], Tensor], count: int) -> None:
    """Check a function of row numbers, which computes these rows together.

    Rows alone, the other way round, by threes, and one of them three times.
    """
    whole = function(list(range(count)))
    companies = [[n] for n in range(count)]
    companies += [list(range(count))[::-1], [0, count - 1, 1], [count // 2] * 3, [2, 2, 0, 3]]
    for rows in companies:
        assert torch.equal(function(rows), whole[rows]), rows


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the values and the gradient of their weighted sum, a row each."""
    x = x.clone().requires_grad_()
    y = function(x)
    each = y.shape[1:].numel()
    # Cosines, so that places count differently, and the same in each row.
    weights = torch.arange(each, dtype=y.dtype).cos().view(1, *y.shape[1:])
    (back,) = torch.autograd.grad((y * weights).sum(), x)
    return torch.cat(
        [y.detach().flatten(1) if y.ndim > 1 else y.detach()[:, None], back.flatten(1)], 1
    )
