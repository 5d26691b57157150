"""Stages one after another are queues one after another; facets are the clusters that are known."""

import itertools

import numpy as np
import pytest
import torch

from fc7.engine.errors import OptionError
from fc7.engine.models import Network, load_model
from fc7.engine.synthesis.classes import seed_of
from fc7.engine.synthesis.facet_plan import chosen_count, components, facets_of, told
from fc7.engine.synthesis.facet_stages import WIDTHS, stages
from fc7.engine.synthesis.objectives import class_logit
from fc7.engine.synthesis.queue import AscentQueue, Made, Task
from fc7.engine.synthesis.stages import Stages


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model("tiny-shapes", device="cpu")


def kinds(sizes: list[int], seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Vectors of 80 dimensions in groups that lie apart, in no order."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(len(sizes), 80)) * 3
    own = np.repeat(np.arange(len(sizes)), sizes)
    generator.shuffle(own)
    return (centres[own] + generator.normal(size=(len(own), 80)) * 0.2).astype(np.float32)


def test_stages_are_queues_one_after_another(network: Network) -> None:
    """Each task alone, queue by queue, by hand; curves are joined, starts are handed on."""
    recipes = stages(network, steps=7)
    start = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    tasks = [Task(row, class_logit(row), 50 + row, start if row % 2 else None) for row in range(5)]
    found = {
        one.row: one
        for group in Stages(network, class_logit(0), recipes, batch=2)(tasks)
        for one in group
    }
    assert sorted(found) == list(range(5))
    for task in tasks:
        curve, image = [], task.start
        for stage, recipe in enumerate(recipes):
            queue = AscentQueue(network, class_logit(0), recipe, batch=2)
            seed = task.seed if stage == 0 else seed_of(task.seed, None, 0, stage)
            made: Made = next(iter(queue([Task(0, task.objective, seed, image)])))[0]
            curve.append(made.curve)
            image = made.image
        assert image is not None
        assert torch.equal(found[task.row].curve, torch.cat(curve))
        assert torch.equal(found[task.row].image, image)


def test_masks_grow_until_all_pixels_ascend(network: Network) -> None:
    """By what one step of each stage changes of the image: the share that is far off the middle."""
    recipes = stages(network, steps=9)
    assert [recipe.steps for recipe in recipes] == [3, 3, 3]
    assert sum(recipe.steps for recipe in stages(network, steps=11)) == 11
    assert len(recipes) == len(WIDTHS)
    gradients = torch.ones(1, 3, 64, 64)
    masks = []
    for recipe in recipes:
        mask = gradients
        for operation in recipe.on_gradients:
            mask = operation(mask)
        masks.append(mask[0, 0])
    edges = [float(mask[0, 32]) for mask in masks]
    assert edges == sorted(edges)
    assert edges[0] < 0.05
    assert torch.allclose(masks[-1], torch.ones(64, 64))
    for smaller, larger in itertools.pairwise(masks):
        assert (smaller <= larger + 1e-6).all()
        assert float(smaller[32, 32]) == pytest.approx(1, abs=0.01)
    with pytest.raises(OptionError, match="one for each stage"):
        stages(network, steps=2)
    with pytest.raises(OptionError, match="no stage"):
        Stages(network, class_logit(0), [])


@pytest.mark.parametrize("sizes", [[30, 20, 10], [9, 8, 7, 6, 5], [25, 24]])
def test_as_many_facets_as_there_are_kinds(sizes: list[int]) -> None:
    vectors, rows = kinds(sizes), np.arange(1000, 1000 + sum(sizes))
    found = facets_of(vectors, rows, nearest=4)
    assert [facet.size for facet in found] == sizes
    again = facets_of(vectors, rows, nearest=4)
    assert told([found]) == told([again])
    # The nearest by distances in all 80 dimensions, in float64, of the vectors' own kind.
    generator = np.random.default_rng(0)
    generator.normal(size=(len(sizes), 80))
    own = np.repeat(np.arange(len(sizes)), sizes)
    generator.shuffle(own)
    points = components(vectors)
    for kind, facet in enumerate(found):
        members = np.flatnonzero(own == kind)
        distances = np.linalg.norm(points[members] - points[members].mean(0), axis=1)
        assert facet.nearest.tolist() == (1000 + members[np.argsort(distances)[:4]]).tolist()


def test_a_number_of_facets_that_is_asked_for() -> None:
    vectors = kinds([12, 12])
    assert len(facets_of(vectors, np.arange(24), count=5)) == 5
    assert len(facets_of(vectors, np.arange(24), most=1)) == 1
    assert len(facets_of(np.zeros((6, 80), np.float32), np.arange(6))) == 1
    assert len(facets_of(np.zeros((6, 80), np.float32), np.arange(6), count=3)) == 1
    assert facets_of(vectors[:1], np.array([7]))[0].nearest.tolist() == [7]
    assert len(facets_of(vectors[:2], np.arange(2))) == 1
    for wrong in ({"count": 0}, {"most": 0}, {"nearest": 0}, {"count": 25}):
        with pytest.raises(OptionError) as caught:
            facets_of(vectors, np.arange(24), **wrong)
        assert "\n" not in str(caught.value)


def test_components_keep_distances_where_they_can() -> None:
    """Fewer vectors than 50 lie in fewer dimensions: nothing is lost but rounding."""
    vectors = kinds([10, 11])
    found = components(vectors)
    assert found.shape == (21, 20)
    for first, second in ((0, 1), (3, 17), (20, 9)):
        true = np.linalg.norm(vectors[first].astype(np.float64) - vectors[second])
        assert np.linalg.norm(found[first] - found[second]) == pytest.approx(true, rel=1e-4)
    assert chosen_count(found, 10) == 2
