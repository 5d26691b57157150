"""Networks by name: torchvision's classifiers, the built-in ones, and a function of one's own."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fc7.engine.data.transform import Transform
from fc7.engine.errors import ModelError
from fc7.engine.models.bare import (
    PORTED,
    build_torchvision,
    seeded,
    tiny_names,
    torchvision_names,
)
from fc7.engine.models.dryrun import Observer, dry_run
from fc7.engine.models.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Network,
    Precision,
    first_line,
)
from fc7.engine.models.own import call_own
from fc7.engine.models.pruned import SUFFIX, Pruned, build_pruned, network_in, read_pruned
from fc7.engine.models.state import fit_state, read_state

# Sides in pixels to try on a network that does not say which it takes, the usual one first.
_SIDES = (224, 256, 299, 384, 32, 64, 96, 128, 28, 48)
_SMALL_SIDE = 96
_NATIVE_SIDE = {"inception_v3": 299}


@dataclass(frozen=True)
class _Recipe:
    """A bare model with what its weights say of images and classes; None where they say nothing."""

    model: nn.Module
    weights: str
    seed: int | None = None
    transform: Transform | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    labels: tuple[str, ...] | None = None


def load_model(
    name: str,
    weights: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "fp32",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    crop: int | None = None,
) -> Network:
    """Return a frozen network.

    The transform is the one the weights were trained for, where they are torchvision's own;
    otherwise the short side becomes 256 pixels and the middle 224 x 224 are kept (built-in
    networks: their own size; others that do not take 224 pixels: the first common size that they
    take), normalised as ImageNet unless `mean` and `std` say otherwise.

    Args:
        name: a torchvision classifier ("alexnet"), "tiny-shapes" or "tiny-cifar10", or
            "module:function", a function without arguments that returns an nn.Module; the module
            is looked for in the current folder, then among those installed. Or a file that
            `fc7 prune` has written, "pruned.safetensors": a network and its weights.
        weights: None or "default" for the best that torchvision has (downloaded once) or for what
            a built-in network or a function comes with; a name of torchvision's
            ("IMAGENET1K_V2"); "random"; or a file, `.safetensors` or a state dict of torch.save.
        seed: draws the random weights, and is set while a function of one's own runs.
        device: as torch names it, or "auto".
        precision: of weights and activations: fp32, bf16 or fp16.
        mean: per channel of an image in [0, 1], instead of the weights' own.
        std: likewise.
        resize: pixels of the short side, instead of the weights' own; 0 leaves the size alone.
        crop: side of the centre crop in pixels, instead of the weights' own.

    Raises:
        ModelError: no such network or weights, a download that failed, a file that does not fit.
    """
    asked = "default" if weights is None else str(weights)
    if name.endswith(SUFFIX):
        name, asked = network_in(name, asked), name
    pruned = read_pruned(Path(asked).expanduser()) if _is_safetensors(asked) else None
    if pruned is not None:
        recipe = _pruned(pruned, name, Path(asked).expanduser())
    elif ":" in name:
        recipe = _own(name, asked, seed)
    elif name in tiny_names():
        recipe = _tiny(name, asked, seed)
    elif name in torchvision_names():
        recipe = _torchvision(name, asked, seed)
    else:
        names = [*tiny_names(), *torchvision_names()]
        close = difflib.get_close_matches(name, names, n=4) or names[:6]
        raise ModelError(
            f"no network {name!r}; did you mean {', '.join(close)}? Any torchvision classifier, "
            f"{', '.join(tiny_names())} and module:function will do"
        )
    file = Path(asked).expanduser()
    transform = recipe.transform or _usual_transform(_side(name, recipe.model))
    if resize is not None:
        transform = replace(transform, resize=resize or None)
    if crop is not None:
        transform = replace(transform, crop=crop)
    return Network(
        recipe.model,
        name,
        weights=recipe.weights,
        transform=transform,
        mean=recipe.mean if mean is None else mean,
        std=recipe.std if std is None else std,
        labels=recipe.labels,
        seed=recipe.seed,
        device=device,
        precision=precision,
        file=file.resolve() if file.is_file() else None,
    )


def _tiny(name: str, asked: str, seed: int) -> _Recipe:
    from fc7.engine.models.tiny import TINY, build_tiny, load_tiny

    config = TINY[name]
    label = asked
    if asked == "default":
        model: nn.Module = load_tiny(name)
    else:
        with seeded(seed):
            model = build_tiny(name)
        if asked != "random":
            file = _file(asked, f"{name}: give default, random or an existing file")
            fit_state(model, read_state(file), str(file), name)
            label = file.name
    return _Recipe(
        model,
        label,
        seed=seed if asked == "random" else None,
        transform=Transform(
            resize=config.input_size[0],
            crop=config.input_size[0],
            interpolation="bilinear",
            antialias=True,
        ),
        mean=config.mean,
        std=config.std,
        labels=config.labels,
    )


def _torchvision(name: str, asked: str, seed: int) -> _Recipe:
    from torchvision.models import get_model_weights

    choices = {entry.name: entry for entry in get_model_weights(name)}
    if asked == "random":
        with seeded(seed):
            return _Recipe(build_torchvision(name), "random", seed=seed)
    entry = get_model_weights(name).DEFAULT if asked == "default" else choices.get(asked.upper())
    if entry is not None:
        return _published(name, entry, _download(name, entry))
    hint = f"{name}: give default, random, {', '.join(choices)} or an existing file"
    file = _file(asked, hint)
    state = read_state(file)
    for entry in choices.values():
        # torchvision's own file under its own name, as someone without a network brings it along.
        if entry.url.rsplit("/", 1)[-1] == file.name:
            return _published(name, entry, _filled(name, state, file, **_options(name, entry)))
    return _Recipe(_filled(name, state, file), file.name)


def _published(name: str, entry: Any, model: nn.Module) -> _Recipe:
    """Describe weights that torchvision published by what it published with them."""
    preset = entry.transforms()
    return _Recipe(
        model,
        entry.name,
        transform=Transform(
            resize=int(preset.resize_size[0]),
            crop=int(preset.crop_size[0]),
            interpolation=preset.interpolation.value,
            antialias=bool(preset.antialias),
        ),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        labels=tuple(entry.meta["categories"]),
    )


def _options(name: str, entry: Any) -> dict[str, Any]:
    options: dict[str, Any] = dict(PORTED.get(name, {}))
    if name.startswith("vit_"):
        options["image_size"] = entry.meta["min_size"][0]
    return options


def _filled(name: str, state: dict[str, Tensor], file: Path, **options: Any) -> nn.Module:
    """Build the network for as many classes as the file's weights have, and fill it with them.

    It is built on the meta device and takes over the file's tensors, so the weights are in memory
    once and none is drawn to be overwritten. Where something is not in the file (a constant of
    the model's own making), or the model cannot be built so, it is built for real.
    """
    with suppress(NotImplementedError, RuntimeError), torch.device("meta"):
        model = _sized(name, state, **options)
        fit_state(model, state, str(file), name, assign=True)
        if not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
            return model
    with seeded(0):
        model = _sized(name, state, **options)
    fit_state(model, state, str(file), name)
    return model


def _sized(name: str, state: Mapping[str, Tensor], **options: Any) -> nn.Module:
    model = build_torchvision(name, **options)
    last, expected = list(model.state_dict().items())[-1]
    if last in state and state[last].ndim and len(state[last]) != len(expected):
        model = build_torchvision(name, **options, num_classes=len(state[last]))
    return model


def _download(name: str, entry: Any) -> nn.Module:
    from torchvision.models import get_model

    try:
        with seeded(0):
            model: nn.Module = get_model(name, weights=entry, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"cannot get the weights {entry.name} of {name} from {entry.url} "
            f"({first_line(error)}); ask for random ones (--weights random) or bring a file "
            f"(--weights FILE)"
        ) from error
    return model


def _own(name: str, asked: str, seed: int) -> _Recipe:
    if asked == "random":
        raise ModelError(
            f"{name} makes its own weights; leave the weights out, or name a file of them"
        )
    with seeded(seed):
        model = call_own(name)
    if asked == "default":
        return _Recipe(model, "own", seed=seed)
    file = _file(asked, f"{name}: leave them out, or give an existing file")
    fit_state(model, read_state(file), str(file), name)
    return _Recipe(model, file.name)


def _is_safetensors(asked: str) -> bool:
    return asked.endswith(SUFFIX) and Path(asked).expanduser().is_file()


def _pruned(pruned: Pruned, name: str, file: Path) -> _Recipe:
    """Build a network with channels removed from the file that holds it."""
    if pruned.network != name:
        raise ModelError(f"{file} is a smaller {pruned.network}, not {name}; give it as the model")
    model = build_pruned(pruned, read_state(file), str(file))
    return _Recipe(
        model,
        file.name,
        transform=pruned.transform,
        mean=pruned.mean,
        std=pruned.std,
        labels=pruned.labels,
    )


def _file(asked: str, hint: str) -> Path:
    file = Path(asked).expanduser()
    if not file.is_file():
        raise ModelError(f"no weights {asked!r} for {hint}")
    return file


def _side(name: str, model: nn.Module) -> int:
    """Return the first common side in pixels on which the network runs."""
    if name in _NATIVE_SIDE:
        return _NATIVE_SIDE[name]
    reason: Exception | None = None
    for side in _SIDES:
        try:
            dry_run(model.eval(), (side, side), Observer)
        except Exception as error:
            reason = reason or error
        else:
            return side
    sides = ", ".join(map(str, _SIDES))
    assert reason is not None
    raise ModelError(
        f"{name} runs on square images of none of {sides} pixels; at {_SIDES[0]}: "
        f"{first_line(reason)}"
    ) from reason


def _usual_transform(side: int) -> Transform:
    """ImageNet's: the middle 224 of 256 pixels. Small images are seldom cropped: all of them."""
    resize = side if side <= _SMALL_SIDE else round(side * 256 / 224)
    return Transform(resize=resize, crop=side, interpolation="bilinear", antialias=True)
