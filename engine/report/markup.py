"""HTML that cannot be injected into: text is escaped unless it was built here.

    element("p", "5 < 6, says ", element("b", name), class_="note")

Keys are file names and labels are folder names, so any string may hold markup of its own.
"""

import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_VOID = frozenset({"img", "meta", "br", "col", "input"})
_SLOT = re.compile(r"\{\{(\w+)\}\}")


class Markup(str):
    """Text that is HTML already. Only this module makes it, and `join` out of its like."""

    __slots__ = ()


EMPTY = Markup("")


def escape(value: object) -> Markup:
    """Return a value as HTML text, safe between tags and inside a quoted attribute."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def join(children: Iterable[object], between: str = "") -> Markup:
    """Return the children end to end, escaped where they are not `Markup`; None is left out."""
    return Markup(escape(between).join(escape(child) for child in children if child is not None))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return `<tag attributes>children</tag>`.

    Args:
        tag: the element's name.
        children: `Markup` as it is, everything else escaped; None is left out.
        attributes: by name, `_` for `-` and a trailing `_` dropped (`class_`, `data_row`). True
            stands for an attribute without a value; False and None leave it out.
    """
    named = [
        f" {_attribute_name(name)}" + ("" if value is True else f'="{escape(value)}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    ]
    opening = f"<{tag}{''.join(named)}>"
    if tag in _VOID:
        return Markup(opening)
    return Markup(f"{opening}{join(children)}</{tag}>")


def json_block(identifier: str, value: Any) -> Markup:
    """Return `<script type="application/json">` holding a value that cannot end the element.

    Inside a script HTML knows no entities, so `<`, `>` and `&` are written as JSON escapes.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{escape(identifier)}">{text}</script>')


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Put a value in the place of every `{{name}}`; values are not searched for slots again.

    Raises:
        KeyError: the template has a slot without a value.
    """
    return _SLOT.sub(lambda match: slots[match.group(1)], template)


def _attribute_name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")
