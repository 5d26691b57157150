"""Fresh random inputs for the kernels, on a generator's device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fc7.bench.roofline import DTYPES

LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
FILL = 0.5


def features(
    shape: Sequence[int], precision: str, layout: str, generator: torch.Generator
) -> tuple[Tensor]:
    """What a layer's ReLU leaves: half of it zero."""
    return (_normal(shape, generator).relu_().to(DTYPES[precision], memory_format=LAYOUTS[layout]),)


def activations(
    shape: Sequence[int], precision: str, layout: str, generator: torch.Generator
) -> tuple[Tensor]:
    """Sixteenths, so that a map's largest value often stands at more than one place."""
    values = _sixteenths(_normal(shape, generator))
    return (values.to(DTYPES[precision], memory_format=LAYOUTS[layout]),)


def features_and_target(
    shape: Sequence[int], precision: str, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Features, and the Gram matrix (C, C) of others."""
    (own,) = features(shape, precision, "nchw", generator)
    (other,) = features((1, *shape[1:]), precision, "nchw", generator)
    flat = other[0].flatten(1)
    return own, flat @ flat.T / flat.shape[1]


def values_and_gradients(
    size: int, precision: str, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Two tensors (N, 64, 32, 32) of `size` bytes each: of both signs, and exact zeros in each."""
    dtype = DTYPES[precision]
    shape = (size // dtype.itemsize // 2**16, 64, 32, 32)
    x, gradient = (_sixteenths(_normal(shape, generator)).to(dtype) for _ in "xg")
    return x, gradient


def image_and_boxes(
    side: int,
    boxes: Tensor,
    precision: str,
    layout: str,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, float]:
    """One image (1, 3, side, side), the boxes (P, 4) beside it, and a number to fill them with."""
    image = _normal((1, 3, side, side), generator)
    image = image.to(DTYPES[precision], memory_format=LAYOUTS[layout])
    return image, boxes.to(generator.device), FILL


def candidates(
    channels: int, k: int, new: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A top k in order and new candidates, many of them equal; no id twice in a channel."""
    device = generator.device
    keys = torch.rand((channels, k + new), generator=generator, device=device)
    ids = keys.argsort(dim=1) * 7  # int64, in no order
    old_ids, new_ids = ids[:, :k].contiguous(), ids[:, k:].contiguous()
    values = _sixteenths(_normal((channels, k + new), generator))
    old, order = values[:, :k].sort(dim=1, descending=True, stable=True)
    # Equal values stand by ascending id, as an earlier merge would have left them.
    old_ids = _ascending_where_equal(old, old_ids.gather(1, order))
    return old, old_ids, values[:, k:].contiguous(), new_ids


def _ascending_where_equal(values: Tensor, ids: Tensor) -> Tensor:
    ids, order = ids.sort(dim=1)
    by_value = values.gather(1, order).argsort(dim=1, descending=True, stable=True)
    return ids.gather(1, by_value)


def _normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=generator.device)


def _sixteenths(values: Tensor) -> Tensor:
    return values.mul_(16).round_().div_(16)
