"""How ATen's functions become the operations of `ops`.

A builder is given the call's arguments by name, with operations in place of tensors that depend
on the images. It raises `UnknownCallError` where these are not such as the operation serves, and
the call runs in full.
"""

from collections.abc import Mapping

from fc7.engine.attribution.tracing import elements, layers, shapes
from fc7.engine.attribution.tracing.building import Builder

_POINTWISE = """
    relu6 hardtanh silu gelu sigmoid hardswish hardsigmoid leaky_relu elu selu celu mish softplus
    tanh prelu _prelu_kernel clamp clamp_min clamp_max abs exp log1p sqrt square pow threshold
    log_sigmoid softsign erf sin cos reciprocal rsqrt neg
"""
_SAME = "alias dropout feature_dropout lift_fresh_copy"
_COPIES = "contiguous clone detach to _to_copy"
_RESHAPES = "flatten view reshape _unsafe_view squeeze"

BUILDERS: Mapping[str, Builder] = {
    "conv2d": Builder(layers.conv),
    "convolution": Builder(layers.conv),
    "batch_norm": Builder(layers.batch_norm),
    "_native_batch_norm_legit_no_training": Builder(layers.batch_norm),
    "max_pool2d": Builder(layers.max_pool),
    "max_pool2d_with_indices": Builder(layers.max_pool),
    "avg_pool2d": Builder(layers.avg_pool),
    "adaptive_avg_pool2d": Builder(layers.adaptive_avg_pool),
    "mean": Builder(layers.mean),
    "relu": Builder(elements.relu),
    **dict.fromkeys(_POINTWISE.split(), Builder(elements.pointwise)),
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div"), Builder(elements.arithmetic)),
    "cat": Builder(shapes.cat),
    **dict.fromkeys(_SAME.split(), Builder(elements.same)),
    **dict.fromkeys(_COPIES.split(), Builder(shapes.kept, takes_parts=True)),
    **dict.fromkeys(_RESHAPES.split(), Builder(shapes.reshape, takes_parts=True)),
    "transpose": Builder(shapes.turn, takes_parts=True),
    "split": Builder(shapes.split),
    "split_with_sizes": Builder(shapes.split),
    "chunk": Builder(shapes.split),
    "slice": Builder(shapes.cut),
    "select": Builder(shapes.select),
    "unsqueeze": Builder(shapes.unsqueeze, takes_parts=True),
    "pad": Builder(layers.pad),
    "constant_pad_nd": Builder(layers.pad),
    "linear": Builder(layers.linear),
}
