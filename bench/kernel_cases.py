"""What is measured: one value for each kernel, shape, precision and layout."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from fc7.bench import kernel_calls as calls
from fc7.bench import kernel_checks as checks
from fc7.bench import kernel_inputs as inputs
from fc7.bench import kernel_peers as peers
from fc7.bench.kernel_calls import Bind
from fc7.bench.kernel_inputs import LAYOUTS
from fc7.bench.roofline import DTYPES, Work
from fc7.kernels.gram import gram
from fc7.kernels.gram_loss import gram_loss
from fc7.kernels.merge_topk import merge_topk
from fc7.kernels.occlude import grid_boxes, occlude
from fc7.kernels.spatial_max import spatial_max

Inputs = tuple[Any, ...]
Draw = Callable[[torch.Generator], Inputs]

KERNELS = ("gram", "gram_loss", "guided_relu", "occlude", "spatial_max", "merge_topk")
COMPILED = "torch.compile"
_VGG16 = ((64, 224), (128, 112), (256, 56), (512, 28))
_ALEXNET = ((64, 55), (192, 27), (384, 13), (256, 13))
_BATCHES = (1, 8, 32)
_MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One kernel on one kind of input.

    Attributes:
        kernel: its name in fc7.kernels.
        name: kernel, shape, precision and layout, to be chosen by.
        precision: fp32, tf32 or bf16.
        draw: makes fresh random inputs on the generator's device.
        ours: binds inputs to our call.
        peers: the same for each peer; the first computes exactly the same function.
        check: (inputs, our answer, the first peer's, random numbers) -> our error; raises
            WrongAnswerError.
        work: what cannot be done without.
        bars: for some peers, how many times as fast we must be.
        floor_bar: the share of the floor that we must reach, if any.
        saved: bytes kept between forward and backward pass, from the inputs, for each contestant.
        saved_bar: our share of the first peer's saved bytes at most, if any.
        quick: whether it is among the few that a quick run measures.
    """

    kernel: str
    name: str
    precision: str
    draw: Draw
    ours: Bind
    peers: Mapping[str, Bind]
    check: Callable[[Inputs, Any, Any, np.random.Generator], float]
    work: Work
    bars: Mapping[str, float] = field(default_factory=dict)
    floor_bar: float | None = None
    saved: Mapping[str, Callable[..., int]] = field(default_factory=dict)
    saved_bar: float | None = None
    quick: bool = False


def cases(device: torch.device) -> Iterator[Case]:
    """Yield every case for a device; those that share inputs follow each other."""
    on_gpu = device.type == "cuda"
    matrix = ("bf16", "tf32") if on_gpu else ("fp32",)
    moving = ("bf16", "fp32") if on_gpu else ("fp32",)
    for precision in matrix:
        for n in _BATCHES:
            for channels, side in _VGG16:
                for layout in LAYOUTS if on_gpu or n == 8 else ("nchw",):
                    yield gram_case((n, channels, side, side), precision, layout, on_gpu)
    for channels, side in _VGG16:
        yield gram_loss_case((8, channels, side, side), "tf32" if on_gpu else "fp32", on_gpu)
    for precision in moving:
        for size in (16 * _MIB, 1024 * _MIB):
            yield from guided_relu_cases(size, precision, on_gpu)
    for precision in ("bf16", "fp32"):
        for layout in LAYOUTS:
            yield occlude_case(224, 16, 8, precision, layout, on_gpu)
    for precision in moving:
        for channels, side in (*_ALEXNET, *_VGG16, (512, 14)):
            for n in (8, 32):
                for layout in LAYOUTS:
                    yield spatial_max_case((n, channels, side, side), precision, layout, on_gpu)
        n = 1024 * _MIB // DTYPES[precision].itemsize // (64 * 256 * 256)
        for layout in LAYOUTS:
            yield spatial_max_case((n, 64, 256, 256), precision, layout, on_gpu, floor_bar=0.75)
    yield merge_topk_case(4096, 9, 1024)


def gram_case(
    shape: tuple[int, int, int, int], precision: str, layout: str, on_gpu: bool = False
) -> Case:
    """Gram matrices of features, as a layer's ReLU leaves them."""
    n, c, h, w = shape
    others: dict[str, Bind] = {"torch.bmm": calls.plainly(peers.bmm)}
    if n == 8 and layout == "nchw" and (on_gpu or c == 512):
        others[COMPILED] = calls.compiled(peers.bmm)
    bar = 1.2 if c == 512 and n == 8 and layout == "nchw" else 1.0
    if on_gpu:
        bar = 1.5 if c <= 128 else 0.0 if n < 8 else 1.05 if precision == "bf16" else 1.15
    return Case(
        kernel="gram",
        name=f"gram-{c}x{h}-n{n}-{precision}-{layout}",
        precision=precision,
        draw=partial(inputs.features, shape, precision, layout),
        ours=calls.plainly(gram),
        peers=others,
        check=checks.check_gram,
        # A symmetric product has C (C + 1) / 2 different elements.
        work=Work(
            n * c * h * w * DTYPES[precision].itemsize + n * c * c * 4, n * c * (c + 1) * h * w
        ),
        bars={"torch.bmm": bar} if bar else {},
        floor_bar=0.6 if on_gpu and n == 32 else None,
        quick=n == 8 and layout == "nchw" and c == 512,
    )


def gram_loss_case(shape: tuple[int, int, int, int], precision: str, on_gpu: bool = False) -> Case:
    """The mean squared difference to a target Gram matrix, and its gradient."""
    n, c, h, w = shape
    theirs = partial(peers.value_and_gradient, peers.bmm_loss)
    others: dict[str, Bind] = {"mse of torch.bmm": calls.plainly(theirs)}
    if on_gpu and c == 512:
        others[COMPILED] = calls.compiled_loss(peers.bmm_loss)
    return Case(
        kernel="gram_loss",
        name=f"gram_loss-{c}x{h}-n{n}-{precision}-nchw",
        precision=precision,
        draw=partial(inputs.features_and_target, shape, precision),
        ours=calls.plainly(partial(peers.value_and_gradient, gram_loss)),
        peers=others,
        check=checks.check_gram_loss,
        # Forward half a product, backward (G - T) F, a whole one; features read, gradient written.
        work=Work(
            2 * n * c * h * w * 4 + c * c * 4 + n * 4,
            n * c * (c + 1) * h * w + 2 * n * c * c * h * w,
        ),
        quick=c == 512,
    )


def guided_relu_cases(size: int, precision: str, on_gpu: bool = False) -> Iterator[Case]:
    """Forward and backward pass by each rule on `size` bytes, and one backward pass alone."""
    draw = partial(inputs.values_and_gradients, size, precision)  # one and the same for all
    rules: tuple[peers.Rule, ...] = ("guided", "plain")
    for rule in rules:
        pair, bools = peers.CLAMP[rule], peers.BOOLS[rule]
        fast = calls.compiled_pair(bools)  # once for both ways
        elements = size // DTYPES[precision].itemsize
        bits = elements // 8
        saved = {
            "fc7": partial(calls.saved_by_ours, rule),
            "clamp": partial(calls.saved_by, pair[0]),
            COMPILED: partial(calls.saved_by, bools[0]),
        }
        for way in ("both", "backward") if rule == "guided" else ("both",):
            both = way == "both"
            others: dict[str, Bind] = {
                "clamp": calls.plainly(partial(peers.forward_and_backward, pair))
                if both
                else partial(peers.backward_alone, pair)
            }
            if rule == "guided":
                others[COMPILED] = calls.compiled_relu(fast, both)
            bars = {"clamp": 0.7} if both else {}
            if on_gpu:
                guided = rule == "guided" and not both and elements * 2 >= 1024 * _MIB
                bars = {"clamp": 2.2} if guided else {}
                bars |= {COMPILED: 1.12} if guided and precision == "bf16" else {}
            yield Case(
                kernel="guided_relu",
                name=f"guided_relu-{rule}-{way}-{size // _MIB}MiB-{precision}",
                precision=precision,
                draw=draw,
                ours=partial(calls.our_relu if both else calls.our_relu_backward, rule),
                peers=others,
                check=partial(checks.check_guided_relu, rule),
                # Read and write once each way; the least that says where x > 0 is one bit.
                work=Work((4 if both else 2) * size + (2 if both else 1) * bits),
                bars=bars,
                saved=saved if both else {},
                saved_bar=(1 / (8 * DTYPES[precision].itemsize) if on_gpu else 0.25)
                if both
                else None,
                quick=both and size <= 16 * _MIB and rule == "guided",
            )


def occlude_case(
    side: int, window: int, stride: int, precision: str, layout: str, on_gpu: bool = False
) -> Case:
    """One image with every window of a sliding grid filled, all positions at once."""
    boxes = grid_boxes(side, side, window, stride)
    last = layout == "nhwc"
    where = peers.where_last if last else peers.where
    others: dict[str, Bind] = {
        "torch.where": calls.plainly(where),
        "image * (1 - mask) + fill * mask": calls.plainly(
            peers.multiply_and_add_last if last else peers.multiply_and_add
        ),
        "slices": calls.slices(peers.slices_last if last else peers.slices, boxes.tolist()),
    }
    if on_gpu or precision == "fp32":
        others[COMPILED] = calls.compiled(where)
    item = DTYPES[precision].itemsize
    image_bytes = 3 * side * side * item
    return Case(
        kernel="occlude",
        name=f"occlude-{len(boxes)}x3x{side}-{precision}-{layout}",
        precision=precision,
        draw=partial(inputs.image_and_boxes, side, boxes, precision, layout),
        ours=calls.plainly(partial(occlude, memory_format=LAYOUTS[layout])),
        peers=others,
        check=checks.check_occlude,
        work=Work(image_bytes * (1 + len(boxes)) + boxes.nbytes),
        bars={"image * (1 - mask) + fill * mask": 4.0} if on_gpu and precision == "bf16" else {},
        quick=not last and precision == "bf16",
    )


def spatial_max_case(
    shape: tuple[int, int, int, int],
    precision: str,
    layout: str,
    on_gpu: bool = False,
    floor_bar: float | None = None,
) -> Case:
    """The strongest value of each map and its place."""
    n, c, h, w = shape
    others: dict[str, Bind] = {"flatten(2).max(2)": calls.plainly(peers.flatten_max)}
    if n == 8 and c == 256 and layout == "nchw":
        others[COMPILED] = calls.compiled(peers.flatten_max)
    item = DTYPES[precision].itemsize
    return Case(
        kernel="spatial_max",
        name=f"spatial_max-{c}x{h}-n{n}-{precision}-{layout}",
        precision=precision,
        draw=partial(inputs.activations, shape, precision, layout),
        ours=calls.plainly(spatial_max),
        peers=others,
        check=checks.check_spatial_max,
        work=Work(n * c * h * w * item + n * c * (item + 4)),
        bars={} if on_gpu else {"flatten(2).max(2)": 1.0},
        floor_bar=floor_bar if on_gpu else None,
        quick=n == 8 and h == 13 and c == 256 and layout == "nchw",
    )


def merge_topk_case(channels: int, k: int, new: int) -> Case:
    """The running top k merged with one batch's candidates, many of them equal."""
    return Case(
        kernel="merge_topk",
        name=f"merge_topk-{channels}x{k}+{new}-fp32",
        precision="fp32",
        draw=partial(inputs.candidates, channels, k, new),
        ours=calls.plainly(merge_topk),
        peers={
            "cat + two stable sorts": calls.plainly(peers.cat_two_sorts),
            "cat + topk (ties as they fall)": calls.plainly(peers.cat_topk),
        },
        check=checks.check_merge_topk,
        work=Work((channels * (2 * k + new)) * (4 + 8)),
        quick=True,
    )
