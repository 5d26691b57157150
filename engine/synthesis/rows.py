"""What is done to each row of a batch as if it were alone.

On a CPU the same row can come out with other last bits in another batch: the last elements of a
tensor, which fill no vector register, take another path through pow, and a sum of one row is split
between threads where sums of several rows are not. Row by row, each is the same computation in
any company, and its tensors stay in the cache. On a GPU an element's arithmetic does not depend on
its place, and sums depend on the batch's size alone, which an ascent keeps fixed.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def each_row(function: Callable[..., Tensor], first: Tensor, *others: Tensor) -> Tensor:
    """Return function(first, *others), computed on a CPU one row after the other.

    Args:
        function: from tensors of N rows each to one of N rows, for any N.
        first: (N, ...); its device counts.
        others: (N, ...).
    """
    count = len(first)
    if first.device.type != "cpu" or count < 2:
        return function(first, *others)
    return torch.cat(
        [function(*(rows[n : n + 1] for rows in (first, *others))) for n in range(count)]
    )
