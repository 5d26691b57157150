"""Reading a report back, with the standard library's parser rather than with ours."""

import base64
import io
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

LABELS = ["a <b>bold<b> label", "\"><img src=x onerror=alert('label')>", "{{script}} & plain"]
# A slash cannot be in a file's name, but a folder's name and a file's make one key.
HOSTILE = f"{LABELS[0]}/<script>alert(1)</script>.png"
ROWS = 40


@dataclass
class Page(HTMLParser):
    """Every tag with its attributes, and the text inside script, style and everywhere else."""

    source: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    scripts: list[tuple[dict[str, str | None], str]] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._inside = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
            self.scripts.append((dict(attrs), "")) if tag == "script" else self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = attributes, before + data
        elif self._inside == "style":
            self.styles[-1] += data
        else:
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of every such tag; `class_` may be one of several classes."""
        return [
            found
            for name, found in self.tags
            if name == tag
            and all(
                value in (found.get("class") or "").split()
                if key == "class_"
                else found.get(key) == value
                for key, value in attributes.items()
            )
        ]

    @property
    def ids(self) -> list[str]:
        return [str(found["id"]) for _, found in self.tags if "id" in found]

    @property
    def scatter(self) -> dict[str, Any]:
        (text,) = [text for found, text in self.scripts if found.get("id") == "scatter-data"]
        value: dict[str, Any] = json.loads(text)
        return value


def picture(uri: str) -> np.ndarray:
    """Decode a `data:` URI of a picture: uint8 (H, W, 3)."""
    kind, payload = re.fullmatch(r"data:image/(png|webp);base64,(.*)", uri, re.S).groups()  # type: ignore[union-attr]
    with Image.open(io.BytesIO(base64.b64decode(payload, validate=True))) as image:
        assert (image.format or "").lower() == kind
        return np.asarray(image.convert("RGB"))


def unpacked(text: str, dtype: str) -> np.ndarray:
    """Undo base64 over an array's bytes."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype)
