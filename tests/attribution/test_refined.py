"""Refined maps: exact where they say so, interpolated elsewhere, by slow loops over exact maps."""

import pytest
import torch
from torch import nn
from truth import Case, enliven, network_of

from fc7.engine.attribution.occlusion import Occlusion
from fc7.engine.attribution.occlusion.refined import RefinedOcclusion
from fc7.engine.errors import OptionError

SIZE = (34, 30)


@pytest.fixture(scope="module")
def network():
    layers = {"c": nn.Conv2d(8, 12, 3, 2), "d": nn.MaxPool2d(3, 2)}
    case = Case(lambda m, x: m.d(m.c(m.a(x).relu()).relu()).flatten(1), SIZE, **layers)
    return network_of(enliven(case, SIZE), SIZE)


def coarse_numbers(count, every):
    found = [number for number in range(count) if number % every == 0]
    return found if found[-1] == count - 1 else [*found, count - 1]


def between(number, coarse):
    """Return the coarse places on both sides of a place, and how far it is from the first."""
    low = max(each for each in coarse if each <= number)
    high = min(each for each in coarse if each >= number)
    return low, high, (number - low) / (high - low) if high > low else 0.0


def refined_by_hand(exact, every, box):
    """Return what of an exact map, (rows, columns), a refined one would find."""
    rows, columns = exact.shape
    down, across = coarse_numbers(rows, every), coarse_numbers(columns, every)
    out = torch.zeros_like(exact)
    for r in range(rows):
        for c in range(columns):
            top, bottom, v = between(r, down)
            left, right, u = between(c, across)
            above = (1 - u) * exact[top, left] + u * exact[top, right]
            below = (1 - u) * exact[bottom, left] + u * exact[bottom, right]
            out[r, c] = (1 - v) * above + v * below
    corners = [(r, c) for r in range(rows - box[0] + 1) for c in range(columns - box[1] + 1)]
    r, c = max(corners, key=lambda at: out[at[0] :, at[1] :][: box[0], : box[1]].mean().item())
    out[r : r + box[0], c : c + box[1]] = exact[r : r + box[0], c : c + box[1]]
    return out


@pytest.mark.parametrize(
    ("window", "stride", "every", "region", "box"),
    [
        (6, 2, 3, 0.5, (8, 7)),
        (5, 3, 2, 0.3, (4, 3)),
        (8, 2, 5, 0.01, (1, 1)),
        (4, 4, 100, 0.4, (4, 4)),
        (30, 1, 2, 0.5, (3, 1)),
        (3, 7, 2, 0.5, (3, 3)),  # the last row of places lies behind the border
    ],
)
def test_exact_in_the_region_and_interpolated_elsewhere(
    network, window, stride, every, region, box
):
    images = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(4))
    targets = torch.tensor([1, 0, 4])
    options = (window, stride, 0.9, "logit", SIZE)
    refined = RefinedOcclusion(network, *options, every=every, region=region)
    exact = Occlusion(network, *options)
    assert refined.grid == exact.grid
    assert refined.unknown == ()
    found, whole = refined.maps(images, targets), exact.maps(images, targets)
    assert torch.equal(found.targets, targets)
    torch.testing.assert_close(found.scores, whole.scores)
    sides = zip(exact.grid, SIZE, strict=True)
    held = [sum(n * stride < side for n in range(count)) for count, side in sides]
    for n in range(3):
        drops = whole.drops[n, : held[0], : held[1]].double()
        expected = torch.zeros(exact.grid, dtype=torch.float64)
        expected[: held[0], : held[1]] = refined_by_hand(drops, every, box)
        # Both come from float32 sums of the order of 1.
        torch.testing.assert_close(found.drops[n].double(), expected, rtol=1e-5, atol=2e-6)
    assert whole.drops.abs().max() > 0.05


def test_all_of_the_grid_as_region_is_exact(network):
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(5))
    options = (7, 4, None, "probability", SIZE)
    refined = RefinedOcclusion(network, *options, every=4, region=1.0).maps(images)
    exact = Occlusion(network, *options).maps(images)
    assert torch.equal(refined.targets, exact.targets)
    torch.testing.assert_close(refined.drops, exact.drops, rtol=1e-5, atol=1e-6)


def test_computes_less(network):
    options = (6, 2, None, "logit", SIZE)
    exact = Occlusion(network, *options).plan.multiply_adds
    assert RefinedOcclusion(network, *options, every=3).plan.multiply_adds < exact / 5


@pytest.mark.parametrize(
    "options",
    [
        {"every": 1},
        {"every": 0},
        {"region": 0.0},
        {"region": 1.01},
        {"region": float("nan")},
        {"window": 31},
        {"stride": 0},
        {"fill": -0.1},
        {"score": "odds"},
    ],
)
def test_options_out_of_range(network, options):
    with pytest.raises(OptionError) as raised:
        RefinedOcclusion(network, **{"window": 6, "stride": 3, "size": SIZE, **options})
    assert "\n" not in str(raised.value)


def test_a_class_out_of_range(network):
    refined = RefinedOcclusion(network, 6, 3, size=SIZE)
    with pytest.raises(OptionError, match="no class 5"):
        refined.maps(torch.zeros(1, 3, *SIZE), [5])
