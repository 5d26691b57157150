"""Networks: loading them by name, naming their layers, tapping those, and what each one sees."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fc7.engine.models.layers import Layer
    from fc7.engine.models.network import Network
    from fc7.engine.models.receptive import ReceptiveField, receptive_field
    from fc7.engine.models.zoo import load_model

__all__ = ["Layer", "Network", "ReceptiveField", "load_model", "receptive_field"]

_HOMES = {
    "Layer": "layers",
    "Network": "network",
    "ReceptiveField": "receptive",
    "load_model": "zoo",
    "receptive_field": "receptive",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: torch takes seconds, and `fc7 --help` should not wait for it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
