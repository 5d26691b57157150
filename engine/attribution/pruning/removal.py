"""Removing channels: the tensors of a network without the places that go."""

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fc7.engine.attribution.pruning.coupling import IN, OUT, Axis, Unit
from fc7.engine.models.pruned import reshape
from fc7.engine.models.state import fit_state


def places_removed(units: Iterable[Unit]) -> dict[Axis, set[int]]:
    """Return what goes of each axis of each layer when these units go."""
    gone: dict[Axis, set[int]] = {}
    for unit in units:
        for axis, places in unit.removes.items():
            gone.setdefault(axis, set()).update(places)
    return gone


def axis_sizes(model: nn.Module, units: Iterable[Unit]) -> dict[Axis, int]:
    """Return the places along every axis that any unit removes from."""
    return {
        axis: _size(model.get_submodule(axis[0]), axis[1])
        for axis in {axis for unit in units for axis in unit.removes}
    }


def without(model: nn.Module, units: Iterable[Unit]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return a network's tensors without what the units remove.

    Args:
        model: the network; not changed.
        units: of that network.

    Returns:
        Its state, and the groups of each convolution that has more than one, by path.
    """
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    groups = {
        path: module.groups
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    for (path, axis), gone in places_removed(units).items():
        module = model.get_submodule(path)
        kept = torch.tensor([n for n in range(_size(module, axis)) if n not in gone])
        if axis == IN:
            key = f"{path}.weight"
            state[key] = state[key].index_select(1, kept.to(state[key].device))
            continue
        for name in ("weight", "bias", "running_mean", "running_var"):
            key = f"{path}.{name}"
            if key in state:
                state[key] = state[key].index_select(0, kept.to(state[key].device))
        if path in groups:  # a depthwise convolution: others in groups lose nothing
            groups[path] = len(kept)
    return state, groups


def shrunk(model: nn.Module, units: Iterable[Unit]) -> nn.Module:
    """Return a copy of a network that has lost these units."""
    state, groups = without(model, units)
    smaller = copy.deepcopy(model)
    reshape(smaller, state, groups, "the network")
    fit_state(smaller, state, "the network", "itself")
    return smaller


def widths(model: nn.Module, gone: Mapping[Axis, set[int]]) -> dict[str, tuple[int, int]]:
    """Return the channels of every convolution, before and after, by path."""
    return {
        path: (module.out_channels, module.out_channels - len(gone.get((path, OUT), ())))
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def _size(module: nn.Module, axis: str) -> int:
    if isinstance(module, nn.Conv2d):
        return module.out_channels if axis == OUT else module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features if axis == OUT else module.in_features
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    return module.num_features
