"""What a node of an exported graph is: which function, and what it does to memory."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

# Whether these return their input itself or a copy depends on how it lies in memory.
_PERHAPS_COPIES = {"contiguous", "to", "reshape", "flatten"}


def function_of(node: Node) -> str:
    """Return the name of ATen's function, the same whether it works in place or not."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    name = str(schema.name).removeprefix("aten::")
    return name.removesuffix("_") if writes(node) else name


def module_of(node: Node) -> str:
    """Return the path of the innermost module that calls it; "" for the network itself."""
    modules = list(node.meta.get("nn_module_stack", {}).values())
    return str(modules[-1][0]) if modules else ""


def arguments_of(node: Node) -> Any:
    """Return the arguments of ATen's function, as its schema has them; () where it has none."""
    return getattr(getattr(node.target, "_schema", None), "arguments", ())


def _first_argument(node: Node) -> Any:
    arguments = arguments_of(node)
    return arguments[0].alias_info if arguments else None


def writes(node: Node) -> bool:
    """Say whether it writes to its first argument."""
    alias = _first_argument(node)
    return alias is not None and alias.is_write


def writes_elsewhere(node: Node) -> bool:
    """Say whether it writes to anything but a tensor that is its first argument."""
    written = [a.name for a in arguments_of(node) if a.alias_info and a.alias_info.is_write]
    given = [a.name for a in arguments_of(node)[: len(node.args)]]
    first = given[:1] if node.args and isinstance(node.args[0], Node) else []
    return any(name in (*given, *node.kwargs) for name in written if name not in first)


def function(node: Node) -> Any:
    """Return what a node calls, such that it leaves its arguments as they are."""
    target: Any = node.target
    if not writes(node):
        return target
    found = getattr(getattr(torch.ops.aten, function_of(node), None), target._overloadname, None)
    # What works in place keeps its argument's dtype, whatever the others are.
    if found is not None and _kinds(found) == _kinds(target) and len(set(_dtypes(node))) == 1:
        return found
    return lambda first, *rest, **named: target(first.clone(), *rest, **named)


def _kinds(overload: Any) -> list[tuple[str, str]]:
    return [(argument.name, str(argument.type)) for argument in overload._schema.arguments]


def _dtypes(node: Node) -> Iterator[torch.dtype]:
    for source in node.all_input_nodes:
        if isinstance(source.meta.get("val"), Tensor):
            yield source.meta["val"].dtype


def is_view(node: Node) -> bool:
    """Say whether its result may lie in its first argument's memory."""
    # In evaluation mode dropout returns its input itself, which its schema does not say.
    is_dropout = "dropout" in str(node.target)
    return _first_argument(node) is not None or is_dropout or node.target is operator.getitem


def perhaps_copies(node: Node) -> bool:
    """Say whether a view's result may as well be a copy."""
    return function_of(node) in _PERHAPS_COPIES
