"""From a network to its operations, by torch.export: one graph for every way of writing one.

torch.export runs the network's Python once on tensors without data, so control flow, functional
and in-place spellings and shared modules are gone: what is left are the functions of ATen. Those
with a rule become the operations of `ops` (see `builders`); any other runs in full, and so does
what follows it.

A network need not be what this makes of it: it may count its images, mix them, or write to memory
in ways that only running it would show. So the operations are run beside the network, and where
they disagree the network runs as it is, an image at a time.
"""

import io
import logging
import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from fc7.engine.attribution.tracing.builders import BUILDERS
from fc7.engine.attribution.tracing.building import Part, UnknownCallError
from fc7.engine.attribution.tracing.calls import Call, Several, Size, leaves, replaced, varies
from fc7.engine.attribution.tracing.exporting import export
from fc7.engine.attribution.tracing.nodes import (
    arguments_of,
    function,
    function_of,
    is_view,
    module_of,
    perhaps_copies,
    writes,
    writes_elsewhere,
)
from fc7.engine.attribution.tracing.ops import Graph, Input, Op, Other
from fc7.engine.attribution.tracing.proof import agrees, one_by_one

_BATCH = 2  # of the example: with one image, torch.export takes a batch of one for granted


def trace(model: nn.Module, size: tuple[int, int]) -> Graph:
    """Return the operations of a network in evaluation mode.

    Args:
        model: from images (N, 3, H, W), float32, to logits (N, classes).
        size: height and width of the images in pixels.

    Raises:
        Exception: what the model itself raises on such images.
    """
    anything = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    example = torch.zeros(_BATCH, 3, *size, device=anything.device)
    with torch.no_grad(), _quiet():
        try:
            graph = _build(export(model, example))
        except Exception as error:
            return _whole(model, example, type(error).__name__)
        if graph.unknown:
            # What has no rule runs on batches of any size: better that none stands in the graph.
            with suppress(Exception):
                graph = _build(export(model, example, dynamic=True))
        if not agrees(graph, model, size, anything.device):
            return _whole(model, example, "traced, it gives other logits")
        return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.export's advice, and the graphs that it prints, to ourselves."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _whole(model: nn.Module, example: Tensor, why: str) -> Graph:
    """Return a network that cannot be looked into as a single operation."""
    images = Input("images", (), tuple(example.shape[1:]), _no_call)
    classes = one_by_one(model, example[:1]).shape[1]
    output = Other("network", (images,), (classes,), partial(one_by_one, model))
    return Graph((images, output), output, (f"the network ({why})",))


def _build(program: torch.export.ExportedProgram) -> Graph:
    try:
        return _Builder(program).graph()
    except _AliasedError:
        # Seldom needed, and takes as long again: it makes every in-place function a plain one.
        return _Builder(program.run_decompositions({})).graph()


class _AliasedError(Exception):
    """A function writes to memory that something else looks at later."""


class _Builder:
    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self._nodes = list(program.graph.nodes)
        self._order = {node: place for place, node in enumerate(self._nodes)}
        self._values: dict[Node, Any] = {}
        self._roots: dict[Node, Node] = {}  # whose memory a node's result lies in
        self._unknown: dict[str, None] = {}
        signature = program.graph_signature
        constants = {**program.state_dict, **program.constants}
        names = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self._constants = {name: constants[target] for name, target in names.items()}
        self._logits = signature.user_outputs[0]

    def graph(self) -> Graph:
        output: Op | None = None
        for node in self._nodes:
            if node.op == "placeholder":
                self._values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self._values[node] = self._call(node)
                self._write(node)
            elif node.op == "output":
                (found,) = (each for each in node.all_input_nodes if each.name == self._logits)
                output = self._as_op(self._values[found])
        if not isinstance(output, Op):
            raise TypeError("the logits do not depend on the images")
        paths = {node.name: module_of(node) for node in self._nodes}
        return Graph(_in_order(output), output, tuple(self._unknown), paths)

    def _placeholder(self, node: Node) -> Any:
        if node.name in self._constants:
            return self._constants[node.name]
        self._batch = node.meta["val"].shape[0]
        self._images = Input(node.name, (), tuple(node.meta["val"].shape[1:]), _no_call)
        return self._images

    def _call(self, node: Node) -> Any:
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            return None
        args: Any
        kwargs: Any
        args, kwargs = torch.fx.node.map_arg(  # type: ignore[no-untyped-call,unused-ignore]
            (node.args, node.kwargs), self._values.__getitem__
        )
        variable = [value for value in leaves((args, kwargs)) if varies(value)]
        if not variable:
            return function(node)(*args, **kwargs)
        if all(isinstance(value, Size) for value in variable):
            return Size(Call(node.target, args, kwargs, ()))
        if node.target is torch.ops.aten.sym_size.int:
            return Size(int) if args[1] == 0 else node.meta["val"]
        if node.target is operator.getitem and isinstance(args[0], list | tuple):
            return args[0][args[1]]
        if node.target is operator.getitem and isinstance(args[0], Several):
            return args[0].item(node.name, args[1], self._shape(node.meta["val"]))
        return self._known(node, args, kwargs) or self._other(node, args, kwargs)

    def _known(self, node: Node, args: Any, kwargs: Any) -> Any:
        builder = BUILDERS.get(function_of(node))
        if builder is None:
            return None
        bound = {argument.name: argument.default_value for argument in arguments_of(node)}
        bound |= dict(zip(bound, args, strict=False)) | kwargs
        if any(isinstance(value, Part) for value in leaves(bound)) and not builder.takes_parts:
            return None
        shape = self._shape(node.meta["val"])
        try:
            return builder.build(_Made(self, node, args, kwargs, shape), bound)
        except UnknownCallError:
            return None

    def _other(self, node: Node, args: Any, kwargs: Any) -> Any:
        call, inputs = self._full(node, args, kwargs)
        found = node.meta["val"]
        # A network behind an unknown function runs in full, and its functions are not unknown.
        if not any(isinstance(op, Other) for op in inputs):
            self._unknown[function_of(node)] = None
        if isinstance(found, list | tuple):
            return Several(call, inputs)
        return Other(node.name, inputs, self._shape(found) or (), call)

    def _full(self, node: Node, args: Any, kwargs: Any) -> tuple["Call", tuple[Op, ...]]:
        given = list(leaves((args, kwargs)))
        inputs = dict.fromkeys(self._as_op(each) for each in given if isinstance(each, Op | Part))
        if any(isinstance(each, Size) for each in given):
            # The first tells the number of images: it must have an axis for them.
            inputs = {next((op for op in inputs if op.shape), self._images): None, **inputs}
        args, kwargs = replaced((args, kwargs), self._as_op)
        return Call(function(node), args, kwargs, tuple(inputs)), tuple(inputs)

    def _as_op(self, value: Any) -> Any:
        return value.as_op() if isinstance(value, Part) else value

    def _shape(self, value: Any) -> tuple[int, ...] | None:
        """Return the shape of one image's result, or None where results have no batch axis."""
        if not isinstance(value, Tensor) or value.ndim == 0:
            return None
        first, *rest = value.shape
        if str(first) != str(self._batch) or not all(isinstance(side, int) for side in rest):
            return None
        return tuple(rest)

    def _write(self, node: Node) -> None:
        """Let what a function writes to stand for its result from here on."""
        if writes_elsewhere(node):
            raise _AliasedError
        source = node.args[0] if node.args else None
        if not isinstance(source, Node):
            return
        if not writes(node):
            if is_view(node):
                self._roots[node] = self._roots.get(source, source)
            return
        root = self._roots.get(source, source)
        family = [root, *(other for other, of in self._roots.items() if of is root)]
        unsure = any(perhaps_copies(other) for other in family[1:])
        previous = self._values[source]
        for other in family:
            if other is not source and (unsure or self._values[other] is not previous):
                if any(self._order[user] > self._order[node] for user in other.users):
                    raise _AliasedError
            elif self._values[other] is previous:
                self._values[other] = self._values[node]
        self._roots[node] = root


class _Made:
    """What a builder makes an operation with.

    Attributes:
        name: for the operation.
        function: the name of ATen's function, the same whether it works in place or not.
        shape: of one image's result, or None where there is no batch axis.
        new_dtype: of the result, where the first argument has another.
    """

    def __init__(
        self, builder: _Builder, node: Node, args: Any, kwargs: Any, shape: tuple[int, ...] | None
    ) -> None:
        self.name, self.shape = node.name, shape
        self.function = function_of(node)
        found, source = node.meta["val"], getattr(node.args[0], "meta", {}).get("val")
        self.new_dtype: torch.dtype | None = None
        if isinstance(found, Tensor) and isinstance(source, Tensor) and found.dtype != source.dtype:
            self.new_dtype = found.dtype
        self._builder, self._node, self._args, self._kwargs = builder, node, args, kwargs

    def reads(self, number: int) -> bool:
        """Say whether anything reads that one of several results."""
        items = [user for user in self._node.users if user.target is operator.getitem]
        return any(user.args[1] == number and user.users for user in items)

    def full(self) -> tuple[Callable[..., Tensor], tuple[Op, ...]]:
        """Return the call itself, as a function of the values of the inputs, and those."""
        return self._builder._full(self._node, self._args, self._kwargs)

    def as_op(self) -> Op:
        """Return the call as an operation without a rule."""
        op: Op = self._builder._other(self._node, self._args, self._kwargs)
        return op


def _no_call(*values: Tensor) -> Tensor:
    raise AssertionError("the images are given")


def _in_order(output: Op) -> tuple[Op, ...]:
    """Return all operations that lead to one, each behind its inputs."""
    order: dict[Op, None] = {}
    stack: list[tuple[Op, bool]] = [(output, False)]
    while stack:
        op, ready = stack.pop()
        if ready:
            order[op] = None
        elif op not in order:
            stack.append((op, True))
            stack += [(source, False) for source in reversed(op.inputs)]
    return tuple(order)
