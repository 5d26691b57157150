"""Which facets a class or a unit has: clusters of the rows that excite it.

Nguyen, Yosinski and Clune, 2016, arXiv:1602.03616, project the rows' fc7 by PCA to 50
dimensions and by t-SNE to 2, take k-means of k = 10, and begin each facet with the mean of the 15
images that are nearest to its centroid. Here k-means is of the principal components themselves:
t-SNE's distances between groups mean little. k may be chosen by the silhouette of the clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fc7.engine.errors import OptionError
from fc7.indexing import Clusters, kmeans, pca, silhouette

COMPONENTS, NEAREST, MOST = 50, 15, 10
_SAMPLE = 1000
"""Rows by which the number of facets is chosen, at most: silhouettes take all pairs of them."""


@dataclass(frozen=True)
class Facet:
    """One kind of row.

    Attributes:
        size: how many rows are of this kind.
        nearest: of them, (n,) int64, the rows nearest to their mean, the nearest first.
    """

    size: int
    nearest: NDArray[np.int64]


def facets_of(
    vectors: NDArray[np.floating],
    rows: NDArray[np.int64],
    count: int | None = None,
    most: int = MOST,
    nearest: int = NEAREST,
    seed: int = 0,
    name: str = "they",
) -> list[Facet]:
    """Divide rows into facets, the largest first.

    Args:
        vectors: (n, D), one of each row.
        rows: (n,) their numbers.
        count: of facets; that of the highest silhouette, from 2 to `most`, if None. Fewer where
            fewer vectors differ.
        most: facets where the number is chosen.
        nearest: rows that are kept of each facet, at most.
        seed: of what is random.
        name: what the rows excite, for errors.

    Raises:
        OptionError: there are fewer rows than facets, or a number is out of range.
    """
    for what, value in (("facets", count), ("most", most), ("nearest", nearest)):
        if value is not None and value < 1:
            raise OptionError(f"{what} is {value}; write 1 or more")
    if len(rows) == 0:
        raise OptionError(f"no row of the run excites {name}, so that it has no facets")
    if count is not None and count > len(rows):
        raise OptionError(
            f"{name} has {len(rows)} rows in the run, fewer than {count} facets; ask for "
            f"{len(rows)} at most"
        )
    points = components(vectors, seed)
    clusters = kmeans(points, count or chosen_count(points, most, seed), seed)
    return [
        Facet(size, _nearest(points, rows, clusters, each, nearest))
        for each, size in enumerate(clusters.sizes.tolist())
    ]


def components(vectors: NDArray[np.floating], seed: int = 0) -> NDArray[np.float64]:
    """Return the first principal components of (n, D) vectors, at most 50, (n, d) float64."""
    count, width = vectors.shape
    if count < 2:
        return np.zeros((count, 1))
    found = pca(vectors, min(COMPONENTS, count - 1, width), seed)
    return found.transform(vectors).astype(np.float64)


def chosen_count(points: NDArray[np.float64], most: int, seed: int = 0) -> int:
    """Return the number of clusters, from 2 to `most`, whose silhouette is the highest.

    Of more than 1,000 points a sample is asked. It is 1 where there is no choice.
    """
    if len(points) > _SAMPLE:
        drawn = np.random.default_rng(seed).permutation(len(points))[:_SAMPLE]
        points = points[np.sort(drawn)]
    best, highest = 1, -np.inf
    for count in range(2, min(most, len(points) - 1) + 1):
        clusters = kmeans(points, count, seed)
        if len(clusters.sizes) < count:  # no more vectors differ
            break
        found = silhouette(points, clusters.labels)
        if found > highest:
            best, highest = count, found
    return best


def told(facets: Sequence[Sequence[Facet]]) -> list[list[list[int]]]:
    """Return facets as JSON that says all of them: the size of each, then its nearest rows."""
    return [[[facet.size, *facet.nearest.tolist()] for facet in kinds] for kinds in facets]


def _nearest(
    points: NDArray[np.float64],
    rows: NDArray[np.int64],
    clusters: Clusters,
    each: int,
    most: int,
) -> NDArray[np.int64]:
    own = np.flatnonzero(clusters.labels == each)
    distances = ((points[own] - clusters.centroids[each]) ** 2).sum(1)
    return rows[own[np.argsort(distances, kind="stable")[:most]]].astype(np.int64)
