"""Inputs bound to a call: what is bound beforehand costs no time, what the call does is timed."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from fc7.bench import kernel_peers as peers
from fc7.kernels.guided_relu import guided_relu

Pair = tuple[peers.Forward, peers.Backward]
Bind = Callable[..., Callable[[], Any]]  # inputs -> the call


def plainly(function: Callable[..., Any]) -> Bind:
    """Bind all inputs; the call is the function."""
    return partial(partial, function)


def compiled(function: Callable[..., Any]) -> Bind:
    """Bind all inputs; the call is torch.compile of the function, compiled for each case anew."""
    return _late(lambda: plainly(peers.compiled(function)))


def compiled_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> Bind:
    """Bind features and target; the call is the compiled loss and its gradient by autograd."""
    return _late(lambda: plainly(partial(peers.value_and_gradient, peers.compiled(loss))))


def compiled_pair(pair: Pair) -> Callable[[], Pair]:
    """Return what compiles a forward and a backward pass, one by one, when it is first called."""
    return cache(lambda: (peers.compiled(pair[0]), peers.compiled(pair[1])))


def compiled_relu(pair: Callable[[], Pair], both: bool) -> Bind:
    """Bind x and its gradient; the call goes both ways, or backward alone."""
    if both:
        return _late(lambda: plainly(partial(peers.forward_and_backward, pair())))
    return _late(lambda: partial(peers.backward_alone, pair()))


def slices(function: Callable[..., Any], boxes: peers.Boxes) -> Bind:
    """Bind an image, with the boxes as Python's numbers: reading them off a GPU would wait."""
    return lambda images, _, fill: partial(function, images, boxes, fill)


def our_relu(rule: peers.Rule, x: Tensor, gradient: Tensor) -> Callable[[], Any]:
    """Our forward and backward pass, through autograd as a network would."""
    leaf = x.detach().requires_grad_()

    def call() -> tuple[Tensor, Tensor]:
        y = guided_relu(leaf, rule)
        (found,) = torch.autograd.grad(y, leaf, gradient)
        return y.detach(), found

    return call


def our_relu_backward(rule: peers.Rule, x: Tensor, gradient: Tensor) -> Callable[[], Tensor]:
    """Our backward pass alone."""
    leaf = x.detach().requires_grad_()
    y = guided_relu(leaf, rule)
    return lambda: torch.autograd.grad(y, leaf, gradient, retain_graph=True)[0]


def saved_by_ours(rule: peers.Rule, x: Tensor, gradient: Tensor) -> int:
    """Bytes that our forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        guided_relu(x.detach().requires_grad_(), rule)
    return sum(kept.values())


def saved_by(forward: peers.Forward, x: Tensor, gradient: Tensor) -> int:
    """Bytes that a peer's forward pass keeps for the backward pass."""
    _, saved = forward(x)
    return saved.nbytes


def _late(make: Callable[[], Bind]) -> Bind:
    """Make the bind when it is first used, once for all sets of inputs."""
    made: list[Bind] = []

    def bind(*inputs: Any) -> Callable[[], Any]:
        if not made:
            made.append(make())
        return made[0](*inputs)

    return bind
