"""A training run's state as files: weights, buffers, what the optimizer remembers, and progress.

    save_training(folder, model, optimizer, {"steps": torch.tensor(12)})
    load_training(folder, model, optimizer)["steps"]

With all of it back, and random numbers that are functions of the step, training goes on as if it
had not been stopped. Nothing but tensors is written, and nothing read is run.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fc7.engine.models.state import fit_state, read_state, write_state

_MODEL, _OPTIMIZER, _PROGRESS = "model.", "optimizer.", "progress."
_FILE = "state.safetensors"


def save_training(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Mapping[str, Tensor]
) -> None:
    """Write a model, its optimizer and named tensors of progress into a folder.

    Args:
        folder: an empty folder.
        model: the network.
        optimizer: over its parameters. Its tensors are kept; its options are the caller's to give
            again.
        progress: whatever else the caller needs to go on.

    Raises:
        OSError: the disk is full, or the file cannot be written for another reason.
    """
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    for number, kept in optimizer.state_dict()["state"].items():
        for name, value in kept.items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{number}.{name}"] = value
    tensors |= {f"{_PROGRESS}{name}": tensor for name, tensor in progress.items()}
    write_state(folder / _FILE, tensors)


def load_training(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Put a model and its optimizer back into the state that was written; return the progress.

    Args:
        folder: where `save_training` wrote.
        model: of the same architecture; changed in place.
        optimizer: made in the same way over the model's parameters; changed in place.

    Raises:
        ModelError: the files are damaged, or of another model.
    """
    file = folder / _FILE
    tensors = read_state(file)
    fit_state(model, _under(tensors, _MODEL), str(file), "the network in training")
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(tensors, _OPTIMIZER).items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return _under(tensors, _PROGRESS)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
