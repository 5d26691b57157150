"""Random small networks: a list of steps on a pool of maps, in every spelling that PyTorch has.

A step takes maps from the pool and leaves a new one there, or writes to one in place, with all
that this means for the views of it that lie there too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import reject
from hypothesis import strategies as st
from torch import Tensor, nn

Pool = list[Tensor]


class Step(NamedTuple):
    """What to do, on which maps of the pool, with which module, and how."""

    kind: str
    sources: tuple[int, ...]
    how: tuple[Any, ...]
    module: nn.Module | None


class Program(nn.Module):
    """Runs steps on the images, and adds up linear layers on what heads make of some maps."""

    def __init__(self, steps: list[Step], heads: list[tuple[int, str, nn.Module]]) -> None:
        super().__init__()
        self.steps, self.heads = steps, heads
        self.held = nn.ModuleList(s.module for s in steps if s.module is not None)
        self.linears = nn.ModuleList(linear for _, _, linear in heads)

    def forward(self, images: Tensor) -> Tensor:
        pool = [images * 1]  # what is written to must not be the caller's
        modules = iter(self.held)
        for step in self.steps:
            module = next(modules) if step.module is not None else None
            pool.append(run(step, pool, module))
        vectors = (HEADS[how](pool[at]) for at, how, _ in self.heads)
        return sum(linear(v) for linear, v in zip(self.linears, vectors, strict=True))

    def extra_repr(self) -> str:
        steps = [f"{n + 1} = {s.kind}{s.sources} {s.how}" for n, s in enumerate(self.steps)]
        return "\n".join([*steps, *(f"head {at} {how}" for at, how, _ in self.heads)])


HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((2, 3)),
    "mean, kept": lambda x: torch.flatten(x.mean(dim=(-1, -2), keepdim=True), 1),
    "pooled": lambda x: F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1),
    "pooled to 2 x 3": lambda x: F.adaptive_avg_pool2d(x, (2, 3)).flatten(1),
    "flat": lambda x: x.reshape(len(x), -1),
    "flat, rectified": lambda x: x.flatten(1).relu_(),
    "largest": lambda x: x.amax((2, 3)),
}

POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "relu": lambda x: x.relu(),
    "F.relu, in place": lambda x: F.relu(x, inplace=True),
    "relu_": lambda x: x.relu_(),
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(-0.5, 1.5),
    "relu6, in place": lambda x: F.relu6(x, inplace=True),
    "leaky_relu_": lambda x: F.leaky_relu_(x, 0.2),
    "elu": lambda x: F.elu(x),
    "silu": lambda x: x * x.sigmoid(),
    "silu, in place": lambda x: F.silu(x, inplace=True),
    "hardswish, in place": lambda x: F.hardswish(x, inplace=True),
    "sigmoid_": lambda x: x.sigmoid_(),
    "tanh": torch.tanh,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "abs_": lambda x: x.abs_(),
    "square": lambda x: (x / 2) ** 2,
    "*= 2": lambda x: x.__imul__(0.7),
    "-= 1": lambda x: x.__isub__(0.3),
    "1 - x": lambda x: 1 - x,
    "x / 3 + x": lambda x: x / 3 + x,
    "x + x * x": lambda x: x + 0.1 * (x * x),
    "by channel": lambda x: x * torch.linspace(0.5, 1.5, x.shape[1]).to(x)[:, None, None],
    "clone": lambda x: x.clone(),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "detach": lambda x: x.detach(),
    "view": lambda x: x.view(x.shape),
    "identity": lambda x: x,
    "shifted": lambda x: torch.rsub(x, 2, alpha=0.5),
    "softmax": lambda x: x.softmax(1) * 3,  # has no rule
    "flipped": lambda x: x.flip(3),  # neither
}


def run(step: Step, pool: Pool, module: nn.Module | None) -> Tensor:
    first, *others = (pool[at] for at in step.sources)
    kind, how = step.kind, step.how
    if kind == "pointwise":
        return POINTWISE[how[0]](first)
    if kind in ("module", "squeeze and excite"):
        assert module is not None
        return module(first)
    if kind == "residual":
        assert module is not None
        return torch.add(first, module(first), alpha=how[0])
    if kind == "max_pool":
        return F.max_pool2d(first, *how)
    if kind == "avg_pool":
        return F.avg_pool2d(first, *how)
    if kind == "adaptive":
        return F.adaptive_avg_pool2d(first, how)
    if kind == "pad":
        return F.pad(first, how[:4], value=how[4])
    if kind == "cat":
        return torch.cat([first, *others], 1)
    if kind == "chunk":
        return first.chunk(how[0], 1)[how[1]]
    if kind == "slice":
        return first[:, how[0] : how[1]]
    if kind == "select":
        return first[:, how[0]].unsqueeze(1)
    if kind == "shuffle":
        n, c, h, w = first.shape
        turned = first.view(n, how[0], c // how[0], h, w).transpose(1, 2)
        return turned.reshape(n, c, h, w)
    return BINARY[kind](first, others[0])


BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "add, scaled": lambda x, y: torch.add(x, y, alpha=-0.6),
    "add_": lambda x, y: x.add_(y, alpha=0.8),
    "sub": lambda x, y: x - y,
    "+=": lambda x, y: x.__iadd__(y),
    "mul": lambda x, y: x * y * 0.5,
    "mul_": lambda x, y: x.mul_(y),
    "div": lambda x, y: x / (1 + y * y),
}


class SqueezeAndExcite(nn.Module):
    """Channels weighed by what their means say: Hu et al. (2018)."""

    def __init__(self, channels: int, by_linear: bool, in_place: bool) -> None:
        super().__init__()
        self.by_linear, self.in_place = by_linear, in_place
        kind = nn.Linear if by_linear else lambda i, o: nn.Conv2d(i, o, 1)
        self.down, self.up = kind(channels, 2), kind(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3)) if self.by_linear else F.adaptive_avg_pool2d(x, 1)
        scale = self.up(F.relu(self.down(means), inplace=True)).sigmoid()
        scale = scale.view(len(x), -1, 1, 1) if self.by_linear else scale
        return x.mul_(scale) if self.in_place else scale * x


def _pair(draw: st.DrawFn, low: int, high: int) -> tuple[int, int]:
    return draw(st.integers(low, high)), draw(st.integers(low, high))


def _conv(draw: st.DrawFn, shape: torch.Size) -> nn.Module | None:
    _, channels, height, width = shape
    kernel, stride = _pair(draw, 1, 4), _pair(draw, 1, 4)
    dilation, padding = _pair(draw, 1, 3), _pair(draw, 0, 3)
    axes = zip((height, width), kernel, stride, dilation, padding, strict=True)
    for side, k, s, d, p in axes:
        outputs = range((side + 2 * p - (k - 1) * d - 1) // s + 1)
        # torch 2.14 crashes where a convolution with a bias reads nothing but padding.
        if not any(0 <= o * s + t * d - p < side for o in outputs for t in range(k)):
            return None
    groups = draw(st.sampled_from([g for g in (1, channels, 2, 3) if channels % g == 0]))
    out = groups * draw(st.integers(1, max(1, 8 // groups)))
    bias = draw(st.booleans())
    conv = nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias)
    return nn.Sequential(conv, nn.BatchNorm2d(out)) if draw(st.booleans()) else conv


def _step(draw: st.DrawFn, pool: Pool) -> Step | None:
    """Draw a step that can run on these maps, or None if what was drawn cannot."""
    # Recent maps are drawn more often, or networks would be broad and never deep.
    at = len(pool) - 1 - min(draw(st.integers(0, 5)), draw(st.integers(0, 5)), len(pool) - 1)
    kind = draw(
        st.sampled_from(
            ["conv"] * 4 + ["pointwise"] * 4 + ["max_pool", "avg_pool", "adaptive", "pad", "cat"]
            + ["chunk", "slice", "select", "shuffle", "residual", "squeeze and excite"]
            + ["binary"] * 3
        )
    )  # fmt: skip
    _, c, h, w = pool[at].shape
    same = [n for n, other in enumerate(pool) if other.shape == pool[at].shape]
    if kind == "pointwise":
        return Step(kind, (at,), (draw(st.sampled_from(sorted(POINTWISE))),), None)
    if kind == "conv":
        module = _conv(draw, pool[at].shape)
        return module and Step("module", (at,), (), module)
    if kind == "residual":
        return Step(kind, (at,), (draw(st.sampled_from([1, 0.3])),), nn.Conv2d(c, c, 3, padding=1))
    if kind in ("max_pool", "avg_pool"):
        kernel, stride = _pair(draw, 1, 4), _pair(draw, 1, 4)
        padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
        if any(s + 2 * p < k for s, k, p in zip((h, w), kernel, padding, strict=True)):
            return None
        ceil = draw(st.booleans())
        if kind == "avg_pool":
            divisor = draw(st.sampled_from([None, None, 5]))
            how = (kernel, stride, padding, ceil, draw(st.booleans()), divisor)
            return Step(kind, (at,), how, None)
        dilation = draw(st.sampled_from([1, 1, 2]))
        sides = zip((h, w), kernel, padding, strict=True)
        if any(s + 2 * p < (k - 1) * dilation + 1 for s, k, p in sides):
            return None
        return Step(kind, (at,), (kernel, stride, padding, dilation, ceil), None)
    if kind == "adaptive":
        return Step(kind, (at,), _pair(draw, 1, 7), None)
    if kind == "pad":
        how = (*_pair(draw, 0, 2), *_pair(draw, 0, 2), draw(st.sampled_from([0.0, 0.5])))
        return Step(kind, (at,), how, None)
    if kind == "cat":
        fitting = [n for n, other in enumerate(pool) if other.shape[2:] == (h, w)]
        others = draw(st.lists(st.sampled_from(fitting), min_size=1, max_size=2))
        return Step(kind, (at, *others), (), None) if c < 16 else None
    if kind == "chunk":
        pieces = -(-c // -(-c // 2))
        return Step(kind, (at,), (2, draw(st.integers(0, pieces - 1))), None)
    if kind == "slice":
        start = draw(st.integers(0, c - 1))
        return Step(kind, (at,), (start, draw(st.integers(start + 1, c))), None)
    if kind == "select":
        return Step(kind, (at,), (draw(st.integers(0, c - 1)),), None)
    if kind == "shuffle":
        groups = [g for g in range(2, c) if c % g == 0]
        return Step(kind, (at,), (draw(st.sampled_from(groups)),), None) if groups else None
    if kind == "squeeze and excite":
        module = SqueezeAndExcite(c, draw(st.booleans()), draw(st.booleans()))
        return Step(kind, (at,), (), module)
    return Step(draw(st.sampled_from(sorted(BINARY))), (at, draw(st.sampled_from(same))), (), None)


@st.composite
def programs(draw: st.DrawFn, size: tuple[int, int], most: int = 9) -> Program:
    """Draw a network for images of that size, with at least one convolution."""
    stem = draw(st.integers(1, 2))
    first = nn.Conv2d(3, draw(st.integers(2, 6)), 3, stem, padding=draw(st.integers(0, 1)))
    steps = [Step("module", (0,), (), first)]
    pool: Pool = [torch.zeros(2, 3, *size)]
    pool.append(first(pool[0]))
    for _ in range(draw(st.integers(1, most))):
        step = _step(draw, pool)
        if step is None:
            continue
        try:
            pool.append(run(step, [value.detach().clone() for value in pool], step.module))
        except RuntimeError:  # such as a view of what does not lie in one piece
            continue
        steps.append(step)
    ends = draw(st.lists(st.integers(0, min(3, len(pool) - 2)), max_size=2, unique=True))
    heads = []
    for at in dict.fromkeys([len(pool) - 1, *(len(pool) - 1 - end for end in ends)]):
        how = draw(st.sampled_from(sorted(HEADS)))
        heads.append((at, how, nn.Linear(HEADS[how](pool[at].clone()).shape[1], 4)))
    program = Program(steps, heads).eval()
    images = torch.zeros(2, 3, *size).contiguous(memory_format=torch.channels_last)
    try:
        for batch in (images, *torch.split(images, 1), torch.zeros(1, 3, *size)):
            program(batch)
    except RuntimeError:  # such as a write to what overlaps with what is read
        reject()
    return program
