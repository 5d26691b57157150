"""L-BFGS of a batch against scipy's of one problem, and rows that must not notice each other."""

import math

import pytest
import torch
from torch import Tensor

from fc7.bench.descents import GramProblems, Values, by_autograd, scipy_of
from fc7.engine.errors import OptionError
from fc7.engine.synthesis.curvature import Pairs
from fc7.engine.synthesis.lbfgs import (
    BatchedLbfgs,
    LbfgsOptions,
    LbfgsResult,
    Status,
    ValueAndGradient,
    minimise,
)

EXACT = LbfgsOptions(evaluations=2000, gradient_tolerance=1e-9, loss_tolerance=0)


def rosenbrock(x: Tensor) -> Tensor:
    """(N, D) -> (N,); 0 where every element is 1."""
    a, b = x[:, :-1], x[:, 1:]
    return (100 * (b - a * a).square() + (1 - a).square()).sum(1)


def quadratic(scales: Tensor, centres: Tensor) -> Values:
    """Sum of scales (x - centres)^2, both (N, D)."""
    return lambda x: (scales * (x - centres).square()).sum(1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", [2, 7, 33])
def test_rosenbrock_as_few_evaluations_as_scipy(size: int) -> None:
    start = normal(5, size)
    found = minimise(by_autograd(rosenbrock), start, EXACT)
    # From some starts the descent ends in the other minimum, near (-1, 1, ..., 1).
    # Its loss is not 0, and rounding of that may stop a row first.
    assert set(found.status.tolist()) <= {Status.GRADIENT, Status.LOSS}
    gradient = by_autograd(rosenbrock)(found.x)[1]
    assert gradient.abs().max() <= 1e-6
    theirs = sum(scipy_of(by_autograd(rosenbrock), row[None], tolerance=1e-9)[1] for row in start)
    assert found.evaluations.sum() <= 1.5 * theirs


def test_quadratics_of_any_condition() -> None:
    scales = torch.logspace(0, 3, 20, dtype=torch.float64) * torch.tensor([[1e-6], [1.0], [1e6]])
    centres = normal(3, 20)
    found = minimise(by_autograd(quadratic(scales, centres)), normal(3, 20, seed=1),
                     LbfgsOptions(2000, gradient_tolerance=0, loss_tolerance=1e-16))  # fmt: skip
    assert torch.allclose(found.x, centres, rtol=0, atol=1e-5)


def test_the_direction_is_the_dense_matrix_s() -> None:
    """H by its definition, one rank-two update a pair, in the order of the pairs."""
    pairs = Pairs(3, torch.zeros(2, 6, dtype=torch.float64))
    steps, changes = normal(5, 2, 6), normal(5, 2, 6, seed=1)
    changes = changes + 6 * steps  # positive curvature
    masks = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 1], [1, 0]], dtype=torch.bool)
    held: list[list[tuple[Tensor, Tensor]]] = [[], []]
    for s, y, mask in zip(steps, changes, masks, strict=True):
        assert torch.equal(pairs.add(mask, s, y), mask)
        for row in range(2):
            held[row] = [*held[row], (s[row], y[row])][-3:] if mask[row] else held[row]
    gradient = normal(2, 6, seed=2)
    found = pairs.inverse_hessian_times(gradient)
    assert pairs.count.tolist() == [3, 2]
    identity = torch.eye(6, dtype=torch.float64)
    for row, own in enumerate(held):
        s, y = own[-1]
        inverse = identity * (s @ y) / (y @ y)
        for s, y in own:
            rho = 1 / (s @ y)
            left = identity - rho * torch.outer(s, y)
            inverse = left @ inverse @ left.T + rho * torch.outer(s, s)
        assert torch.allclose(found[row], inverse @ gradient[row], rtol=1e-10, atol=1e-12)


def test_a_pair_without_positive_curvature_is_not_kept() -> None:
    pairs = Pairs(2, torch.zeros(4, 3, dtype=torch.float64))
    step = torch.ones(4, 3, dtype=torch.float64)
    change = torch.stack([step[0], -step[0], 0 * step[0], torch.nan * step[0]])
    assert pairs.add(torch.ones(4, dtype=torch.bool), step, change).tolist() == [1, 0, 0, 0]
    gradient = normal(4, 3)
    assert torch.equal(pairs.inverse_hessian_times(gradient)[1:], gradient[1:])


def test_gram_problems_as_well_as_scipy() -> None:
    problems = GramProblems()
    evaluations = 100
    options = LbfgsOptions(evaluations, gradient_tolerance=0, loss_tolerance=0)
    found = minimise(by_autograd(problems.values), problems.start, options)
    for row in range(6):
        one = slice(row, row + 1)
        theirs, used = scipy_of(
            by_autograd(lambda x, one=one: problems.values(x, one)),
            problems.start[one],
            evaluations,
        )
        assert found.evaluations[row] <= 1.5 * used
        assert found.losses[row] <= 2 * theirs
    again = problems.values(found.x)
    assert torch.allclose(again, found.losses, rtol=1e-4)


def _same(a: LbfgsResult, b: LbfgsResult, of_a: list[int], of_b: list[int]) -> None:
    for name in ("x", "losses", "evaluations", "status"):
        assert torch.equal(getattr(a, name)[of_a], getattr(b, name)[of_b]), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [5, 37, 20_001])
def test_a_row_is_the_same_in_any_company(size: int, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        start = normal(4, size).float()
        options = LbfgsOptions(40)
        function = by_autograd(rosenbrock)
        whole = minimise(function, start, options)
        turned = minimise(function, start[[2, 3, 0, 1]], options)
        _same(whole, turned, [0, 1, 2, 3], [2, 3, 0, 1])
        alone = minimise(function, start[[1, 1, 1, 1]], options)
        _same(whole, alone, [1], [2])
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_mate_that_is_not_finite_touches_nobody(poison: float) -> None:
    start, options = normal(4, 9), LbfgsOptions(60)
    ill = start.clone()
    ill[2] = poison
    healthy = minimise(by_autograd(rosenbrock), start, options)
    found = minimise(by_autograd(rosenbrock), ill, options)
    _same(healthy, found, [0, 1, 3], [0, 1, 3])
    assert found.status[2] == Status.NOT_FINITE
    assert found.evaluations[2] == 1
    assert torch.equal(found.x[2].nan_to_num(7, 8, 9), ill[2].nan_to_num(7, 8, 9))


def test_a_step_to_where_nothing_is_finite_is_shortened() -> None:
    """-log has no value beyond 0, and the first steps from afar lead there."""
    function = by_autograd(lambda x: (50 * x - x.log()).sum(1))
    start = torch.tensor([[1.0, 2.0], [0.1, 30.0]], dtype=torch.float64)
    found = minimise(function, start, EXACT)
    assert torch.allclose(found.x, torch.full_like(start, 0.02), rtol=1e-7)


def test_rows_stop_by_themselves_and_stay_as_they_are() -> None:
    scales = torch.tensor([[1.0, 1.0], [1.0, 1e4]], dtype=torch.float64)
    function = by_autograd(quadratic(scales, torch.zeros(2, 2, dtype=torch.float64)))
    search = BatchedLbfgs(torch.ones(2, 2, dtype=torch.float64), EXACT)
    while search.running.all():
        search.step(*function(search.trial))
    assert search.running.tolist() == [False, True]
    x, loss, count = search.x[0].clone(), search.losses[0].clone(), int(search.evaluations[0])
    while search.running.any():
        values, gradients = function(search.trial)
        assert torch.equal(search.trial[0], x)
        values[0], gradients[0] = -torch.inf, torch.nan  # what a stopped row is told is not heard
        search.step(values, gradients)
    assert torch.equal(search.x[0], x)
    assert torch.equal(search.losses[0], loss)
    assert search.evaluations.tolist()[0] == count < search.evaluations[1]


def test_rows_join_a_batch_that_runs() -> None:
    function, start = by_autograd(rosenbrock), normal(5, 11)
    options = LbfgsOptions(70)
    whole = minimise(function, start, options)
    search = BatchedLbfgs(start[:3], options)
    for _ in range(9):
        search.step(*function(search.trial))
    search.reset(torch.tensor([2, 0]), start[3:])
    while search.running.any():
        search.step(*function(search.trial))
    assert torch.equal(search.x, whole.x[[4, 1, 3]])
    assert torch.equal(search.losses, whole.losses[[4, 1, 3]])
    assert torch.equal(search.evaluations, whole.evaluations[[4, 1, 3]])


def test_why_rows_stop() -> None:
    start = normal(1, 6)
    function = by_autograd(rosenbrock)

    def status(options: LbfgsOptions, function: ValueAndGradient = function) -> int:
        return int(minimise(function, start, options).status)

    assert status(LbfgsOptions(5)) == Status.EVALUATIONS
    assert status(LbfgsOptions(loss_tolerance=0.5)) == Status.LOSS
    assert status(LbfgsOptions(gradient_tolerance=1e3)) == Status.GRADIENT
    assert (
        status(LbfgsOptions(), lambda x: ((x - start).abs().amax(1), torch.ones_like(x)))
        == Status.STUCK
    )  # a kink, whose slope promises what no step keeps


def test_the_curve_falls_and_ends_at_the_losses() -> None:
    start = normal(3, 2, 5, 4).float()
    found = minimise(by_autograd(lambda x: rosenbrock(x.flatten(1))), start, LbfgsOptions(50))
    assert found.x.shape == start.shape
    assert len(found.curve) == int(found.evaluations.max())
    assert bool((found.curve.diff(dim=0) <= 0).all())
    assert torch.equal(found.curve[-1], found.losses)
    assert torch.equal(rosenbrock(found.x.flatten(1)), found.losses)


def test_wrong_arguments_are_named() -> None:
    for wrong in ({"evaluations": 0}, {"pairs": 0}, {"trials": 0}, {"loss_tolerance": math.nan}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            LbfgsOptions(**wrong)  # type: ignore[arg-type]
    for start in (torch.zeros(3), torch.zeros(3, 2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="float32 or float64"):
            BatchedLbfgs(start)
