"""Images in: sources of rows, decoding, the transform, and the threads that read ahead."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fc7.engine.data.decode import MAX_PIXELS, decode_image
    from fc7.engine.data.open import open_source
    from fc7.engine.data.reader import ReadTimes, Row, read_rows
    from fc7.engine.data.source import Source
    from fc7.engine.data.transform import Transform

__all__ = [
    "MAX_PIXELS",
    "ReadTimes",
    "Row",
    "Source",
    "Transform",
    "decode_image",
    "open_source",
    "read_rows",
]

_HOME = {
    "MAX_PIXELS": "decode",
    "decode_image": "decode",
    "open_source": "open",
    "ReadTimes": "reader",
    "Row": "reader",
    "read_rows": "reader",
    "Source": "source",
    "Transform": "transform",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch and pyarrow take a second."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
