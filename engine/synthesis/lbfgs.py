"""L-BFGS for many problems at once: each row of a batch is minimised by itself.

    x' = x - t H g,   H from the last m pairs s = x' - x, y = g' - g   (Nocedal, 1980)

H g is the two-loop recursion (Nocedal and Wright, 2006, algorithm 7.4); a row's step t comes from
its own line search, which halves or so until the loss has fallen enough (Armijo, 1966).
`torch.optim.LBFGS` on a batch takes it for one vector: one curvature and one step for all, and the
hardest row decides how far the others go.

Here rows share the call of the function and nothing else. A row's numbers come from its own alone,
in an order that is the same at every place of the batch, so that a row is the same bit by bit in
any company, as long as what is minimised is. NaN or infinity stays in its row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from fc7.engine.errors import OptionError
from fc7.engine.synthesis.curvature import Pairs, dot

ValueAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From points (N, *shape) to each row's value, (N,), and its gradient, (N, *shape)."""

Watch = Callable[[Tensor], None]
"""Called after each evaluation with which rows it made better, (N,) bool."""


class Status(IntEnum):
    """Why a row has stopped, if it has."""

    RUNNING = 0
    GRADIENT = 1  # no element of the gradient is larger than asked for
    LOSS = 2  # a step changed the loss by less than asked for
    EVALUATIONS = 3  # it has had as many as it may
    STUCK = 4  # no step along the steepest descent lowers the loss: rounding is in the way
    NOT_FINITE = 5  # the loss or the gradient is NaN or infinite where the row starts


@dataclass(frozen=True)
class LbfgsOptions:
    """How rows are minimised, and until when.

    Attributes:
        evaluations: of the function, for each row, the first included.
        pairs: of steps and changes of the gradient that are remembered. They take twice as many
            times the memory of the points.
        gradient_tolerance: a row stops where no element of its gradient is larger.
        loss_tolerance: a row stops where a step lowers its loss by no more than this share of it.
        trials: steps that a line search tries before it gives up.
    """

    evaluations: int = 200
    pairs: int = 10
    gradient_tolerance: float = 1e-7
    loss_tolerance: float = 1e-7
    trials: int = 20

    def __post_init__(self) -> None:
        if min(self.evaluations, self.pairs, self.trials) < 1:
            raise OptionError(
                f"evaluations is {self.evaluations}, pairs {self.pairs}, trials {self.trials}; "
                "each is 1 or more"
            )
        if not (self.gradient_tolerance >= 0 and self.loss_tolerance >= 0):
            raise OptionError(
                f"gradient_tolerance is {self.gradient_tolerance}, loss_tolerance "
                f"{self.loss_tolerance}; neither may be below 0"
            )


@dataclass(frozen=True)
class LbfgsResult:
    """What a minimisation ends with.

    Attributes:
        x: (N, *shape), the best point of each row.
        losses: (N,), there.
        evaluations: (N,) int64, until the row stopped.
        status: (N,) int64, see `Status`.
        curve: (E, N), the best loss of each row after each evaluation.
    """

    x: Tensor
    losses: Tensor
    evaluations: Tensor
    status: Tensor
    curve: Tensor


def minimise(
    value_and_gradient: ValueAndGradient,
    start: Tensor,
    options: LbfgsOptions | None = None,
    watch: Watch | None = None,
) -> LbfgsResult:
    """Minimise N independent functions of one shape.

    Args:
        value_and_gradient: of points (N, *shape), each row's value and gradient; see
            `ValueAndGradient`. It is called with all rows every time; what it says of rows that
            have stopped is not used.
        start: (N, *shape), float32 or float64.
        options: how.
        watch: see `Watch`.
    """
    search = BatchedLbfgs(start, options)
    curve = []
    while bool(search.running.any()):
        before = search.losses
        search.step(*value_and_gradient(search.trial))
        curve.append(search.losses.clone())
        if watch is not None:
            watch(search.losses < before)
    return LbfgsResult(
        search.x,
        search.losses,
        search.evaluations,
        search.status,
        torch.stack(curve) if curve else start.new_empty(0, len(start)),
    )


class BatchedLbfgs:
    """The state of a minimisation, for callers who evaluate the function themselves.

        search = BatchedLbfgs(start)
        while search.running.any():
            search.step(*value_and_gradient(search.trial))

    Each call of `step` is one evaluation of every row. Rows may join and leave at any step, see
    `reset`: the others do not notice.

    Args:
        start: (N, *shape), float32 or float64; copied.
        options: how.

    Attributes:
        losses: (N,), at `x`; infinite before a row's first evaluation.
        evaluations: (N,) int64, of each row until it stopped.
        status: (N,) int64, see `Status`.

    Raises:
        ValueError: start is no batch of floating numbers.
    """

    # A step is long enough where the loss falls by this share of what its slope promises.
    _ARMIJO = 1e-4
    # A line search goes on with no less and no more than these shares of the step that failed.
    _LEAST, _MOST = 0.1, 0.5
    # A step that taught nothing of the curvature is followed by one this much longer.
    _LONGER = 4.0

    def __init__(self, start: Tensor, options: LbfgsOptions | None = None) -> None:
        if start.dtype not in (torch.float32, torch.float64) or start.ndim < 2:
            raise ValueError(
                f"expected (N, *shape) of float32 or float64, got {tuple(start.shape)} of "
                f"{start.dtype}"
            )
        self._options = options or LbfgsOptions()
        self._shape = start.shape
        self._x = start.detach().clone().flatten(1)
        count, device = len(start), start.device
        self._gradient = torch.zeros_like(self._x)
        self._direction = torch.zeros_like(self._x)
        self._trial = self._x.clone()
        self._pairs = Pairs(self._options.pairs, self._x)
        self.losses = start.new_full((count,), torch.inf)
        self.evaluations = torch.zeros(count, dtype=torch.int64, device=device)
        self.status = torch.zeros_like(self.evaluations)
        self._step = start.new_zeros(count)
        self._slope = start.new_zeros(count)
        self._trials = torch.zeros_like(self.evaluations)

    @property
    def trial(self) -> Tensor:
        """The points to evaluate next, (N, *shape); of rows that have stopped, their `x`."""
        return self._trial.view(self._shape)

    @property
    def x(self) -> Tensor:
        """The best point of each row so far, (N, *shape)."""
        return self._x.view(self._shape)

    @property
    def running(self) -> Tensor:
        """Which rows have not stopped, (N,) bool."""
        return self.status == Status.RUNNING

    def reset(self, rows: Tensor, start: Tensor) -> None:
        """Begin new problems in the place of some rows.

        Args:
            rows: (K,) int64, their places.
            start: (K, *shape), where they start.
        """
        points = start.detach().flatten(1).to(self._x)
        self._x[rows] = points
        self._trial[rows] = points
        self._pairs.forget(rows)
        self.losses[rows] = torch.inf
        for counter in (self.evaluations, self.status, self._trials):
            counter[rows] = 0
        self._step[rows] = 0

    @torch.no_grad()
    def step(self, values: Tensor, gradients: Tensor) -> None:
        """Take in what the function is at `trial`, and choose the next trial of each row.

        Args:
            values: (N,).
            gradients: (N, *shape).
        """
        options, running = self._options, self.running
        values = values.detach().to(self.losses)
        gradients = gradients.detach().flatten(1).to(self._x)
        self.evaluations += running.long()
        finite = values.isfinite() & gradients.isfinite().all(1)
        starts = self.evaluations == 1
        enough = self.losses + self._ARMIJO * self._step * self._slope
        accepted = running & finite & (starts | (values <= enough))
        failed = running & ~accepted
        self._trials += failed.long()

        dies = failed & starts
        gives_up = failed & ~starts & (self._trials >= options.trials)
        # Where the remembered curvature leads nowhere, the steepest descent may lead on.
        restarts = gives_up & (self._pairs.count > 0)
        shorter = self._shorter(values, gradients, finite)

        learnt = self._learn(accepted & ~starts, gradients)
        change = self.losses - values
        small = change <= options.loss_tolerance * torch.maximum(self.losses.abs(), values.abs())
        self._move(accepted, values, gradients)
        self._pairs.forget(restarts)
        turns = accepted | restarts
        if bool(turns.any()):
            self._turn(turns, starts | restarts, learnt)
        self._step = torch.where(failed & ~gives_up, shorter, self._step)

        for reached, status in (
            (self.evaluations >= options.evaluations, Status.EVALUATIONS),
            (gives_up & ~restarts, Status.STUCK),
            (accepted & ~starts & small, Status.LOSS),
            (accepted & (self._gradient.abs().amax(1) <= options.gradient_tolerance),
             Status.GRADIENT),
            (dies, Status.NOT_FINITE),
        ):  # fmt: skip
            self.status = self.status.masked_fill(running & reached, int(status))
        ahead = self._x + self._step[:, None] * self._direction
        self._trial = torch.where(self.running[:, None], ahead, self._x)

    def _learn(self, steps: Tensor, gradients: Tensor) -> Tensor:
        """Remember the curvature along rows' steps; return (N,) bool, of which there was any."""
        return self._pairs.add(steps, self._trial - self._x, gradients - self._gradient)

    def _move(self, rows: Tensor, values: Tensor, gradients: Tensor) -> None:
        self._x = torch.where(rows[:, None], self._trial, self._x)
        self._gradient = torch.where(rows[:, None], gradients, self._gradient)
        self.losses = torch.where(rows, values, self.losses)
        self._trials = self._trials.masked_fill(rows, 0)

    def _turn(self, rows: Tensor, begins: Tensor, learnt: Tensor) -> None:
        """Choose a new direction, and the first step along it."""
        direction = -self._pairs.inverse_hessian_times(self._gradient)
        slope = dot(direction, self._gradient)
        leads_down = slope < 0  # False of NaN
        self._pairs.forget(rows & ~leads_down)
        steepest = rows & ~leads_down | (self._pairs.count == 0)
        direction = torch.where(steepest[:, None], -self._gradient, direction)
        slope = torch.where(steepest, -dot(self._gradient, self._gradient), slope)
        first = (1 / self._gradient.abs().sum(1)).clamp(max=1)
        longer = (self._LONGER * self._step).maximum(first)
        first = torch.where(begins | learnt, first, longer)
        step = torch.where(steepest, first, torch.ones_like(first))
        self._direction = torch.where(rows[:, None], direction, self._direction)
        self._slope = torch.where(rows, slope, self._slope)
        self._step = torch.where(rows, step, self._step)
        self._trials = self._trials.masked_fill(rows, 0)

    def _shorter(self, values: Tensor, gradients: Tensor, finite: Tensor) -> Tensor:
        """Return steps at the least value of the cubic that agrees with both ends of those taken.

        Nocedal and Wright (2006), equation 3.59; where it has none, or an end is not finite, the
        shortest that is allowed.
        """
        step, slope, end = self._step, self._slope, dot(self._direction, gradients)
        bend = slope + end - 3 * (values - self.losses) / step
        root = (bend * bend - slope * end).sqrt()
        share = 1 - (end + root - bend) / (end - slope + 2 * root)
        usable = finite & share.isfinite()
        share = torch.where(usable, share, torch.zeros_like(share))
        return step * share.clamp(self._LEAST, self._MOST)
