"""k-means and silhouettes against loops over all pairs, and all ways to divide few points."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from fc7.indexing import IndexingError, kmeans, silhouette
from fc7.indexing.clusters import _filled


def _blobs(seed: int, sizes: list[int], spread: float = 0.1) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(len(sizes), 5)) * 4
    parts = [
        centre + spread * generator.normal(size=(size, 5))
        for centre, size in zip(centres, sizes, strict=True)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("seed", range(4))
def test_known_clusters_are_found_the_largest_first(seed: int) -> None:
    sizes = [7, 23, 1, 12]
    points = _blobs(seed, sizes)
    found = kmeans(points, 4, seed)
    assert found.sizes.tolist() == sorted(sizes, reverse=True)
    truth = np.repeat([2, 0, 3, 1], sizes)
    assert found.labels.tolist() == truth.tolist()
    for each in range(4):
        np.testing.assert_allclose(found.centroids[each], points[truth == each].mean(0), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_no_division_of_few_points_is_better(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(8, 2))
    best = np.inf
    for labels in itertools.product(range(3), repeat=8):
        own = np.array(labels)
        means = np.array([points[own == each].mean(0) if (own == each).any() else [0, 0]
                          for each in range(3)])  # fmt: skip
        best = min(best, float(((points - means[own]) ** 2).sum()))
    found = kmeans(points, 3, seed=seed, restarts=30)
    assert found.inertia == pytest.approx(best, rel=1e-12)


def test_labels_are_of_the_nearest_centroids_and_inertia_is_theirs() -> None:
    points = np.random.default_rng(1).normal(size=(201, 3)).astype(np.float32)
    found = kmeans(points, 9, seed=3)
    distances = np.array([[sum((p - c) ** 2) for c in found.centroids] for p in points])
    assert found.labels.tolist() == distances.argmin(1).tolist()
    assert found.inertia == pytest.approx(distances.min(1).sum(), rel=1e-10)
    again = kmeans(points, 9, seed=3)
    assert np.array_equal(again.labels, found.labels)
    assert np.array_equal(again.centroids, found.centroids)


def test_fewer_points_that_differ_than_clusters() -> None:
    points = np.repeat([[1.0, 2.0], [3.0, 4.0]], [2, 3], axis=0)
    found = kmeans(points, 4)
    assert found.sizes.tolist() == [3, 2]
    assert found.inertia == 0
    assert kmeans(points[:1], 1).labels.tolist() == [0]
    assert kmeans(np.zeros((5, 2)), 3).sizes.tolist() == [5]


def test_a_centroid_that_is_nobodys_takes_the_point_furthest_off() -> None:
    squares = np.array([[0.0, 5.0, 9.0], [4.0, 6.0, 9.0], [9.0, 1.0, 9.0]])
    assert _filled(squares).tolist() == [0, 2, 1]


@pytest.mark.parametrize("seed", range(3))
def test_silhouettes_are_those_of_the_formula(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(17, 3))
    labels = generator.integers(0, 4, 17) * 3  # numbers need not follow one another
    labels[0] = 100  # alone in its cluster
    values = []
    for i in range(17):

        def mean_to(cluster: int, i: int = i) -> float:
            others = [j for j in range(17) if labels[j] == cluster and j != i]
            return float(np.mean([np.linalg.norm(points[i] - points[j]) for j in others]))

        if (labels == labels[i]).sum() == 1:
            values.append(0.0)
            continue
        a = mean_to(labels[i])
        b = min(mean_to(c) for c in set(labels.tolist()) - {int(labels[i])})
        values.append((b - a) / max(a, b))
    assert silhouette(points, labels) == pytest.approx(np.mean(values), rel=1e-12)


def test_clusters_that_lie_apart_have_the_highest_silhouette() -> None:
    points = _blobs(5, [20, 20, 20])
    found = {k: silhouette(points, kmeans(points, k).labels) for k in (2, 3, 4, 5)}
    assert max(found, key=lambda k: found[k]) == 3
    assert found[3] > 0.9
    assert silhouette(np.zeros((4, 2)), [0, 0, 1, 1]) == 0


def test_what_cannot_be_clustered() -> None:
    points = np.zeros((3, 2))
    for k in (0, 4):
        with pytest.raises(IndexingError, match="ask for 1 to 3"):
            kmeans(points, k)
    with pytest.raises(IndexingError, match="restarts"):
        kmeans(points, 1, restarts=0)
    with pytest.raises(IndexingError, match="NaN"):
        kmeans(np.full((3, 2), np.nan), 1)
    with pytest.raises(IndexingError, match="shape"):
        kmeans(np.zeros(3), 1)
    with pytest.raises(IndexingError, match="2 at least"):
        silhouette(points, [1, 1, 1])
    with pytest.raises(IndexingError, match="one for each"):
        silhouette(points, [1, 1])
