"""A network with channels removed, as one file: its tensors, and what to build to hold them.

The file is safetensors. Its metadata has one entry, `fc7.pruned`, a JSON object:

    format      1
    network     the name of the network it was made from, as `load_model` takes it
    options     of the function that builds it (torchvision's)
    groups      groups of the convolutions that have more than one, by path
    transform, mean, std, labels        as the network's own
    made        how it came about, for people

Loading builds the named network, gives each convolution, normalisation and linear layer the shapes
that the file has, and fills it. So it keeps the modules' paths, and with them the layers' names.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import ModelError
from fc7.engine.models.bare import PORTED, build_bare
from fc7.engine.models.network import Network, first_line
from fc7.engine.models.own import is_in_current_folder
from fc7.engine.models.state import fit_state, write_state

SUFFIX = ".safetensors"
_KEY, _FORMAT = "fc7.pruned", 1
_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Pruned:
    """What a file says beside its tensors; see the module."""

    network: str
    options: Mapping[str, Any]
    groups: Mapping[str, int]
    transform: Transform
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: tuple[str, ...] | None
    made: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, groups: Mapping[str, int], made: Mapping[str, Any]) -> "Pruned":
        """Describe what is made from a network."""
        options = {
            name: bool(getattr(network.model, name, False)) for name in PORTED.get(network.name, {})
        }
        return cls(
            network.name,
            options,
            groups,
            network.transform,
            network.mean,
            network.std,
            network.labels,
            made,
        )


def save_pruned(file: Path, pruned: Pruned, state: Mapping[str, Tensor]) -> None:
    """Write the file; whoever calls sees to it that it appears whole."""
    said = {
        "format": _FORMAT,
        "network": pruned.network,
        "options": dict(pruned.options),
        "groups": dict(pruned.groups),
        "transform": pruned.transform.to_dict(),
        "mean": list(pruned.mean),
        "std": list(pruned.std),
        "labels": pruned.labels,
        "made": dict(pruned.made),
    }
    write_state(file, state, {_KEY: json.dumps(said, sort_keys=True)})


def read_pruned(file: Path) -> Pruned | None:
    """Return what a file says beside its tensors; None for a file of weights and nothing else.

    Raises:
        ModelError: it is not a safetensors file, or what it says cannot be understood.
    """
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            text = (opened.metadata() or {}).get(_KEY)
    except Exception as error:  # a hostile file fails in more ways than are documented
        raise ModelError(
            f"cannot read weights from {file}: {first_line(error)[:200]}; a network without "
            "channels is made by fc7 prune"
        ) from error
    if text is None:
        return None
    try:
        said = json.loads(text)
        if said["format"] != _FORMAT:
            raise ValueError(f"format {said['format']}, this fc7 reads {_FORMAT}")
        mean, std = ([float(number) for number in said[key]] for key in ("mean", "std"))
        labels = said["labels"]
        return Pruned(
            str(said["network"]),
            {str(name): bool(value) for name, value in said["options"].items()},
            {str(path): int(count) for path, count in said["groups"].items()},
            Transform.from_dict(said["transform"]),
            (mean[0], mean[1], mean[2]),
            (std[0], std[1], std[2]),
            None if labels is None else tuple(map(str, labels)),
            dict(said["made"]),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ModelError(
            f"{file} does not say what network it holds ({first_line(error)[:200]}); make it again "
            "with fc7 prune"
        ) from error


def network_in(name: str, asked: str) -> str:
    """Return the name of the network that a file holds with its weights.

    Args:
        name: the file.
        asked: the weights that were asked for beside it: "default", or there are two.

    Raises:
        ModelError: there is no such file, or it does not say which network it holds, or that is a
            function of one's own that is not in the current folder.
    """
    file = Path(name).expanduser()
    if not file.is_file():
        raise ModelError(f"there is no file {name}; fc7 prune makes such a network")
    if asked != "default":
        raise ModelError(f"{name} holds its own weights; leave the weights out")
    pruned = read_pruned(file)
    if pruned is None:
        raise ModelError(
            f"{name} holds weights, and does not say of which network; give them as weights "
            "(--model NAME --weights FILE)"
        )
    # A file that somebody sent must not choose which code runs here.
    if ":" in pruned.network and not is_in_current_folder(pruned.network):
        raise ModelError(
            f"{name} is of {pruned.network}, which is not in the current folder; name it yourself "
            f"(--model {pruned.network} --weights {name})"
        )
    return pruned.network


def build_pruned(pruned: Pruned, state: Mapping[str, Tensor], source: str) -> nn.Module:
    """Build the smaller network and fill it.

    Args:
        pruned: what it is.
        state: its tensors.
        source: where they are from, for messages.

    Raises:
        ModelError: the tensors are not of such a network.
    """
    name, options = pruned.network, pruned.options
    try:
        if ":" not in name:  # without memory or drawing weights, where that works
            with suppress(NotImplementedError, RuntimeError), torch.device("meta"):
                model = build_bare(name, **options)
                reshape(model, state, pruned.groups, source)
                fit_state(model, state, source, name, assign=True)
                if not any(one.is_meta for one in (*model.parameters(), *model.buffers())):
                    return model
        model = build_bare(name, **options)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{source} is of {name}, which cannot be built: {first_line(error)}"
        ) from error
    reshape(model, state, pruned.groups, source)
    fit_state(model, state, source, name)
    return model


def reshape(
    model: nn.Module, state: Mapping[str, Tensor], groups: Mapping[str, int], source: str
) -> None:
    """Give convolutions, normalisations and linear layers the shapes of the tensors; in place.

    Their values are lost. Whether everything fits then is for `fit_state` to say.

    Args:
        model: the network.
        state: named tensors.
        groups: of convolutions, where there is more than one, by path.
        source: where the tensors are from, for messages.

    Raises:
        ModelError: channels cannot be divided into that many groups.
    """
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        tensors = {key: state[prefix + key] for key in _TENSORS if prefix + key in state}
        weight = tensors.get("weight")
        if isinstance(module, nn.Conv2d) and weight is not None and weight.ndim == 4:
            count = groups.get(path, 1)
            if count < 1 or len(weight) % count:
                raise ModelError(
                    f"{source}: the {len(weight)} channels of {path} are not {count} groups"
                )
            module.out_channels, module.groups = len(weight), count
            module.in_channels = weight.shape[1] * count
        elif isinstance(module, nn.Linear) and weight is not None and weight.ndim == 2:
            module.out_features, module.in_features = weight.shape
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            sizes = {tensor.numel() for tensor in tensors.values()}
            module.num_features = sizes.pop() if len(sizes) == 1 else module.num_features
        else:
            continue
        for key, tensor in tensors.items():
            old = getattr(module, key, None)
            if isinstance(old, Tensor) and old.shape != tensor.shape:
                new = torch.empty(tensor.shape, dtype=old.dtype, device=old.device)
                parameter = nn.Parameter(new, requires_grad=old.requires_grad)
                setattr(module, key, parameter if isinstance(old, nn.Parameter) else new)
