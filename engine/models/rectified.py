"""Every ReLU of a network by another backward rule, and what a frozen network needs not keep.

A function mode sees what is called while it is active, so that a ReLU is found however it is spelt:
a module, shared or not, a function, a method, in place or not, ReLU6, or a clamp at zero. Hooks on
modules miss those that are called as functions, as GoogLeNet and DenseNet do.

Convolutions, linear layers and max pooling are taken over too: for the backward pass layers by
frozen weights keep nothing, and a pooling where each winner is.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fc7.kernels import guided_relu, guided_relu_, linear, max_pool, strided_conv
from fc7.kernels.guided_relu import Rule

# What a call clamps: the tensor, its least and largest value, and whether it writes over it.
Clamp = tuple[Tensor, Any, Any, bool]

# They bend, but nobody has said what of a gradient may go back through them.
_OTHERS = {
    "celu", "elu", "gelu", "glu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish",
    "prelu", "rrelu", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh",
}  # fmt: skip


def _relu(input: Tensor, inplace: bool = False) -> Clamp:
    return input, 0, None, inplace


def _relu6(input: Tensor, inplace: bool = False) -> Clamp:
    return input, 0, 6, inplace


def _hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Clamp:
    return input, min_val, max_val, inplace


def _clamp(input: Tensor, min: Any = None, max: Any = None) -> Clamp:
    return input, min, max, False


def _threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Clamp:
    return input, 0 if threshold == value == 0 else None, None, inplace


def _conv(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return strided_conv(input, *args, **kwargs)


def _linear(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return linear(input, *args, **kwargs)


def _in_place(clamp: Callable[..., Clamp]) -> Callable[..., Clamp]:
    return lambda *args, **kwargs: (*clamp(*args, **kwargs)[:3], True)


_aten = torch.ops.aten
_RELU = (F.relu, torch.relu, Tensor.relu, _aten.relu, _aten.relu.default)
_RELU_IN_PLACE = (torch.relu_, Tensor.relu_, _aten.relu_, _aten.relu_.default)
_CLAMPS: Mapping[Any, Callable[..., Clamp]] = {
    **dict.fromkeys(_RELU, _relu),
    **dict.fromkeys(_RELU_IN_PLACE, _in_place(_relu)),
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
    F.hardtanh_: _in_place(_hardtanh),
    **dict.fromkeys((torch.clamp, torch.clip, Tensor.clamp, Tensor.clip), _clamp),
    **dict.fromkeys((torch.clamp_, torch.clip_, Tensor.clamp_, Tensor.clip_), _in_place(_clamp)),
    **dict.fromkeys((torch.clamp_min, Tensor.clamp_min), _clamp),
    **dict.fromkeys((torch.clamp_min_, Tensor.clamp_min_), _in_place(_clamp)),
    **dict.fromkeys((F.threshold, torch.threshold), _threshold),
    torch.threshold_: _in_place(_threshold),
}


class Rectified(TorchFunctionMode):
    """While active, in this thread, every ReLU passes gradients back by a rule.

    Args:
        rule: "guided", "plain" or "deconv"; see `fc7.kernels.guided_relu`.

    Attributes:
        rewritten: how many calls of a ReLU there were.
        others: how many calls of each other activation; what goes back through those is their
            derivative's.
    """

    def __init__(self, rule: Rule = "plain") -> None:
        super().__init__()
        self.rewritten = 0
        self.others: Counter[str] = Counter()
        self._rule: Rule = rule

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call something else than `func` where that is what a kernel does."""
        kwargs = kwargs or {}
        if func in _CLAMPS:
            rectified = self._rectify(*_CLAMPS[func](*args, **kwargs))
            if rectified is not None:
                return rectified
        if func in (F.max_pool2d, torch.max_pool2d):
            return max_pool(*args, **{k: v for k, v in kwargs.items() if k != "return_indices"})
        if func is F.conv2d:
            return _conv(*args, **kwargs)
        if func is F.linear:
            return _linear(*args, **kwargs)
        name = getattr(func, "__name__", "").rstrip("_")
        if name in _OTHERS:
            self.others[name] += 1
        return func(*args, **kwargs)

    def _rectify(self, x: Tensor, low: Any, high: Any, inplace: bool) -> Tensor | None:
        """Return a ReLU's output; None of a clamp that is none."""
        if isinstance(low, Tensor) or low != 0 or isinstance(high, Tensor):
            return None
        if not x.is_floating_point() or (high is not None and not high > 0):
            return None
        self.rewritten += 1
        if high is not None:
            # min(x, 6) has a derivative that no rule changes; the rest is a ReLU.
            x = x.clamp_(max=high) if inplace else x.clamp(max=high)
        return (guided_relu_ if inplace else guided_relu)(x, self._rule)
