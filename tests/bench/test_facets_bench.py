"""Recall counts the textures of an object that its images are taken for, each once."""

import numpy as np

from fc7.bench.facets import UNIONS, purity, recall
from fc7.engine.data.facet_targets import FacetsSource
from fc7.engine.data.shape_drawing import OBJECTS
from fc7.engine.data.shapes import ShapesSource
from fc7.engine.synthesis.facet_plan import Facet
from fc7.engine.synthesis.facets import Plan


def test_recall_and_purity() -> None:
    targets = FacetsSource(None, UNIONS, [2, 4, 1, 4])
    near = [np.array([0, 1, 2]), np.array([3])]
    kinds = [[Facet(3, near[0]), Facet(1, near[1])]]
    plan = Plan(targets, kinds, ShapesSource(5, 0), np.zeros((5, 2)), {})  # type: ignore[arg-type]
    predicted = np.array([0, 0, 4, 5, 6, 7, 3, 12, 13, 12, 8])
    found = recall(plan, predicted)
    each = [found["objects"][name]["recall"] for name in OBJECTS]
    assert each == [0.25, 1.0, 0.0, 0.5]
    assert found["mean"] == 0.4375
    assert [found["objects"][name]["images"] for name in OBJECTS] == [2, 4, 1, 4]
    assert purity(plan, np.array([5, 5, 1, 2])) == 0.75
