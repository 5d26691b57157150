"""Which channels can only go together, and what of which layer goes with them.

The branches of a residual sum must keep the same channels, a depthwise convolution those of its
input, and whatever reads a channel loses the weights for it. Torch-Pruning's dependency graph
(Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023) follows this through a
network; here its groups are cut into the smallest sets of channels that can go alone, `Unit`s.

The graph takes what it does not know for a function of each element. Where it passes anything but
functions known to leave channels apart, the channels stay, and the reason is kept.
"""

import copy
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fc7.engine.errors import ModelError, OptionError
from fc7.engine.models import Network
from fc7.engine.models.network import first_line

OUT, IN = "out", "in"
Axis = tuple[str, str]
"""A layer's path, and which of its axes: `OUT`, or `IN`."""

# As autograd calls them, in lower case.
_BY_CHANNEL = frozenset(
    (
        *("relu", "hardtanh", "silu", "hardswish", "hardsigmoid", "gelu", "sigmoid", "tanh"),
        *("leakyrelu", "elu", "celu", "selu", "softplus", "mish", "threshold", "clamp"),
        *("clampmin", "clampmax", "abs", "neg", "pow", "exp", "sqrt", "rsqrt"),
        *("add", "sub", "rsub", "mul", "div", "clone", "alias", "tocopy", "mean"),
        *("maxpool2dwithindices", "mkldnnmaxpool2d", "avgpool2d", "adaptiveavgpool2d"),
        *("upsamplenearest2d", "upsamplebilinear2d"),
        *("constantpadnd", "reflectionpad2d", "replicationpad2d"),
        *("batchnorm", "cudnnbatchnorm", "nativebatchnorm"),
    )
)


@dataclass(frozen=True)
class Unit:
    """Channels that go or stay together.

    Attributes:
        channels: of convolutions, (path, channel) in the order the layers run.
        removes: what goes with them: places along an axis of a layer.
    """

    channels: tuple[tuple[str, int], ...]
    removes: Mapping[Axis, frozenset[int]]


@dataclass(frozen=True)
class Coupling:
    """How the channels of a network hang together.

    Attributes:
        units: what can be removed, ordered by first channel.
        kept: by path, why a convolution's channels all stay.
    """

    units: tuple[Unit, ...]
    kept: Mapping[str, str]


def couple(network: Network, keep: Collection[str]) -> Coupling:
    """Find the units of a network.

    Args:
        network: on the CPU.
        keep: paths of layers whose channels stay.

    Raises:
        OptionError: torch-pruning is not installed.
        ModelError: the network cannot be followed.
    """
    # Channels last, some functions work by strides, which says nothing of what they do.
    model = copy.deepcopy(network.model).float().to(memory_format=torch.contiguous_format)
    model.requires_grad_()
    graph = _dependency_graph(model, network.input_size, network.name)
    names = {module: path for path, module in model.named_modules()}
    convolutions = [module for module in graph.module2node if isinstance(module, nn.Conv2d)]
    order = {path: place for place, path in enumerate(network.every_layer)}
    convolutions.sort(key=lambda module: order.get(names[module], len(order)))
    sets = _Sets()
    for module in convolutions:
        path = names[module]
        if all((path, channel) in sets for channel in range(module.out_channels)):
            continue
        group = _group(graph, module)
        for item in group:
            is_out = graph.is_out_channel_pruning_fn(item.dep.handler)
            place = _Place(item.dep.target, names, is_out)
            why = _why_kept(place, network, keep)
            for index, root in zip(item.idxs, item.root_idxs, strict=True):
                sets.add((path, root), place, index, why)
    return sets.coupling(order)


class _Place:
    """What an item of a group is about."""

    def __init__(self, node: Any, names: Mapping[Any, str], is_out: bool) -> None:
        self.node, self.module = node, node.module
        self.path = names.get(self.module, "")
        module = self.module
        self.is_depthwise = (
            isinstance(module, nn.Conv2d)
            and module.groups == module.in_channels == module.out_channels > 1
        )
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) or self.is_depthwise:
            is_out = True
        self.axis = OUT if is_out else IN
        self.is_layer = isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d)

    @property
    def size(self) -> int:
        """Places along the axis."""
        module = self.module
        if isinstance(module, nn.Conv2d):
            return module.out_channels if self.axis == OUT else module.in_channels
        if isinstance(module, nn.Linear):
            return module.out_features if self.axis == OUT else module.in_features
        return int(module.num_features)


class _Sets:
    """Channels of convolutions, united as groups say so (union and find)."""

    def __init__(self) -> None:
        self._parents: dict[tuple[str, int], tuple[str, int]] = {}
        self._removes: dict[tuple[str, int], dict[Axis, set[int]]] = {}
        self._kept: dict[tuple[str, int], str] = {}
        self._made: set[str] = set()  # by these, the others only pass on what they are given

    def __contains__(self, channel: tuple[str, int]) -> bool:
        return channel in self._parents

    def add(self, root: tuple[str, int], place: _Place, index: int, why_kept: str) -> None:
        """Note that a place along a layer's axis goes with a channel."""
        head = self._find(root)
        if why_kept:
            self._kept.setdefault(head, why_kept)
        if not place.is_layer:
            return
        if not 0 <= index < place.size:
            self._kept.setdefault(head, f"{place.path} has other channels")
            return
        self._removes[head].setdefault((place.path, place.axis), set()).add(index)
        if isinstance(place.module, nn.Conv2d) and place.axis == OUT:
            self._unite(head, self._find((place.path, index)))
            if not place.is_depthwise:
                self._made.add(place.path)

    def coupling(self, order: Mapping[str, int]) -> Coupling:
        """Return the units, and the layers that have none."""
        members: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for channel in self._parents:
            members.setdefault(self._find(channel), []).append(channel)
        units: list[Unit] = []
        kept: dict[str, str] = {}
        free: set[str] = set()
        for head, found in members.items():
            found.sort(key=lambda channel: (order.get(channel[0], len(order)), channel))
            if all(path not in self._made for path, _ in found):
                self._kept.setdefault(head, "they are those of the images")
            if head in self._kept:
                kept.update(dict.fromkeys((path for path, _ in found), self._kept[head]))
                continue
            removes = {axis: frozenset(places) for axis, places in self._removes[head].items()}
            units.append(Unit(tuple(found), removes))
            free.update(path for path, _ in found)
        units.sort(key=lambda unit: (order.get(unit.channels[0][0], len(order)), unit.channels))
        return Coupling(tuple(units), {path: why for path, why in kept.items() if path not in free})

    def _find(self, channel: tuple[str, int]) -> tuple[str, int]:
        if channel not in self._parents:
            self._parents[channel] = channel
            self._removes[channel] = {(channel[0], OUT): {channel[1]}}
        head = channel
        while self._parents[head] != head:
            head = self._parents[head]
        while self._parents[channel] != head:
            self._parents[channel], channel = head, self._parents[channel]
        return head

    def _unite(self, head: tuple[str, int], other: tuple[str, int]) -> None:
        if head == other:
            return
        self._parents[other] = head
        for axis, places in self._removes.pop(other).items():
            self._removes[head].setdefault(axis, set()).update(places)
        if other in self._kept:
            self._kept.setdefault(head, self._kept.pop(other))


def _why_kept(place: _Place, network: Network, keep: Collection[str]) -> str:
    """Say why channels that pass here must stay; nothing where they need not."""
    module, node = place.module, place.node
    if place.is_layer:
        if place.path in keep and place.axis == OUT:
            return f"{place.path} is kept, as asked"
        if isinstance(module, nn.Conv2d) and module.groups > 1 and not place.is_depthwise:
            return f"{place.path} is a convolution in {module.groups} groups"
        if module._parameters.get("weight") is None and not isinstance(
            module, nn.BatchNorm1d | nn.BatchNorm2d
        ):
            return f"the weights of {place.path} are computed"
        layer = network.every_layer.get(place.path)
        return f"{place.path} runs more than once" if layer is not None and layer.calls > 1 else ""
    kind = type(module).__name__
    if kind == "_OutputOp":
        return "they are the network's answer"
    if kind == "_ConcatOp":
        return "" if getattr(node.grad_fn, "_saved_dim", 1) == 1 else "they are joined otherwise"
    if kind == "_ReshapeOp":
        sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", None)
        return "" if sizes is None or len(sizes) in (2, 4) else "they are rearranged"
    if kind == "_ElementWiseOp":
        name = re.sub(r"backward\d*$", "", str(module._grad_fn).lower()).strip("_")
        if not node.inputs:  # what is done to a weight, before anything meets it
            return ""
        if name == "mean":
            dims = {int(dim) % 2**64 for dim in node.grad_fn._saved_dim}
            return "" if dims <= {2, 3, 2**64 - 1, 2**64 - 2} else "they are averaged"
        return "" if name in _BY_CHANNEL else f"they pass through {name}"
    return f"they pass through {place.path or kind.strip('_')}"


def _group(graph: Any, module: nn.Module) -> Any:
    pruner = graph.get_pruner_of_module(module)
    channels = list(range(pruner.get_out_channels(module)))
    return graph.get_pruning_group(module, pruner.prune_out_channels, channels)


def _dependency_graph(model: nn.Module, size: tuple[int, int], name: str) -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise OptionError(
            "removing channels needs the package torch-pruning: pip install 'fc7[prune]'"
        ) from error
    images = torch.zeros(1, 3, *size)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            return torch_pruning.DependencyGraph().build_dependency(model, images, verbose=False)
    except Exception as error:  # it follows whatever the network's own code does
        raise ModelError(
            f"torch-pruning cannot follow {name} from layer to layer: {first_line(error)}"
        ) from error
