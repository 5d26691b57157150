"""Clusters of vectors that fit in memory: k-means, and how well apart its clusters lie.

k-means++ (Arthur and Vassilvitskii, 2007) begins it, Lloyd's steps (1982) end it; the best of
several beginnings is kept. Silhouettes are Rousseeuw's (1987). All arithmetic is float64, by
elementwise operations and sums of numpy's alone, which no number of threads changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fc7.indexing.arrays import Float64, Int64
from fc7.indexing.errors import IndexingError

RESTARTS, STEPS = 8, 200


@dataclass(frozen=True)
class Clusters:
    """Clusters of n vectors, the largest first; of equal ones, the one with the first vector.

    centroids (k, d) float64, the means of their vectors; labels (n,) int64, each vector's cluster,
    whose centroid is the nearest; inertia, the sum of squared distances to them.
    """

    centroids: Float64
    labels: Int64
    inertia: float

    @property
    def sizes(self) -> Int64:
        """How many vectors each cluster holds, (k,)."""
        return np.bincount(self.labels, minlength=len(self.centroids)).astype(np.int64)


def kmeans(vectors: npt.ArrayLike, k: int, seed: int = 0, restarts: int = RESTARTS) -> Clusters:
    """Divide (n, d) vectors among k clusters; fewer where fewer than k vectors differ.

    The same vectors, k and seed give the same clusters.

    Raises IndexingError unless 1 <= k <= n and restarts >= 1, and for vectors that are not finite.
    """
    points = _points(vectors)
    if not 1 <= k <= len(points):
        raise IndexingError(f"{k} clusters of {len(points)} vectors: ask for 1 to {len(points)}")
    if restarts < 1:
        raise IndexingError(f"restarts is {restarts}; write 1 or more")
    generator = np.random.default_rng(seed)
    runs = [_lloyd(points, _plus_plus(points, k, generator)) for _ in range(restarts)]
    return _ordered(min(runs, key=lambda run: run.inertia))


def silhouette(vectors: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the mean silhouette of (n, d) vectors, -1 to 1: (b - a) / max(a, b) of each.

    a is the mean distance to the others of its own cluster, b that to the vectors of the nearest
    other cluster. Of a vector that is alone in its cluster it is 0.

    Raises IndexingError for fewer than 2 clusters, or not one label for each vector.
    """
    points, own = _points(vectors), np.unique(np.asarray(labels), return_inverse=True)[1]
    if own.shape != (len(points),):
        raise IndexingError(f"{own.size} labels for {len(points)} vectors; give one for each")
    sizes = np.bincount(own)
    if len(sizes) < 2:
        raise IndexingError("one cluster has no silhouette; ask for 2 at least")
    total = 0.0
    for point, mine in zip(points, own, strict=True):
        if sizes[mine] == 1:
            continue
        distances = np.sqrt(((points - point) ** 2).sum(1))
        sums = np.bincount(own, weights=distances, minlength=len(sizes))
        inside = sums[mine] / (sizes[mine] - 1)
        outside = np.delete(sums / sizes, mine).min()
        furthest = max(inside, outside)
        total += (outside - inside) / furthest if furthest > 0 else 0.0
    return total / len(points)


def _points(vectors: npt.ArrayLike) -> Float64:
    points = np.asarray(vectors, dtype=np.float64)
    if points.ndim != 2 or 0 in points.shape:
        raise IndexingError(f"vectors have shape {points.shape}; expected (rows, dimensions)")
    if not np.isfinite(points).all():
        raise IndexingError("some vectors are NaN or infinite; leave those rows out")
    return points


def _squares(points: Float64, centroids: Float64) -> Float64:
    """Return squared distances, (n, k): of differences, for a product would cancel."""
    return np.stack([((points - centroid) ** 2).sum(1) for centroid in centroids], 1)


def _plus_plus(points: Float64, k: int, generator: np.random.Generator) -> Float64:
    """Draw beginnings: each by its squared distance to the nearest one before it."""
    chosen = [int(generator.integers(len(points)))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < k and nearest.max() > 0:
        sums = np.cumsum(nearest)
        drawn = int(np.searchsorted(sums, generator.random() * sums[-1], side="right"))
        # Past the last by rounding: the last that is not a centroid already.
        chosen.append(min(drawn, int(np.flatnonzero(nearest)[-1])))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen]


def _lloyd(points: Float64, centroids: Float64) -> Clusters:
    labels = np.full(len(points), -1, dtype=np.int64)
    for _ in range(STEPS):
        found = _filled(_squares(points, centroids))
        if np.array_equal(found, labels):
            break
        labels = found
        centroids = np.stack([points[labels == each].mean(0) for each in range(len(centroids))])
    inertia = float(((points - centroids[labels]) ** 2).sum())
    return Clusters(centroids, labels, inertia)


def _filled(squares: Float64) -> Int64:
    """Return each point's nearest centroid; one that is nobody's takes the point furthest off."""
    labels: Int64 = squares.argmin(1).astype(np.int64)
    sizes = np.bincount(labels, minlength=squares.shape[1])
    for empty in np.flatnonzero(sizes == 0):
        off = np.where(sizes[labels] > 1, squares[np.arange(len(labels)), labels], -1.0)
        taken = int(off.argmax())
        sizes[labels[taken]] -= 1
        labels[taken], sizes[empty] = empty, 1
    return labels


def _ordered(clusters: Clusters) -> Clusters:
    count = len(clusters.centroids)
    first = np.array([np.flatnonzero(clusters.labels == each)[0] for each in range(count)])
    order = np.lexsort((first, -clusters.sizes))
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    return Clusters(clusters.centroids[order], place[clusters.labels], clusters.inertia)
