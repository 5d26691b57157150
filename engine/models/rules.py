"""What each torch function does to fields (`boxes` says what a field is).

- What moves elements (permute, view, chunk, ...) moves the boxes.
- What works element by element takes the union of its arguments' boxes.
- What slides a window takes the union over channels and window, padded with nothing.
- What mixes an axis (linear, softmax, layer norm) takes the union along it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fc7.engine.models.boxes import NOTHING, Field, each, narrow, union

FieldOf = Callable[[Tensor], Field]


class Rule(Protocol):
    """Maps a function's result and arguments to the result's field.

    It may raise where the function was called in a way that it does not know.
    """

    def __call__(self, field: FieldOf, result: Tensor, *args: Any, **kwargs: Any) -> Field:
        """Return the field of `result`, the function's value for these arguments."""
        ...


def _mixed(field: Field, axes: Sequence[int], shape: Sequence[int]) -> Field:
    """Return the union along axes, spread over all of that shape."""
    return each(
        lambda side: narrow(side).amax(tuple(axes), keepdim=True).expand(tuple(shape)), field
    )


def _expect(condition: bool) -> None:
    if not condition:
        raise ValueError("called in a way that the rule does not know")


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    numbers = tuple(value)
    return (numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _windows(
    field: Field,
    counts: Sequence[int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    before: tuple[int, int],
    dilation: tuple[int, int],
) -> Field:
    """Return the union over the windows of the last two axes; channels stay apart.

    Args:
        field: of the tensor under the windows, (N, C, H, W).
        counts: the number of windows along the last two axes. It also says how far they reach
            over the far edge, whether by padding or by ceil_mode.
        kernel: taps along each axis.
        stride: steps between windows.
        before: padding above and to the left.
        dilation: steps between taps.
    """

    def slid(side: Tensor) -> Tensor:
        thin = narrow(side)
        for place in range(2):
            axis = thin.ndim - 2 + place
            # Where a side does not change along an axis, no window changes it.
            if thin.size(axis) < side.size(axis):
                continue
            span = dilation[place] * (kernel[place] - 1) + 1
            reach = (counts[place] - 1) * stride[place] + span
            # F.pad counts axes from the last; negative padding cuts what no window reaches.
            around = [before[place], reach - before[place] - thin.size(axis)]
            padded = F.pad(thin, [0, 0] * (1 - place) + around, value=NOTHING)
            windows = padded.unfold(axis, span, stride[place])
            thin = windows[..., :: dilation[place]].amax(-1)
        return thin

    return each(slid, field)


def _conv2d(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Field:
    _expect(input.ndim == 4)
    kernel, steps = (weight.shape[2], weight.shape[3]), _pair(dilation)
    if padding == "same":
        before = (steps[0] * (kernel[0] - 1) // 2, steps[1] * (kernel[1] - 1) // 2)
    else:
        before = (0, 0) if padding == "valid" else _pair(padding)

    def gathered(side: Tensor) -> Tensor:
        """Take the union over the channels that one output channel reads."""
        if side.stride(1) == 0:
            return side[:, :1]
        count, channels, height, width = side.shape
        return side.reshape(count, groups, channels // groups, height, width).amax(2)

    def spread(side: Tensor) -> Tensor:
        if side.size(1) > 1:
            side = side.repeat_interleave(result.size(1) // groups, 1)
        return side.expand(result.shape)

    groupwise = each(gathered, field(input))
    seen = _windows(groupwise, result.shape[2:], kernel, _pair(stride), before, steps)
    return each(spread, seen)


def _max_pool2d(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Field:
    _expect(input.ndim == 4)
    kernel, steps = _pair(kernel_size), _pair(stride or kernel_size)
    seen = _windows(field(input), result.shape[2:], kernel, steps, _pair(padding), _pair(dilation))
    return each(lambda side: side.expand(result.shape), seen)


def _avg_pool2d(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *flags: Any,
    **options: Any,
) -> Field:
    # Flags say how to divide and whether to round up, which the size of the result has decided.
    return _max_pool2d(field, result, input, kernel_size, stride, padding)


def _adaptive_pool2d(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    *sizes: Any,
    **options: Any,
) -> Field:
    _expect(input.ndim == 4)

    def pooled(side: Tensor) -> Tensor:
        thin = narrow(side)
        for axis in (2, 3):
            if thin.size(axis) < side.size(axis):
                continue
            length, count = side.size(axis), result.size(axis)
            # Window i is floor(i L / n) to ceil((i + 1) L / n).
            edges = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
            thin = torch.cat(
                [thin.narrow(axis, a, b - a).amax(axis, keepdim=True) for a, b in edges], axis
            )
        return thin.expand(result.shape)

    return each(pooled, field(input))


def _pad(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Field:
    # Every mode but the constant one repeats pixels of the image, and so their boxes.
    fill = NOTHING if mode == "constant" else None
    return each(lambda side: F.pad(side, pad, mode=mode, value=fill), field(input))


def _cat(field: FieldOf, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Field:
    fields = [field(tensor) for tensor in tensors]
    axis = dim % result.ndim
    pieces = zip(*fields, strict=True)
    if all(side.stride(axis) == 0 or side.size(axis) == 1 for one in fields for side in one):
        # Branches of a network, concatenated by channel: what reads one mostly reads all, and
        # their common box keeps the field thin.
        cut = [each(lambda side: side.narrow(axis, 0, 1), one) for one in fields]
        return union(cut, result.shape)
    top, left, bottom, right = (torch.cat(sides, axis) for sides in pieces)
    return top, left, bottom, right


def _linear(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Field:
    return _mixed(field(input), [-1], result.shape)


def _matmul(field: FieldOf, result: Tensor, one: Tensor, other: Tensor) -> Field:
    _expect(one.ndim > 1 and other.ndim > 1)
    rows = each(lambda side: narrow(side).amax(-1, keepdim=True), field(one))
    columns = each(lambda side: narrow(side).amax(-2, keepdim=True), field(other))
    return union([rows, columns], result.shape)


def _attention(
    field: FieldOf, result: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Field:
    asked = each(lambda side: narrow(side).amax(-1, keepdim=True), field(query))
    known = each(lambda side: narrow(side).amax((-2, -1), keepdim=True), field(key))
    given = each(lambda side: narrow(side).amax(-2, keepdim=True), field(value))
    return union([asked, known, given], result.shape)


def _layer_norm(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    *_: Any,
    **__: Any,
) -> Field:
    return _mixed(field(input), range(-len(tuple(normalized_shape)), 0), result.shape)


def _batch_norm(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *_: Any,
    **__: Any,
) -> Field:
    # With the statistics of the batch every pixel would see every other.
    _expect(not training)
    return field(input)


def _softmax(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    dim: int,
    *_: Any,
    **__: Any,
) -> Field:
    return _mixed(field(input), [dim], result.shape)


def _normalize(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    p: float = 2.0,
    dim: int = 1,
    *_: Any,
    **__: Any,
) -> Field:
    return _mixed(field(input), [dim], result.shape)


def _local_response_norm(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    *_: Any,
    **__: Any,
) -> Field:
    return _mixed(field(input), [1], result.shape)


def _reduce(
    field: FieldOf,
    result: Tensor,
    input: Tensor,
    dim: Any,
    keepdim: bool = False,
    **options: Any,
) -> Field:
    seen = each(lambda side: narrow(side).amax(dim, keepdim=True), field(input))
    if not keepdim:
        axes = (dim,) if isinstance(dim, int) else tuple(dim)
        seen = each(lambda side: side.squeeze(axes), seen)
    return each(lambda side: side.expand(result.shape), seen)


RULES: Mapping[str, Rule] = {
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_pool2d,
    "adaptive_max_pool2d": _adaptive_pool2d,
    "pad": _pad,
    "cat": _cat,
    "linear": _linear,
    "matmul": _matmul,
    "__matmul__": _matmul,
    "bmm": _matmul,
    "scaled_dot_product_attention": _attention,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "normalize": _normalize,
    "local_response_norm": _local_response_norm,
    "mean": _reduce,
    "sum": _reduce,
    "amax": _reduce,
    "amin": _reduce,
}

# Applied to a side of a field they do to its boxes what they do to the elements.
MOVES: Mapping[str, Callable[..., Any]] = {
    "view": Tensor.reshape,  # a side is seldom contiguous where its tensor is
    "reshape": Tensor.reshape,
    "flatten": Tensor.flatten,
    "unflatten": Tensor.unflatten,
    "permute": Tensor.permute,
    "transpose": Tensor.transpose,
    "swapaxes": Tensor.swapaxes,
    "movedim": Tensor.movedim,
    "squeeze": Tensor.squeeze,
    "unsqueeze": Tensor.unsqueeze,
    "expand": Tensor.expand,
    "repeat": Tensor.repeat,
    "chunk": Tensor.chunk,
    "split": Tensor.split,
    "unbind": Tensor.unbind,
    "narrow": Tensor.narrow,
    "select": Tensor.select,
    "__getitem__": Tensor.__getitem__,
    "roll": Tensor.roll,
    "flip": Tensor.flip,
    "channel_shuffle": F.channel_shuffle,
    "pixel_shuffle": F.pixel_shuffle,
    "pixel_unshuffle": F.pixel_unshuffle,
}

# By name without underscores, so that in-place and operator forms are the same.
_POINTWISE = """
    relu relu6 leakyrelu prelu elu celu selu gelu silu mish hardswish hardsigmoid hardtanh softplus
    softsign sigmoid logsigmoid tanh exp log log1p sqrt rsqrt square reciprocal abs neg sign clamp
    clampmin clampmax clip threshold sin cos erf floor round pow rpow add radd iadd sub rsub isub
    mul rmul imul div rdiv idiv truediv rtruediv itruediv multiply divide subtract
    maximum minimum where lerp addcmul addcdiv maskedfill eq ne lt le gt ge isnan logicalnot
    logicaland logicalor invert dropout dropout2d alphadropout featurealphadropout dropout1d
    contiguous clone detach to type typeas float double half bfloat16 cpu cuda alias requiresgrad
"""
POINTWISE = frozenset(_POINTWISE.split())

# What they take from their argument is its shape, dtype and device.
_FACTORIES = """
    newzeros newones newfull newempty newtensor zeroslike oneslike fulllike emptylike randlike
    randnlike
"""
FACTORIES = frozenset(_FACTORIES.split())


def plain_name(name: str) -> str:
    """Return a function's name as POINTWISE and FACTORIES have it."""
    return name.replace("_", "")
