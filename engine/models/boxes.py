"""Fields: which pixels of the image each element of a tensor depends on, as boxes.

A field is four tensors shaped as the activation, one for each side of a box of input pixels, kept
so that the union of boxes is an elementwise maximum: (-top, -left, bottom, right), half open, all
minus infinity where nothing of the image is seen (padding, constants).

Boxes that are equal along an axis are stored once, with stride 0, so that the cost is that of the
image's height and width and not of the channels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Field = tuple[Tensor, Tensor, Tensor, Tensor]
NOTHING = float("-inf")


def each(change: Callable[[Tensor], Tensor], field: Sequence[Tensor]) -> Field:
    """Apply a function to the four sides."""
    top, left, bottom, right = (change(side) for side in field)
    return top, left, bottom, right


def filled(box: Sequence[float], shape: Sequence[int]) -> Field:
    """Return a field of that shape with one box, given as a field keeps it, everywhere."""
    top, left, bottom, right = (torch.tensor(side).expand(tuple(shape)) for side in box)
    return top, left, bottom, right


def union(fields: Sequence[Field], shape: Sequence[int]) -> Field:
    """Return the union of fields, broadcast against each other and to that shape."""
    narrowed = [each(narrow, field) for field in fields]
    merged = narrowed[0]
    for field in narrowed[1:]:
        pairs = zip(merged, field, strict=True)
        top, left, bottom, right = (torch.maximum(one, other) for one, other in pairs)
        merged = top, left, bottom, right
    return each(lambda side: side.expand(tuple(shape)), merged)


def bounding_box(field: Field) -> tuple[float, ...]:
    """Return the smallest box, as a field keeps it, that holds all boxes of the field."""
    return tuple(float(narrow(side).amax()) if side.numel() else NOTHING for side in field)


def narrow(side: Tensor) -> Tensor:
    """Drop the repetitions: an axis along which a side is stored once gets length 1."""
    for axis in range(side.ndim):
        if side.stride(axis) == 0 and side.size(axis) > 1:
            side = side.narrow(axis, 0, 1)
    return side
