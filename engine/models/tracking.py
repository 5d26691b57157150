"""Carries the field of every tensor along one forward pass (`boxes` says what a field is)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fc7.engine.models.boxes import NOTHING, Field, bounding_box, each, filled, union
from fc7.engine.models.dryrun import Observer, Stop, tensors_in
from fc7.engine.models.layers import Layer
from fc7.engine.models.rules import FACTORIES, MOVES, POINTWISE, RULES, plain_name


class FieldTracker(Observer):
    """Knows the field of every tensor of a pass, up to what one layer returns.

    Args:
        layer: where to stop.

    Attributes:
        found: the field of what the layer returned; None if the pass ended without it.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.found: Field | None = None
        self._path, self._left = layer.path, layer.calls
        # By identity, with the tensor itself so that its identity stays taken.
        self._fields: dict[int, tuple[Tensor, Field]] = {}
        self._constants: dict[int, Tensor] = {}
        self._whole: tuple[float, ...] = ()

    def begin(self, model: nn.Module, images: Tensor) -> None:
        """Start from pixels that see themselves, and from tensors that see nothing."""
        height, width = images.shape[-2:]
        self._whole = (0.0, 0.0, float(height), float(width))
        for tensor in (*model.parameters(), *model.buffers()):
            self._constants[id(tensor)] = tensor
        for module in model.modules():
            for tensor in tensors_in(list(vars(module).values())):
                self._constants[id(tensor)] = tensor
        rows = torch.arange(height, dtype=torch.float32).reshape(height, 1)
        columns = torch.arange(width, dtype=torch.float32).reshape(1, width)
        sides = (-rows, -columns, rows + 1, columns + 1)
        self._fields[id(images)] = (images, each(lambda side: side.expand(images.shape), sides))

    def leave(self, path: str, output: Any) -> None:
        """Keep the layer's field before anything changes its tensor in place, and stop."""
        if path != self._path:
            return
        self._left -= 1
        if self._left == 0:
            self.found = self._field(output)
            raise Stop

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        inputs = list(tensors_in([args, kwargs]))
        if name == "__setitem__":
            self._write(args[0], self._everything(inputs, args[0].shape))
            return result
        outputs = list(tensors_in(result))
        varying = [tensor for tensor in inputs if id(tensor) not in self._constants]
        if not varying or plain_name(name) in FACTORIES:
            self._constants.update((id(output), output) for output in outputs)
            return result
        if plain_name(name) in POINTWISE and len(varying) == 1 and result is varying[0]:
            return result  # each element became a function of itself, as in an in-place ReLU
        fields = self._by_rule(name, args, kwargs, inputs, result) if outputs else []
        for place, output in enumerate(outputs):
            field = fields[place] if place < len(fields) else None
            if field is None or field[0].shape != output.shape:
                field = self._everything(inputs, output.shape)
            if any(output is tensor for tensor in inputs):
                self._write(output, field)
            else:
                self._fields[id(output)] = (output, field)
        return result

    def _field(self, tensor: Tensor) -> Field:
        """Return the field of a tensor; one of unknown origin sees the whole image."""
        if id(tensor) in self._fields:
            return self._fields[id(tensor)][1]
        constant = id(tensor) in self._constants
        return filled((NOTHING,) * 4 if constant else self._whole, tensor.shape)

    def _by_rule(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: Sequence[Tensor],
        result: Any,
    ) -> list[Field]:
        """Return the fields of the result's tensors; none where no rule fits the call."""
        try:
            if name in MOVES and len(inputs) == 1:
                sides = [
                    list(tensors_in(MOVES[name](side, *args[1:], **kwargs)))
                    for side in self._field(args[0])
                ]
                return [each(lambda side: side, four) for four in zip(*sides, strict=True)]
            if not isinstance(result, Tensor):
                return []
            if plain_name(name) in POINTWISE:
                seen = [self._field(tensor) for tensor in inputs]
                return [union(seen, result.shape)]
            if name in RULES:
                return [RULES[name](self._field, result, *args, **kwargs)]
        except (TypeError, ValueError, IndexError, RuntimeError):
            return []
        return []

    def _everything(self, inputs: Sequence[Tensor], shape: Sequence[int]) -> Field:
        """Return a field in which each element sees all that the inputs see."""
        boxes = [bounding_box(self._field(tensor)) for tensor in inputs]
        return filled([max(sides) for sides in zip(*boxes, strict=True)], shape)

    def _write(self, target: Tensor, field: Field) -> None:
        """Set the field of a tensor changed in place, and widen those that share its memory."""
        self._constants.pop(id(target), None)
        self._fields[id(target)] = (target, field)
        storage = target.untyped_storage()._cdata
        box = bounding_box(field)
        if all(side == NOTHING for side in box):
            return
        sharing = [
            tensor
            for tensor in (*(pair[0] for pair in self._fields.values()), *self._constants.values())
            if tensor is not target and tensor.untyped_storage()._cdata == storage
        ]
        for tensor in sharing:
            fields = [self._field(tensor), filled(box, tensor.shape)]
            self._constants.pop(id(tensor), None)
            self._fields[id(tensor)] = (tensor, union(fields, tensor.shape))
