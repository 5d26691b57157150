"""Runs a network to watch it, without computing it.

Shapes, names and the order of execution do not depend on the weights, so they are read off a
copy whose tensors live on torch's meta device: no memory, no arithmetic, a VGG in milliseconds. A
model that cannot run there (it makes tensors of its own, or looks at values) runs for real, once.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Observer(TorchFunctionMode):
    """Sees what happens in one forward pass.

    As a function mode it sees each torch function that runs; the two methods tell it where in the
    network that is.
    """

    def begin(self, model: nn.Module, images: Tensor) -> None:
        """Take note of the model about to run and of its input, (N, 3, H, W)."""

    def leave(self, path: str, output: Any) -> None:
        """Take note of what the module at `path` has just returned."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


class Stop(BaseException):
    """Ends a pass early. Not an Exception, so that no `except Exception` in a model keeps it."""


Watcher = TypeVar("Watcher", bound=Observer)


def skeleton(model: nn.Module) -> nn.Module:
    """Return a copy of the model with every parameter and buffer on the meta device."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    return copy.deepcopy(model, memo)


def dry_run(
    model: nn.Module,
    size: tuple[int, int],
    observer: Callable[[], Watcher],
    batch: int = 1,
    for_real: bool = True,
) -> Watcher:
    """Pass zeros, (batch, 3, *size), through the model and return the observer that watched.

    Args:
        model: a network in evaluation mode; it is not changed.
        size: height and width in pixels.
        observer: makes a fresh observer; called once for each attempt.
        batch: the number of images.
        for_real: whether to run the model itself where its skeleton does not run.

    Raises:
        Exception: what the model raises on such an input.
    """
    try:
        return _watch(skeleton(model), size, observer(), batch)
    except Exception:
        if not for_real:
            raise
        return _watch(model, size, observer(), batch)


def _watch(model: nn.Module, size: tuple[int, int], observer: Watcher, batch: int) -> Watcher:
    images = _zeros(model, (batch, 3, *size))
    with ExitStack() as stack:
        for path, module in model.named_modules():
            if path:
                stack.callback(module.register_forward_hook(_leaving(observer, path)).remove)
        stack.enter_context(torch.no_grad())
        observer.begin(model, images)
        stack.enter_context(observer)
        with suppress(Stop):
            model(images)
    return observer


def _leaving(observer: Observer, path: str) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        observer.leave(path, output)

    return hook


def _zeros(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    return torch.zeros(shape)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value, however deep in lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
