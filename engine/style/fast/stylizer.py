"""A trained transformer network as one file, and as what gives images its styles.

The file is safetensors. Its metadata has one entry, `fc7.stylizer`, a JSON object:

    format          1
    architecture    width, blocks and norm; see `Architecture`
    styles          by name, in the order of the network's rows: a small WebP picture, as base64
    made            how it came about, for people

Nothing read is run, and nothing is built larger than the file's own tensors.
"""

import base64
import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fc7.engine.errors import ModelError, OptionError
from fc7.engine.models.network import device_named, first_line
from fc7.engine.models.state import digest_of, read_state, write_state
from fc7.engine.style.fast.transformer import Architecture, Transformer
from fc7.engine.style.grams import mixture

SUFFIX = ".safetensors"
ALL = "all"
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # also a word of an output's name, and of a command
_KEY, _FORMAT = "fc7.stylizer", 1
_CURE = "fc7 stylize train makes such a network"


@dataclass(frozen=True)
class Stylizer:
    """A network that gives images one of its styles, or a mixture of them.

    Attributes:
        model: on the device that computes; frozen.
        styles: by name, in the order of the network's rows: a small picture of each, a WebP file.
        made: how it came about, for people.
        file: that it was read from, or None.
    """

    model: Transformer
    styles: Mapping[str, bytes]
    made: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.last.weight.device

    @cached_property
    def digest(self) -> str:
        """The sha256 of the weights, as hex."""
        return digest_of(self.model)

    def shares(self, words: str | None = None) -> tuple[float, ...]:
        """Return shares of the styles that add up to 1, (S,).

        Args:
            words: a style's name, or several with weights, such as "scream=2,waves=1"; the only
                style there is if None.

        Raises:
            OptionError: there is no such style, or it comes twice, or weights are no numbers of 0
                or more.
        """
        if words is None:
            if len(self.styles) > 1:
                raise OptionError(f"which style? name one or several of {self._names}")
            return (1.0,)
        weights, named = dict.fromkeys(self.styles, 0.0), set[str]()
        for word in words.split(","):
            name, equals, number = map(str.strip, word.partition("="))
            if name not in weights:
                raise OptionError(f"no style {name!r}; the network has {self._names}")
            if name in named:
                raise OptionError(f"the style {name} is named twice; once will do")
            named.add(name)
            try:
                weights[name] = float(number) if equals else 1.0
            except ValueError:
                raise OptionError(f"{word!r} has no weight; write NAME=WEIGHT") from None
        return tuple(mixture(len(weights), list(weights.values())))

    def __call__(self, images: Tensor, shares: tuple[float, ...] | None = None) -> Tensor:
        """Return images (N, 3, H, W) in [0, 1] in a style, likewise, in one pass.

        Args:
            images: on any device, of any height and width.
            shares: of the styles, (S,); the only one there is if None.
        """
        shares = self.shares() if shares is None else shares
        own = images.detach().to(self.device, torch.float32).contiguous()
        rows = torch.tensor([shares], device=self.device).expand(len(own), -1)
        with torch.inference_mode():
            found: Tensor = self.model(own, rows)
        return found

    @property
    def _names(self) -> str:
        return ", ".join(self.styles)


def save_stylizer(stylizer: Stylizer, file: Path) -> None:
    """Write the file; whoever calls sees to it that it appears whole.

    Raises:
        OSError: the disk is full, or the file cannot be written for another reason.
    """
    architecture = dataclasses.asdict(stylizer.model.architecture)
    del architecture["styles"]  # the names are as many
    said = {
        "format": _FORMAT,
        "architecture": architecture,
        "styles": [
            {"name": name, "picture": base64.b64encode(picture).decode()}
            for name, picture in stylizer.styles.items()
        ],
        "made": dict(stylizer.made),
    }
    write_state(file, stylizer.model.state_dict(), {_KEY: json.dumps(said, sort_keys=True)})


def load_stylizer(file: str | Path, device: str = "auto") -> Stylizer:
    """Read a network that `save_stylizer` wrote.

    Raises:
        ModelError: there is no such file, it is none of these, or its tensors are not those of the
            network that it names.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise ModelError(f"there is no file {file}; {_CURE}")
    if file.suffix != SUFFIX:
        raise ModelError(f"{file} is no {SUFFIX} file; {_CURE}")
    architecture, styles, made = _said(file)
    state = read_state(file)
    with torch.device("meta"):
        model = Transformer(architecture)
    _check(model, state, file)
    model.load_state_dict(state, assign=True)
    model = model.eval().requires_grad_(False).to(device_named(device))
    return Stylizer(model, styles, made, file)


def _said(file: Path) -> tuple[Architecture, dict[str, bytes], dict[str, Any]]:
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            text = (opened.metadata() or {}).get(_KEY)
    except Exception as error:  # a hostile file fails in more ways than are documented
        raise ModelError(f"cannot read {file}: {first_line(error)[:200]}; {_CURE}") from error
    if text is None:
        raise ModelError(f"{file} holds no network of styles; {_CURE}")
    try:
        said = json.loads(text)
        if said["format"] != _FORMAT:
            raise ValueError(f"format {said['format']}, this fc7 reads {_FORMAT}")
        styles = {
            str(style["name"]): base64.b64decode(style["picture"], validate=True)
            for style in said["styles"]
        }
        if not all(_NAME.fullmatch(name) for name in styles) or ALL in styles:
            raise ValueError("a style's name is of letters, digits, _ and -")
        if len(styles) < len(said["styles"]):
            raise ValueError("two styles of one name")
        parts = said["architecture"]
        width, blocks = int(parts["width"]), int(parts["blocks"])
        architecture = Architecture(width, blocks, str(parts["norm"]), len(styles))
        architecture.check()
        return architecture, styles, dict(said["made"])
    except (
        ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, OptionError
    ) as error:  # fmt: skip
        raise ModelError(
            f"{file} does not say what network it holds ({first_line(error)[:200]}); {_CURE}"
        ) from error


def _check(model: Transformer, state: Mapping[str, Tensor], file: Path) -> None:
    """Refuse tensors that are not the network's."""
    wanted = model.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in state]
    faults += [f"{name} is not its own" for name in state if name not in wanted]
    for name, tensor in state.items():
        own = wanted.get(name)
        if own is None:
            continue
        if (own.shape, own.dtype) != (tensor.shape, tensor.dtype):
            faults.append(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)} instead of {own.dtype} "
                f"{tuple(own.shape)}"
            )
        elif not torch.isfinite(tensor).all():
            faults.append(f"{name} has values that are no numbers")
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise ModelError(
            f"the weights in {file} are not of the network that it names: {faults[0]}{more}; "
            f"{_CURE}"
        )
