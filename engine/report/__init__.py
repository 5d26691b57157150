"""The report: everything a run shows, in one HTML file."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fc7.engine.report.write import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: the report needs torch, which takes seconds.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("fc7.engine.report.write"), name)
