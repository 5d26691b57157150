"""Images in, runs and pictures out: sources, networks, the store and the jobs over it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fc7.engine.models import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from fc7.engine.models import load_model

        return load_model
    raise AttributeError(f"fc7.engine has no {name!r}; it has {', '.join(__all__)}")
