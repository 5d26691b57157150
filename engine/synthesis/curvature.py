"""What L-BFGS remembers of each row's curvature: its last steps, and how the gradient changed.

Every row has a ring of its own, so that rows whose steps are found at different times remember
equally many.
"""

import torch
from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return each row's inner product: (N, D), (N, D) -> (N,).

    A matrix product would add up in an order that depends on the place in the batch.
    """
    return (a * b).sum(1)


class Pairs:
    """The last pairs of steps and changes of gradients, of N rows.

    Args:
        most: pairs that a row remembers.
        like: (N, D), whose dtype and device they have.

    Attributes:
        count: (N,) int64, pairs that each row holds.
    """

    # A pair is kept where the curvature along it is positive beyond rounding: y.s above this share
    # of |y| |s|.
    _LEAST = 1e-8

    def __init__(self, most: int, like: Tensor) -> None:
        count, size = like.shape
        self._steps = like.new_zeros(count, most, size)
        self._changes = like.new_zeros(count, most, size)
        self._inverse = like.new_zeros(count, most)  # 1 / y.s
        self._scale = like.new_ones(count)  # s.y / y.y of the newest
        self._next = torch.zeros(count, dtype=torch.int64, device=like.device)
        self._rows = torch.arange(count, device=like.device)
        self.count = torch.zeros_like(self._next)

    def forget(self, rows: Tensor) -> None:
        """Forget all pairs of rows, given by their places or as a mask."""
        self.count[rows] = 0

    def add(self, rows: Tensor, steps: Tensor, changes: Tensor) -> Tensor:
        """Remember a pair of each of some rows, where the curvature is positive.

        Args:
            rows: (N,) bool.
            steps: (N, D), s.
            changes: (N, D), y.

        Returns:
            (N,) bool, which were remembered.
        """
        product, square = dot(steps, changes), dot(changes, changes)
        least = self._LEAST * (square * dot(steps, steps)).sqrt()
        kept = rows & (product > least) & product.isfinite() & square.isfinite()
        places = kept.nonzero()[:, 0]
        slots = self._next[places]
        self._steps[places, slots] = steps[places]
        self._changes[places, slots] = changes[places]
        self._inverse[places, slots] = 1 / product[places]
        self._scale = torch.where(kept, product / square, self._scale)
        most = self._steps.shape[1]
        self._next = torch.where(kept, (self._next + 1) % most, self._next)
        self.count = torch.where(kept, (self.count + 1).clamp(max=most), self.count)
        return kept

    def inverse_hessian_times(self, gradients: Tensor) -> Tensor:
        """Return H g of each row, (N, D) -> (N, D); of a row without pairs, its gradient."""
        held = int(self.count.max())
        most = self._steps.shape[1]
        result = gradients.clone()
        newest_first = []
        for age in range(1, held + 1):
            slot = (self._next - age) % most
            inverse = self._inverse[self._rows, slot].masked_fill(self.count < age, 0)
            step, change = self._steps[self._rows, slot], self._changes[self._rows, slot]
            weight = inverse * dot(step, result)
            result = self._plus(result, self.count >= age, -weight, change)
            newest_first.append((slot, inverse, weight))
        scale = torch.where(self.count > 0, self._scale, torch.ones_like(self._scale))
        result = result * scale[:, None]
        for age, (slot, inverse, weight) in reversed(list(enumerate(newest_first, 1))):
            step, change = self._steps[self._rows, slot], self._changes[self._rows, slot]
            more = weight - inverse * dot(change, result)
            result = self._plus(result, self.count >= age, more, step)
        return result

    @staticmethod
    def _plus(to: Tensor, rows: Tensor, weights: Tensor, vectors: Tensor) -> Tensor:
        """Add weighted vectors to some rows; what the others' slots held does not matter."""
        return torch.where(rows[:, None], to + weights[:, None] * vectors, to)
