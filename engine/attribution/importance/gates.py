"""What one pass forward and back says about every channel of every convolution.

Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference" (ICLR
2017), equations 6 to 8: removing a channel sets its activation a to 0, which to first order
changes the loss L by -a dL/da. Of one image, with M positions m,

    taylor = | 1/M  sum over m of  a_m dL/da_m |,     activation = 1/M  sum over m of  |f(a)_m|

where f is the activation function that follows. The paper takes a after the ReLU; here it is what
the ReLU reads, a convolution's output with its normalisation folded in. Both give the same number:
where a ReLU is on it passes value and gradient through, where it is off the gradient before it
and the value behind it are 0. Read before, it does not matter whether a ReLU is a module, a
function, or works in place. Functions with f(0) = 0 but no such corner (SiLU, ReLU6 at 6) are
expanded at their input instead of their output: the same removal, another first order. A
branch that ends in a sum has no function of its own, and is removed from the sum.

Each channel of each image is multiplied by a gate of its own, held at 1 (the paper's g): the
gradient of the gates is all that is needed, so no weight takes one.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fc7.engine.attribution.importance.convolutions import Convolution
from fc7.engine.errors import ModelError
from fc7.engine.models import Network


@dataclass(frozen=True)
class Evidence:
    """What a batch says.

    Attributes:
        taylor: (N, C) float32, the channels of all convolutions one after the other.
        activation: (N, C) float32.
        loss: (N,) float32, the cross-entropy of the target.
        predicted: (N,) int64.
    """

    taylor: Tensor
    activation: Tensor
    loss: Tensor
    predicted: Tensor


def gather_evidence(
    network: Network,
    convolutions: Sequence[Convolution],
    images: Tensor,
    targets: Callable[[Tensor], Tensor],
) -> Evidence:
    """Run images forward and back.

    Args:
        network: the network.
        convolutions: of that network.
        images: RGB in [0, 1], float (N, 3, H, W), on the network's device.
        targets: from the predicted classes, (N,) int64, to those whose loss it is.

    Raises:
        ModelError: the loss does not depend on any convolution by a gradient.
    """
    count, device = len(images), network.device
    gates = [torch.ones(count, one.channels, device=device) for one in convolutions]
    activations = [torch.zeros(count, one.channels, device=device) for one in convolutions]
    calls = [0] * len(convolutions)

    def hook_of(place: int) -> Callable[..., Tensor]:
        def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            with torch.no_grad():
                function = convolutions[place].activation
                values = output if function is None else function(output)
                activations[place] += values.float().abs().mean((2, 3))
            calls[place] += 1
            gated: Tensor = _Gate.apply(  # type: ignore[no-untyped-call,unused-ignore]
                output, gates[place]
            )
            return gated

        return hook

    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        for place, (gate, one) in enumerate(zip(gates, convolutions, strict=True)):
            gate.requires_grad_()
            module = network.model.get_submodule(one.path)
            stack.callback(module.register_forward_hook(hook_of(place)).remove)
        logits = network(images)
        if not logits.requires_grad:
            raise ModelError(f"no gradient reaches the convolutions of {network.name}")
        predicted = logits.detach().argmax(1)
        losses = cross_entropy(logits, targets(predicted), reduction="none")
        # Images do not mix, so the gradient of the sum is each image's own.
        gradients = torch.autograd.grad(losses.sum(), gates, allow_unused=True)
    taylor = [
        torch.zeros_like(gate) if gradient is None else gradient.abs()
        for gate, gradient in zip(gates, gradients, strict=True)
    ]
    means = [total / max(1, runs) for total, runs in zip(activations, calls, strict=True)]
    return Evidence(
        torch.cat(taylor, 1).detach(),
        torch.cat(means, 1),
        losses.detach(),
        predicted,
    )


class _Gate(torch.autograd.Function):
    """y = a, whose gate has the gradient mean over positions of a dL/dy.

    A copy, for an activation that works in place may follow.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (values,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient, (values.float() * gradient.float()).mean((2, 3))
