"""The layers of a network: found by watching one pass, and named as the literature names them.

A layer is what one module returned. Every module that returns a tensor with one row an image can
be asked for by its path ("features.10"); the tables below add the names people use ("conv5").
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fc7.engine.errors import LayerError
from fc7.engine.models.dryrun import Observer, dry_run

_NAMES_SHOWN = 40


@dataclass(frozen=True)
class Layer:
    """What one module of a network returns.

    Args:
        name: the name it was asked for by: a canonical name or the path itself.
        path: of the module, as in `named_modules`.
        kind: the module's class name.
        shape: of one image's output: (C, H, W), (D,), or whatever the module returns.
        dtype: of the output, and so of what a tap sees.
        rectified: the output goes straight into a ReLU, as a module or as a function.
        calls: how often the module runs in one pass; the layer is what the last call returned.
    """

    name: str
    path: str
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    rectified: bool
    calls: int = 1

    @property
    def is_spatial(self) -> bool:
        """Whether one image's output has three axes, (C, H, W)."""
        return len(self.shape) == 3


def _same(names: str) -> dict[str, str]:
    return {name: name for name in names.split()}


# What the outline of a network (see `_outline`) does not name by itself, by class of network.
FAMILIES: Mapping[str, Mapping[str, str]] = {
    "AlexNet": {
        "conv1": "features.0",
        "relu1": "features.1",
        "pool1": "features.2",
        "conv2": "features.3",
        "relu2": "features.4",
        "pool2": "features.5",
        "conv3": "features.6",
        "relu3": "features.7",
        "conv4": "features.8",
        "relu4": "features.9",
        "conv5": "features.10",
        "relu5": "features.11",
        "pool5": "features.12",
        "fc6": "classifier.1",
        "relu6": "classifier.2",
        "fc7": "classifier.4",
        "relu7": "classifier.5",
        "fc8": "classifier.6",
    },
    "VGG": {
        "fc6": "classifier.0",
        "relu6": "classifier.1",
        "fc7": "classifier.3",
        "relu7": "classifier.4",
        "fc8": "classifier.6",
    },
    "ResNet": _same("layer1 layer2 layer3 layer4"),
    "ShuffleNetV2": _same("stage2 stage3 stage4"),
    "DenseNet": {
        "conv1": "features.conv0",
        "denseblock1": "features.denseblock1",
        "transition1": "features.transition1",
        "denseblock2": "features.denseblock2",
        "transition2": "features.transition2",
        "denseblock3": "features.denseblock3",
        "transition3": "features.transition3",
        "denseblock4": "features.denseblock4",
        "fc": "classifier",
    },
    "SqueezeNet": {"conv1": "features.0", "conv10": "classifier.1", "avgpool": "classifier.3"},
    "MobileNetV2": {"fc": "classifier.1"},
    "MobileNetV3": {"fc": "classifier.3"},
    "EfficientNet": {"fc": "classifier.1"},
    "MNASNet": {"fc": "classifier.1"},
    "ConvNeXt": {"fc": "classifier.2"},
    "RegNet": {f"layer{stage}": f"trunk_output.block{stage}" for stage in range(1, 5)},
    "VisionTransformer": {"fc": "heads.head"},
    "SwinTransformer": {"fc": "head"},
    "MaxVit": {"fc": "classifier.5"},
}

# They say nothing that the layer before them has not said.
_TRANSPARENT = (nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Identity)


def find_layers(model: nn.Module, size: tuple[int, int]) -> dict[str, Layer]:
    """Return every layer by path, in the order in which their (last) calls end.

    Args:
        model: a network in evaluation mode.
        size: height and width in pixels of the images that pass through it.

    Raises:
        Exception: what the model itself raises on images of that size.
    """
    recorder = dry_run(model, size, _Recorder, batch=_Recorder.BATCH)
    modules = dict(model.named_modules())
    return {
        path: Layer(
            name=path,
            path=path,
            kind=type(modules[path]).__name__,
            shape=tuple(output.shape[1:]),
            dtype=output.dtype,
            rectified=path in recorder.rectified,
            calls=recorder.calls[path],
        )
        for path, output in recorder.outputs.items()
    }


def name_layers(model: nn.Module, found: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return the layers worth listing under the names worth listing, in order of execution.

    Args:
        model: the network.
        found: its layers by path, from `find_layers`.
    """
    names = _aliases(model)
    named = set(names.values())
    names |= {path: path for path in _outline(model) if path not in named}
    order = {path: place for place, path in enumerate(found)}
    known = ((name, path) for name, path in names.items() if path in found)
    return {
        name: replace(found[path], name=name)
        for name, path in sorted(known, key=lambda pair: order[pair[1]])
    }


def resolve(
    name: str, network: str, named: Mapping[str, Layer], found: Mapping[str, Layer]
) -> Layer:
    """Return the layer of that name or path.

    Args:
        name: a canonical name, or a module path.
        network: the network's name, for the message.
        named: layers by canonical name.
        found: layers by path.

    Raises:
        LayerError: there is none; the message lists the right names, the closest first.
    """
    if name in named:
        return named[name]
    if name in found:
        return found[name]
    close = difflib.get_close_matches(str(name), [*named, *found], n=4, cutoff=0.6)
    # A path may also be the canonical layer's own: one of the two is hint enough.
    hint = f" (close: {', '.join(dict.fromkeys(close))})" if close else ""
    shown = list(named or found)
    more = f", ... {len(shown) - _NAMES_SHOWN} more" if len(shown) > _NAMES_SHOWN else ""
    raise LayerError(
        f"{network} has no layer {name!r}{hint}; it has {', '.join(shown[:_NAMES_SHOWN])}{more}, "
        f"and any module path"
    )


def _aliases(model: nn.Module) -> dict[str, str]:
    family = type(model).__name__
    features = getattr(model, "features", None)
    convolutions = (
        _vgg_names(features) if family == "VGG" and isinstance(features, nn.Module) else {}
    )
    return convolutions | dict(FAMILIES.get(family, {}))


def _vgg_names(features: nn.Module) -> dict[str, str]:
    """Name VGG's convolutions conv1_1 to conv5_4 (Simonyan and Zisserman, 2015), block by block.

    The eight variants differ in convolutions a block and in batch normalisation, so the names are
    counted off; conv5 and relu5 are short for the last of block 5.
    """
    names: dict[str, str] = {}
    block, position = 1, 0
    for key, module in features.named_children():
        path = f"features.{key}"
        if isinstance(module, nn.MaxPool2d):
            names[f"pool{block}"] = path
            block, position = block + 1, 0
            continue
        if isinstance(module, nn.Conv2d):
            position += 1
            kind = "conv"
        else:
            kind = "bn" if isinstance(module, nn.BatchNorm2d) else "relu"
        names[f"{kind}{block}_{position}"] = path
        if kind != "bn":
            names.pop(f"{kind}{block}", None)
            names[f"{kind}{block}"] = path
    return names


def _outline(model: nn.Module, prefix: str = "") -> Iterator[str]:
    """Yield the paths of the parts of a network, seeing through plain sequences."""
    for key, module in model.named_children():
        if type(module) is nn.Sequential:
            yield from _outline(module, f"{prefix}{key}.")
        elif not isinstance(module, _TRANSPARENT):
            yield f"{prefix}{key}"


class _Recorder(Observer):
    """Keeps the last output of every module, and which of them a ReLU reads."""

    # Two images, so that an output whose rows are windows or tokens is told from one a row each.
    BATCH = 2

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}
        self.rectified: set[str] = set()
        # By identity of a tensor: the modules whose output it is as it stands. The tensor is kept
        # with them, or another could take its identity.
        self._makers: dict[int, tuple[Tensor, list[str]]] = {}

    def leave(self, path: str, output: Any) -> None:
        self.outputs.pop(path, None)
        self.rectified.discard(path)
        self.calls[path] = self.calls.get(path, 0) + 1
        if isinstance(output, Tensor) and output.ndim > 1 and len(output) == self.BATCH:
            self.outputs[path] = output
            self._makers.setdefault(id(output), (output, []))[1].append(path)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("relu", "relu_") and args:
            _, makers = self._makers.get(id(args[0]), (None, []))
            self.rectified.update(makers)
            if result is args[0]:
                # Rectified in place: from here on it is no longer what they returned.
                makers.clear()
        return result
