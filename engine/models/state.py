"""The tensors of a network as files hold them, and as one number that stands for them all."""

import hashlib
import os
import re
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fc7.engine.errors import ModelError

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
# Classifiers that only training uses; torchvision's own files of GoogLeNet and Inception have them.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_FAULTS_SHOWN = 3


def read_state(file: Path) -> dict[str, Tensor]:
    """Return the named tensors of a weights file, on the CPU.

    Args:
        file: `.safetensors`, or anything else as `torch.save` writes it: a state dict, or a
            checkpoint that holds one under "state_dict". Only tensors are read, never code.

    Raises:
        ModelError: the file is not such a file.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file fails in more ways than torch documents
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"cannot read weights from {file}: {reason[:200]}; give a .safetensors file or a "
            f"state dict saved by torch.save"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = content if isinstance(content, Mapping) else {}
    state = {str(key): value for key, value in tensors.items() if isinstance(value, Tensor)}
    if not state:
        raise ModelError(f"{file} holds no named tensors; save the network's state_dict()")
    for prefix in (*_PREFIXES, *_PREFIXES):  # one may lie within another
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def write_state(
    file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors, and text beside them, as a `.safetensors` file.

    Raises:
        OSError: the disk is full, or the file cannot be written for another reason.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Copies, for the format knows no tensors that share memory.
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, file, dict(metadata) if metadata else None)
    except SafetensorError as error:
        # What the system said has become text there; whoever catches it wants to know which it was.
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def fit_state(
    model: nn.Module, state: Mapping[str, Tensor], source: str, name: str, assign: bool = False
) -> None:
    """Copy the tensors into the model.

    Args:
        model: the network; changed in place.
        state: named tensors. Auxiliary classifiers that the model does not have are left out, and
            BatchNorm's step counters, which old files lack, may be missing.
        source: where the tensors are from, for the message.
        name: the network's name, for the message.
        assign: let the model take over the tensors themselves instead of copies.

    Raises:
        ModelError: names or shapes differ; the message has the first few of each.
    """
    expected = model.state_dict()
    faults: list[str] = []
    missing = [
        f"{key} {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key not in state and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in expected and not key.startswith(_AUXILIARY)]
    reshaped = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    for title, names in (("missing", missing), ("unexpected", unexpected), ("shape", reshaped)):
        if names:
            more = f" and {len(names) - _FAULTS_SHOWN} more" if len(names) > _FAULTS_SHOWN else ""
            faults.append(f"{title}: {', '.join(names[:_FAULTS_SHOWN])}{more}")
    if faults:
        raise ModelError(f"the weights in {source} are not of {name}; {'; '.join(faults)}")
    filled = OrderedDict((key, state[key]) for key in expected if key in state)
    # Versions of the modules' formats; MNASNet cannot be loaded without its own.
    filled._metadata = getattr(expected, "_metadata", {})  # type: ignore[attr-defined]
    model.load_state_dict(filled, strict=False, assign=assign)


def digest_of(model: nn.Module) -> str:
    """Return the sha256, in hex, of the names, shapes, dtypes and bytes of the model's state.

    It depends on the numbers only: not on the device, the memory format or the order of names.
    """
    summary = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue
        header = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        summary.update(struct.pack("<q", len(header)) + header)
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        summary.update(flat.view(torch.uint8).numpy().data)
    return summary.hexdigest()
