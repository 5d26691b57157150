"""What gradients should be: autograd on a float64 copy, each ReLU's backward rule written out.

The rule is put in by patching `F.relu`, which torchvision's modules and functions end in, so it
shares nothing with ours, which watches calls.
"""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional
from truth import enliven, network_of

from fc7.engine.models import Network

SIZE = (80, 64)
# ReLUs at zero switch with the rounding, in anybody's float32, and each switch changes the gradient
# of many pixels by a little: networks this deep differ from float64 by about 0.3 % for it.
SWITCHES = 0.02


@cache
def lively(name: str) -> Network:
    """Return one of torchvision's networks, with weights at which gradients are neither 0 nor inf.

    Shared by all tests: none of them may change it.
    """
    options = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    return network_of(enliven(model, SIZE), SIZE)


def images(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


class Ruled(torch.autograd.Function):
    """A ReLU with the backward pass of a paper's formula, kept in float64 and whole."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: str) -> Tensor:
        ctx.rule = rule
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        went, comes = (x > 0).to(g.dtype), (g > 0).to(g.dtype)
        return {"plain": g * went, "guided": g * went * comes, "deconv": g * comes}[ctx.rule], None


class Reference:
    """A network in float64, copied before ours has seen it."""

    def __init__(self, network: Network) -> None:
        self.model = copy.deepcopy(network.model).double()
        self._mean = torch.tensor(network.mean, dtype=torch.float64)[:, None, None]
        self._std = torch.tensor(network.std, dtype=torch.float64)[:, None, None]

    def logits(self, images: Tensor) -> Tensor:
        out = self.model((images - self._mean) / self._std)
        return out if isinstance(out, Tensor) else next(iter(out))

    def gradient(
        self, images: Tensor, score: Callable[[Tensor], Tensor], rule: str, path: str | None = None
    ) -> Tensor:
        """Return the gradient of each image's score, of the logits or of what a module returns."""
        seen: list[Tensor] = []
        pixels = images.double().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(functional, "relu", lambda x, inplace=False: Ruled.apply(x, rule))
            if path is not None:
                module = self.model.get_submodule(path)
                hook = module.register_forward_hook(lambda _m, _i, out: seen.append(out))
            logits = self.logits(pixels)
            if path is not None:
                hook.remove()
        output = logits if path is None else seen[-1]
        (found,) = torch.autograd.grad(score(output).sum(), pixels)
        return found


def of_classes(targets: Sequence[int]) -> Callable[[Tensor], Tensor]:
    return lambda logits: logits.gather(1, torch.tensor(targets)[:, None])[:, 0]


def error(actual: Tensor, expected: Tensor) -> float:
    """Return the distance of two maps, as a share of the second's length, of the worst row."""
    difference = (actual.double() - expected).flatten(1).norm(dim=1)
    return float((difference / expected.flatten(1).norm(dim=1)).max())
