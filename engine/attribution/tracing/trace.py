"""From a network to its operations, by torch.export: one graph for every way of writing one.

torch.export runs the network's Python once on tensors without data, so control flow, functional
and in-place spellings and shared modules are gone: what is left are the functions of ATen. Those
with a rule become the operations of `ops` (see `builders`); any other runs in full, and so does
what follows it.
"""

import logging
import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from fc7.engine.attribution.tracing.builders import BUILDERS
from fc7.engine.attribution.tracing.building import Part, UnknownCallError
from fc7.engine.attribution.tracing.calls import Call, Several, Size, leaves, replaced, varies
from fc7.engine.attribution.tracing.nodes import function_of, is_view, writes
from fc7.engine.attribution.tracing.ops import Graph, Input, Op, Other

_BATCH = 2  # of the example: with one image, torch.export takes a batch of one for granted


def trace(model: nn.Module, size: tuple[int, int]) -> Graph:
    """Return the operations of a network in evaluation mode.

    Args:
        model: from images (N, 3, H, W), float32, to logits (N, classes).
        size: height and width of the images in pixels.

    Raises:
        Exception: what the model itself raises on such images.
    """
    device = next(model.parameters()).device
    example = torch.zeros(_BATCH, 3, *size, device=device)
    with torch.no_grad(), _quiet():
        try:
            graph = _build(torch.export.export(model, (example,)))
            if not graph.unknown:
                return graph
            # What has no rule runs on batches of any size, so no size may stand in the graph.
            batch = {0: torch.export.Dim("batch")}
            free = torch.export.export(model, (example,), dynamic_shapes=(batch,))
            return _build(free)
        except Exception as error:
            model(example)  # the network's own error, if it is one
            return _whole(model, size, error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.export's advice, which is about exporting, to ourselves."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _whole(model: nn.Module, size: tuple[int, int], error: Exception) -> Graph:
    """Return a network that cannot be looked into as a single operation."""
    images = Input("images", (), (3, *size), _no_call)
    with torch.no_grad():
        classes = model(torch.zeros(1, 3, *size, device=next(model.parameters()).device)).shape[1]
    output = Other("network", (images,), (classes,), model)
    return Graph((images, output), output, (f"the network ({type(error).__name__})",))


def _build(program: torch.export.ExportedProgram) -> Graph:
    try:
        return _Builder(program).graph()
    except _AliasedError:
        # Seldom needed, and takes as long again: it makes every in-place function a plain one.
        return _Builder(program.run_decompositions({})).graph()


class _AliasedError(Exception):
    """A function writes to memory that a view of another shape looks at later."""


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
        self._user_inputs = set(signature.user_inputs)

    def graph(self) -> Graph:
        output: Op | None = None
        for node in self._nodes:
            if node.op == "placeholder":
                self._values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self._values[node] = self._call(node)
                self._write(node)
            elif node.op == "output":
                output = self._as_op(self._values[node.args[0][0]])  # type: ignore[index,unused-ignore]
        assert output is not None
        return Graph(_in_order(output), output, tuple(self._unknown))

    def _placeholder(self, node: Node) -> Any:
        if node.name in self._constants:
            return self._constants[node.name]
        self._batch = node.meta["val"].shape[0]
        return Input(node.name, (), tuple(node.meta["val"].shape[1:]), _no_call)

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
            return node.target(*args, **kwargs)  # type: ignore[operator]
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
        arguments = node.target._schema.arguments  # type: ignore[union-attr]
        bound = {argument.name: argument.default_value for argument in arguments}
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
        inputs = dict.fromkeys(
            self._as_op(value) for value in leaves((args, kwargs)) if isinstance(value, Op | Part)
        )
        args, kwargs = replaced((args, kwargs), self._as_op)
        return Call(node.target, args, kwargs, tuple(inputs)), tuple(inputs)

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
        source = node.args[0] if node.args else None
        if not isinstance(source, Node):
            return
        if writes(node):
            root = self._roots.get(source, source)
            for other in [root, *(n for n, r in self._roots.items() if r is root)]:
                if self._values[other] is self._values[source] or other is source:
                    continue
                if any(self._order[user] > self._order[node] for user in other.users):
                    raise _AliasedError
            previous = self._values[source]
            for other in [source, root, *(n for n, r in self._roots.items() if r is root)]:
                if self._values[other] is previous:
                    self._values[other] = self._values[node]
            self._roots[node] = root
        elif is_view(node):
            self._roots[node] = self._roots.get(source, source)


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
