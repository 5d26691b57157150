"""A network that a function of one's own makes: "module:function"."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from fc7.engine.errors import ModelError
from fc7.engine.models.network import first_line


def call_own(name: str) -> nn.Module:
    """Import the module, call the function, and return the network that it makes.

    Args:
        name: "module:function". The current folder is searched first, as `python file.py` does,
            and is on the import path only until this returns.

    Raises:
        ModelError: no such module or function, an error inside them with the line it happened
            on, or something else than an nn.Module.
    """
    with _current_folder():
        return _call(name)


def is_in_current_folder(name: str) -> bool:
    """Say whether the module of "module:function" is a file in the current folder."""
    parts = name.partition(":")[0].split(".")
    if not all(part.isidentifier() for part in parts):
        return False
    place = Path.cwd().joinpath(*parts)
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def _call(name: str) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(f"{name} does not import: {_where(error)}") from error
        raise ModelError(
            f"no module {module_name!r} for {name}, neither in {os.getcwd()} nor installed"
        ) from error
    except Exception as error:
        raise ModelError(f"{name} does not import: {_where(error)}") from error
    function: Callable[[], Any] | None = getattr(module, function_name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if _is_own(value, module_name)]
        raise ModelError(
            f"no function {function_name!r} in {module_name}; it has {', '.join(own) or 'none'}"
        )
    try:
        model = function()
    except Exception as error:
        raise ModelError(f"{name} failed: {_where(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} must return an nn.Module, not a {type(model).__name__}")
    return model


def _is_own(value: Any, module: str) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module


def _where(error: BaseException) -> str:
    """Return what went wrong and on which line, for an error in code that is not ours."""
    if isinstance(error, SyntaxError):
        return f"{first_line(error)}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{first_line(error)} ({Path(frame.filename).name}, line {frame.lineno})"


@contextmanager
def _current_folder() -> Iterator[None]:
    """Let imports find the current folder first, as `python file.py` does."""
    importlib.invalidate_caches()
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
