"""What others do in the kernels' place: eager torch, as one would write it, and torch.compile."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any, Literal

import torch
from torch import Tensor

Boxes = Sequence[tuple[int, int, int, int]]
Forward = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> y, what is saved
Rule = Literal["guided", "plain"]
Backward = Callable[[Tensor, Tensor], Tensor]  # gradient of y, what was saved -> gradient of x


def bmm(features: Tensor) -> Tensor:
    """Gram matrices by the whole product: (N, C, H, W) -> (N, C, C) in the features' dtype."""
    flat = features.flatten(2)
    return torch.bmm(flat, flat.mT) / flat.shape[2]


def bmm_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of each image's Gram matrix to the target: (N,)."""
    return (bmm(features) - target).square().mean((1, 2))


def value_and_gradient(
    loss: Callable[[Tensor, Tensor], Tensor], features: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss of each image and the gradient of their sum."""
    leaf = features.detach().requires_grad_()
    losses = loss(leaf, target)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradient


def clamp_saving_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """ReLU as torch does it: the activations themselves are what the backward pass needs."""
    y = x.clamp_min(0)
    return y, y


def clamp_saving_bools(x: Tensor) -> tuple[Tensor, Tensor]:
    """ReLU that saves a byte an element."""
    return x.clamp_min(0), x > 0


def threshold_plain(gradient: Tensor, activations: Tensor) -> Tensor:
    """ReLU's own backward pass."""
    passed: Tensor = torch.ops.aten.threshold_backward(gradient, activations, 0)
    return passed


def threshold_guided(gradient: Tensor, activations: Tensor) -> Tensor:
    """Guided backpropagation: nothing negative passes either."""
    passed: Tensor = torch.ops.aten.threshold_backward(gradient.clamp_min(0), activations, 0)
    return passed


def masked_plain(gradient: Tensor, mask: Tensor) -> Tensor:
    """ReLU's backward pass from bools."""
    return torch.where(mask, gradient, 0)


def masked_guided(gradient: Tensor, mask: Tensor) -> Tensor:
    """Guided backpropagation from bools."""
    return torch.where(mask, gradient.clamp_min(0), 0)


CLAMP: Mapping[Rule, tuple[Forward, Backward]] = {
    "plain": (clamp_saving_activations, threshold_plain),
    "guided": (clamp_saving_activations, threshold_guided),
}
BOOLS: Mapping[Rule, tuple[Forward, Backward]] = {
    "plain": (clamp_saving_bools, masked_plain),
    "guided": (clamp_saving_bools, masked_guided),
}


def forward_and_backward(
    pair: tuple[Forward, Backward], x: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the activations and the gradient of x."""
    y, saved = pair[0](x)
    return y, pair[1](gradient, saved)


def backward_alone(
    pair: tuple[Forward, Backward], x: Tensor, gradient: Tensor
) -> Callable[[], Tensor]:
    """Go forward now; the call that is returned goes backward."""
    _, saved = pair[0](x)
    return partial(pair[1], gradient, saved)


def _covered(boxes: Tensor, height: int, width: int) -> Tensor:
    """(P, 4) boxes -> (P, H, W) bool, true within."""
    top, left, bottom, right = (edge[:, None] for edge in boxes.unbind(1))
    y = torch.arange(height, device=boxes.device)
    x = torch.arange(width, device=boxes.device)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return rows[:, :, None] & columns[:, None, :]


def where(images: Tensor, boxes: Tensor, fill: float) -> Tensor:
    """Occlude by one selection: (B, C, H, W) contiguous -> (B, P, C, H, W)."""
    mask = _covered(boxes, *images.shape[2:])
    return torch.where(mask[None, :, None], fill, images[:, None])


def where_last(images: Tensor, boxes: Tensor, fill: float) -> Tensor:
    """The same for channels_last: everything is laid out (B, P, H, W, C)."""
    mask = _covered(boxes, *images.shape[2:])
    occluded = torch.where(mask[None, ..., None], fill, images.permute(0, 2, 3, 1)[:, None])
    return occluded.permute(0, 1, 4, 2, 3)


def multiply_and_add(images: Tensor, boxes: Tensor, fill: float) -> Tensor:
    """Occlude as Captum does, image * (1 - mask) + fill * mask, which takes five passes."""
    mask = _covered(boxes, *images.shape[2:])[None, :, None].to(images.dtype)
    baseline = torch.full_like(images, fill)
    return images[:, None] * (1 - mask) + baseline[:, None] * mask


def multiply_and_add_last(images: Tensor, boxes: Tensor, fill: float) -> Tensor:
    """The same for channels_last."""
    mask = _covered(boxes, *images.shape[2:])[None, ..., None].to(images.dtype)
    last = images.permute(0, 2, 3, 1)[:, None]
    baseline = torch.full_like(last, fill)
    return (last * (1 - mask) + baseline * mask).permute(0, 1, 4, 2, 3)


def slices(images: Tensor, boxes: Boxes, fill: float) -> Tensor:
    """Occlude by copying the image for every box and assigning to a slice of each copy."""
    n, c, h, w = images.shape
    occluded = images[:, None].expand(n, len(boxes), c, h, w).clone()
    for place, (top, left, bottom, right) in enumerate(boxes):
        occluded[:, place, :, top:bottom, left:right] = fill
    return occluded


def slices_last(images: Tensor, boxes: Boxes, fill: float) -> Tensor:
    """The same for channels_last."""
    n, c, h, w = images.shape
    last = images.permute(0, 2, 3, 1)[:, None].expand(n, len(boxes), h, w, c)
    occluded = last.clone(memory_format=torch.contiguous_format)
    for place, (top, left, bottom, right) in enumerate(boxes):
        occluded[:, place, top:bottom, left:right] = fill
    return occluded.permute(0, 1, 4, 2, 3)


def flatten_max(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum and position of each map; positions int64, of ties any one on a GPU."""
    values, positions = activations.flatten(2).max(2)
    return values, positions


def cat_topk(
    values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Top k of the candidates: of equal values any id may be kept, in any order."""
    all_values, all_ids = torch.cat([values, new_values], 1), torch.cat([ids, new_ids], 1)
    best, places = all_values.topk(values.shape[1], dim=1)
    return best, all_ids.gather(1, places)


def cat_two_sorts(
    values: Tensor, ids: Tensor, new_values: Tensor, new_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Top k with ties by ascending id: a stable sort by id, then one by value."""
    all_values, all_ids = torch.cat([values, new_values], 1), torch.cat([ids, new_ids], 1)
    all_ids, order = all_ids.sort(dim=1, stable=True)
    best, places = all_values.gather(1, order).sort(dim=1, descending=True, stable=True)
    k = values.shape[1]
    return best[:, :k], all_ids.gather(1, places[:, :k])


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return torch.compile of a function, for the one shape that it will see.

    Each time it is a copy of the function: torch keeps what it compiled with the code, and after
    a few shapes compiles no more.
    """
    assert isinstance(function, FunctionType)
    fresh = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    fast: Callable[..., Any] = torch.compile(fresh, dynamic=False)
    return fast
