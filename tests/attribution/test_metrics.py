"""Metrics of maps, against slow loops; and what they say of occlusion on shapes it has not seen."""

import math

import pytest
import torch
from torch import nn
from truth import MEAN, Case, Truth, enliven, network_of

from fc7.engine.attribution.metrics import (
    centre_prior,
    deletion_auc,
    insertion_auc,
    iou,
    pointing_game,
    random_maps,
)
from fc7.engine.attribution.occlusion import Occlusion
from fc7.engine.attribution.occlusion.grid import to_pixels
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.errors import OptionError
from fc7.engine.models import load_model

SIZE = (6, 7)


@pytest.fixture(scope="module")
def network():
    case = Case(lambda m, x: m.c(m.a(x).relu()).flatten(1), SIZE, c=nn.Conv2d(8, 8, 3, 2))
    return network_of(enliven(case, SIZE), SIZE)


def numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_pointing_game():
    maps = (numbers(40, *SIZE) * 5).round()  # with several largest values
    masks = numbers(40, *SIZE, seed=1) < 0.4
    masks[0] = False
    found = pointing_game(maps, masks)
    assert found.dtype == torch.float64
    assert len(set(found.tolist())) > 3
    for n in range(40):
        places = [(y, x) for y in range(SIZE[0]) for x in range(SIZE[1])]
        largest = max(float(maps[n, y, x]) for y, x in places)
        shared = [bool(masks[n, y, x]) for y, x in places if float(maps[n, y, x]) == largest]
        assert float(found[n]) == sum(shared) / len(shared)


def test_iou():
    masks, truths = numbers(30, *SIZE) < 0.3, numbers(30, *SIZE, seed=1) < 0.5
    masks[0] = truths[0]
    masks[1], masks[2] = False, True
    truths[2] = masks[3] = truths[3] = False
    found = iou(masks, truths)
    assert found.dtype == torch.float64
    for n in range(30):
        places = [(y, x) for y in range(SIZE[0]) for x in range(SIZE[1])]
        mine = {place for place in places if masks[(n, *place)]}
        true = {place for place in places if truths[(n, *place)]}
        expected = len(mine & true) / len(mine | true) if mine | true else 1.0
        assert float(found[n]) == expected
    assert found[:4].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert iou(masks[:0], truths[:0]).shape == (0,)
    for wrong in (masks[:, :2], masks.float(), masks[0]):
        with pytest.raises(ValueError, match="two bool tensors"):
            iou(wrong, truths)


def area_by_hand(truth, image, importance, target, steps, fill, deletes):
    """Cover or uncover pixels one after the other; add up trapezia."""
    places = [(y, x) for y in range(SIZE[0]) for x in range(SIZE[1])]
    places.sort(key=lambda place: -float(importance[place]))  # stable: ties in reading order
    shares, probabilities = [], []
    for step in range(steps + 1):
        count = round(step * len(places) / steps)
        picture = image.clone()
        for y, x in places[:count] if deletes else places[count:]:
            for channel in range(3):
                picture[channel, y, x] = fill[channel]
        shares.append(count / len(places))
        (logits,) = truth.logits(picture[None]).tolist()
        whole = sum(math.exp(logit) for logit in logits)
        probabilities.append(math.exp(logits[target]) / whole)
    return sum(
        (shares[k] - shares[k - 1]) * (probabilities[k] + probabilities[k - 1]) / 2
        for k in range(1, steps + 1)
    )


@pytest.mark.parametrize("steps", [1, 5, 42, 100])
@pytest.mark.parametrize("fill", [None, 0.2, (0.1, 0.9, 0.5)])
def test_deletion_and_insertion(network, steps, fill):
    truth = Truth.of(network)
    images, maps, targets = numbers(3, 3, *SIZE, seed=2), numbers(3, *SIZE, seed=3), [0, 4, 2]
    maps[1] = (maps[1] * 3).round()  # with ties
    colour = MEAN if fill is None else (fill,) * 3 if isinstance(fill, float) else fill
    for metric, deletes in ((deletion_auc, True), (insertion_auc, False)):
        found = metric(network, images, maps, targets, steps, fill, batch=2)
        assert found.dtype == torch.float64
        expected = [
            area_by_hand(truth, *each, steps, colour, deletes)
            for each in zip(images, maps, targets, strict=True)
        ]
        # Probabilities from float32 logits of the order of 1.
        assert found.tolist() == pytest.approx(expected, abs=2e-6)
        alone = metric(network, images[2:], maps[2:], targets[2:], steps, fill)
        assert alone.tolist() == pytest.approx(expected[2:], abs=2e-6)
    assert max(expected) - min(expected) > 0.01


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 8), (7, 3)])
def test_centre_prior(size):
    found = centre_prior(size)
    for y in range(size[0]):
        for x in range(size[1]):
            down = (y + 0.5 - size[0] / 2) / (size[0] / 2)
            across = (x + 0.5 - size[1] / 2) / (size[1] / 2)
            assert float(found[y, x]) == pytest.approx(-math.hypot(down, across), abs=1e-15)


def test_random_maps():
    maps = random_maps(20, (11, 13), seed=5)
    assert torch.equal(maps[:7], random_maps(7, (11, 13), seed=5))
    assert not torch.equal(maps, random_maps(20, (11, 13), seed=6))
    assert maps.unique().numel() == maps.numel()
    # 2,860 numbers: the mean of as many lies within 5 / sqrt(12 * 2860) of a half.
    assert abs(float(maps.mean()) - 0.5) < 0.027
    assert 0 <= maps.min() < 0.01 < 0.99 < maps.max() < 1


def test_arguments_out_of_range(network):
    images, maps = numbers(2, 3, *SIZE), numbers(2, *SIZE)
    for metric in (deletion_auc, insertion_auc):
        for targets, options, said in (
            ([0, 5], {}, "no class 5; test has 0 to 4"),
            ([-1, 0], {}, "no class -1"),
            ([0], {}, "1 classes for 2 images"),
            ([0, 1], {"steps": 0}, "steps is 0"),
            ([0, 1], {"batch": 0}, "batch 0"),
            ([0, 1], {"fill": 2.0}, "fill is 2.0"),
        ):
            with pytest.raises(OptionError, match=said):
                metric(network, images, maps, targets, **options)
        for others in (maps[:1], maps[:, :5], maps[:, None]):
            with pytest.raises(ValueError, match=r"maps \(N, H, W\)"):
                metric(network, images, others, [0, 1])
        with pytest.raises(ValueError, match="NaN"):
            metric(network, images, maps * torch.nan, [0, 1])
    with pytest.raises(ValueError, match="NaN"):
        pointing_game(maps * torch.nan, maps > 0)
    with pytest.raises(ValueError, match="bool masks"):
        pointing_game(maps, maps)
    with pytest.raises(ValueError, match="bool masks"):
        pointing_game(maps, maps[:1] > 0)


def test_occlusion_finds_the_object():
    """On 100 pictures that tiny-shapes was not trained on, whose objects' masks are known.

    Observed: pointing 0.79, deletion 0.08, insertion 0.75; the centre 0.29, 0.17 and 0.51; noise
    by the pixel 0.10, 0.16 and 0.16; noise on occlusion's own grid points at 0.05. The bounds leave
    a third of each difference or more, which is several times the error of 100 pictures' mean.
    """
    network, source = load_model("tiny-shapes", device="cpu"), ShapesSource(100, 987654)
    rows = range(100)
    images = torch.stack([source.decode(source.read(row)) for row in rows]).float() / 255
    masks = torch.from_numpy(source.masks(rows))
    labels = torch.tensor(source.rows()["label"].to_pylist())
    occlusion = Occlusion(network, 16, 8)
    maps = to_pixels(occlusion.maps(images, labels).drops, (64, 64), 16, 8)
    same_grid = to_pixels(random_maps(100, occlusion.grid, 1), (64, 64), 16, 8)
    assert float(pointing_game(same_grid, masks).mean()) < 0.25

    def measured(maps):
        areas = (f(network, images, maps, labels, steps=8) for f in (deletion_auc, insertion_auc))
        return [float(each.mean()) for each in (pointing_game(maps, masks), *areas)]

    pointing, deletion, insertion = measured(maps)
    assert pointing > 0.65
    centre, noise = centre_prior((64, 64)).expand(100, -1, -1), random_maps(100, (64, 64), 0)
    for others in (centre, noise):
        other_pointing, other_deletion, other_insertion = measured(others)
        assert pointing > other_pointing + 0.3
        assert deletion < other_deletion - 0.04
        assert insertion > other_insertion + 0.15
