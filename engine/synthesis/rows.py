"""What is done to each row of a batch as if it were alone.

On a CPU the same row can come out with other last bits in another batch: the last elements of a
tensor, which fill no vector register, take another path through pow, and a sum of one row is split
between threads where sums of several rows are not. Row by row, each is the same computation in
any company. Elsewhere all rows go at once, and an ascent keeps their number fixed.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def each_row(function: Callable[..., Tensor], first: Tensor, *others: Tensor) -> Tensor:
    """Return function(first, *others), computed on a CPU one row after the other.

    Args:
        function: from N rows of each argument to a tensor of N rows, for any N.
        first: (N, ...); its device counts.
        others: (N, ...).
    """
    if first.device.type != "cpu" or len(first) < 2:
        return function(first, *others)
    # Split at once: the gradient of a slice would be a batch of zeros for each row.
    rows = zip(*(torch.split(tensor, 1) for tensor in (first, *others)), strict=True)
    return torch.cat([function(*row) for row in rows])
