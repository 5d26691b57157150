"""UMAP's weighted graph, from neighbours that are already known.

For each row i with neighbours j at distances d (McInnes, Healy and Melville 2018, section 3.1):

    rho_i = the smallest d_ij above zero
    w_ij  = exp(-max(0, d_ij - rho_i) / sigma_i),   sigma_i such that sum_j w_ij = log2(k)

where k counts the row itself, and the graph is W + W^T - W * W^T, elementwise. This is what
umap-learn's `fuzzy_simplicial_set` computes; there, compiling it is a quarter of the time that a
fresh process takes for 5,000 rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fc7.indexing import arrays
from fc7.indexing.arrays import Float32, Float64, Int64

# As umap-learn: how close the sum must come, and after how many halvings the search stops.
TOLERANCE = 1e-5
HALVINGS = 64
# sigma is at least this share of the mean distance, or weights of near duplicates would vanish.
LEAST_SCALE = 1e-3
ROWS_AT_ONCE = 1 << 16


def fuzzy_graph(ids: Int64, distances: Float32) -> Any:
    """Return the symmetric weights, a scipy COO matrix (N, N) of float32.

    Args:
        ids: (N, k - 1), the neighbours of each row, itself left out.
        distances: (N, k - 1), theirs, ascending.
    """
    from scipy.sparse import coo_matrix

    n, k = len(ids), ids.shape[1] + 1
    overall = float(distances.mean(dtype=np.float64)) * (k - 1) / k
    weights = np.empty(ids.shape, np.float32)
    for start, stop in arrays.spans(n, ROWS_AT_ONCE):
        weights[start:stop] = memberships(distances[start:stop].astype(np.float64), k, overall)
    rows = np.repeat(np.arange(n), k - 1)
    directed = coo_matrix((weights.ravel(), (rows, ids.ravel())), shape=(n, n)).tocsr()
    directed.eliminate_zeros()
    other = directed.T.tocsr()
    graph = (directed + other - directed.multiply(other)).tocoo()
    graph.eliminate_zeros()
    return graph


def memberships(distances: Float64, k: int, overall: float) -> Float64:
    """Return w of the formula above, (B, k - 1); `overall` is the mean distance of all rows."""
    nearest = np.where(distances > 0, distances, np.inf).min(axis=1)
    rho = np.where(np.isfinite(nearest), nearest, 0.0)
    beyond = np.maximum(distances - rho[:, None], 0.0)
    sigma = _scales(beyond, float(np.log2(k)))
    # The row itself, at distance 0, counts in the mean.
    mean = np.where(rho > 0, distances.sum(axis=1) / k, overall)
    sigma = np.maximum(sigma, LEAST_SCALE * mean)[:, None]
    return np.exp(-np.divide(beyond, sigma, out=np.zeros_like(beyond), where=beyond > 0))


def _scales(beyond: Float64, target: float) -> Float64:
    """Find sigma (B,) with sum_j exp(-beyond_ij / sigma_i) = target, by halving intervals."""
    low, high = np.zeros(len(beyond)), np.full(len(beyond), np.inf)
    sigma = np.ones(len(beyond))
    searching: npt.NDArray[np.int64] = np.arange(len(beyond))
    for _ in range(HALVINGS):
        total = np.exp(-beyond[searching] / sigma[searching, None]).sum(axis=1)
        open_ = np.abs(total - target) >= TOLERANCE
        searching, total = searching[open_], total[open_]
        if not len(searching):
            break
        above, below = searching[total > target], searching[total <= target]
        high[above], low[below] = sigma[above], sigma[below]
        bounded = np.isfinite(high[searching])
        inside, outside = searching[bounded], searching[~bounded]
        sigma[inside] = (low[inside] + high[inside]) / 2
        sigma[outside] *= 2
    return sigma
