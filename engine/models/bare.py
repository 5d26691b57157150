"""Networks by name without trained weights: torchvision's, the built-in ones, one's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fc7.engine.models.own import call_own

# What torchvision sets together with its own weights, ported from another framework.
PORTED = {"googlenet": {"transform_input": True}, "inception_v3": {"transform_input": True}}


def tiny_names() -> list[str]:
    """Return the names of the built-in networks."""
    from fc7.engine.models.tiny import TINY

    return list(TINY)


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    import torchvision.models

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def build_torchvision(name: str, **options: Any) -> nn.Module:
    """Return a classifier of torchvision's with random weights, drawn from torch's generator."""
    from torchvision.models import get_model

    if name in PORTED:
        # Their auxiliary classifiers serve training only; their own initial weights are asked
        # for because torchvision announces that it will stop drawing them.
        options = {"aux_logits": False, "init_weights": True} | options
    model: nn.Module = get_model(name, weights=None, **options)
    return model


def build_bare(name: str, seed: int = 0, **options: Any) -> nn.Module:
    """Return the network of a name that `load_model` takes, with whatever weights it is born with.

    Args:
        name: torchvision's, a built-in one, or "module:function".
        seed: set while it is built.
        options: of torchvision's function.

    Raises:
        ModelError: one's own function cannot be called.
        ValueError: there is no such network.
    """
    from fc7.engine.models.tiny import build_tiny

    with seeded(seed):
        if ":" in name:
            return call_own(name)
        return build_tiny(name) if name in tiny_names() else build_torchvision(name, **options)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` on the CPU, and leave torch's generator as it was."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)
