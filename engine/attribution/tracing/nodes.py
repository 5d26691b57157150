"""What a node of an exported graph is: which function, and what it does to memory."""

import operator
from typing import Any

from torch.fx import Node


def function_of(node: Node) -> str:
    """Return the name of ATen's function, the same whether it works in place or not."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    name = str(schema.name).removeprefix("aten::")
    return name.removesuffix("_") if writes(node) else name


def _first_argument(node: Node) -> Any:
    arguments = getattr(getattr(node.target, "_schema", None), "arguments", None)
    return arguments[0].alias_info if arguments else None


def writes(node: Node) -> bool:
    """Say whether it writes to its first argument."""
    alias = _first_argument(node)
    return alias is not None and alias.is_write


def is_view(node: Node) -> bool:
    """Say whether its result may lie in its first argument's memory."""
    # In evaluation mode dropout returns its input itself, which its schema does not say.
    is_dropout = "dropout" in str(node.target)
    return _first_argument(node) is not None or is_dropout or node.target is operator.getitem
