"""Calls of functions without a rule, to be made when the values are there."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fc7.engine.attribution.tracing.building import Part
from fc7.engine.attribution.tracing.ops import Op, Other


class Call:
    """A function of the values of some operations; everything else about it is fixed."""

    def __init__(self, target: Any, args: Any, kwargs: Any, inputs: Sequence[Op]) -> None:
        self._target, self._args, self._kwargs = target, args, kwargs
        self._inputs = inputs

    def __call__(self, *values: Any) -> Any:
        """Make the call with the values of its inputs."""
        by_op = dict(zip(self._inputs, values, strict=False))
        batch = values[0] if isinstance(values[0], int) else len(values[0])

        def fill(leaf: Any) -> Any:
            if isinstance(leaf, Size):
                return leaf.of(batch)
            return by_op.get(leaf, leaf) if isinstance(leaf, Op) else leaf

        args, kwargs = replaced((self._args, self._kwargs), fill)
        return self._target(*args, **kwargs)


class Size:
    """A number that depends on the number of images."""

    def __init__(self, of: Callable[[int], Any]) -> None:
        self.of = of


class Several:
    """Several results of one function without a rule."""

    def __init__(self, call: Call, inputs: tuple[Op, ...]) -> None:
        self._call, self._inputs = call, inputs

    def item(self, name: str, number: int, shape: tuple[int, ...] | None) -> Other:
        """Return one of the results as an operation."""
        call = self._call
        return Other(name, self._inputs, shape or (), lambda *values: call(*values)[number])


def varies(value: Any) -> bool:
    """Say whether a value depends on the images."""
    return isinstance(value, Op | Part | Size | Several)


def leaves(value: Any) -> Iterator[Any]:
    """Yield what nested lists and dicts hold."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        yield from leaves(list(value.values()))
    else:
        yield value


def replaced(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Return nested lists and dicts with each thing in them replaced."""
    if isinstance(value, list | tuple):
        return type(value)(replaced(item, replace) for item in value)
    if isinstance(value, dict):
        return {key: replaced(item, replace) for key, item in value.items()}
    return replace(value)
