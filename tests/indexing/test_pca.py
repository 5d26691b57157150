"""Components against numpy's float64 singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

import fc7.indexing as ix
from fc7.indexing.principal import is_exact


def _vectors(n, d, rank, offset=0.0):
    """Variances falling from 1 as 0.8^i, plus noise of 1e-4 of the first."""
    rng = np.random.default_rng(n + d)
    strong = rng.normal(size=(n, rank)) * 0.8 ** (np.arange(rank) / 2)
    basis = np.linalg.qr(rng.normal(size=(d, rank)))[0].T
    return strong @ basis + 1e-2 / np.sqrt(d) * rng.normal(size=(n, d)) + offset


def _reference(vectors, dimensions):
    x = vectors.astype(np.float64)
    centred = x - x.mean(axis=0)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    variance = values**2 / (len(x) - 1)
    return variance[:dimensions], variance[:dimensions] / variance.sum(), rows[:dimensions]


# (rows, dimensions) where the covariance is solved, and where it is not (wide, or few rows).
@pytest.mark.parametrize(("n", "d", "exact"), [(257, 65, True), (257, 701, False), (40, 65, False)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_equals_svd(n, d, exact, dtype, offset):
    assert is_exact(n, d, 7) == exact
    vectors = _vectors(n, d, 30, offset if dtype == np.float32 else 0.0).astype(dtype)
    variance, ratio, rows = _reference(vectors, 7)
    # Blocks of about 20 rows, so that sums run over several.
    found = ix.pca(vectors, 7, memory_bytes=160 * d)
    # float32 products: 1e-5. An offset of 30 sits on spreads of 0.1 to 1 a value: its float32
    # rounding (2e-6 each) is in the data of both. Randomized: the 8th to 23rd component are
    # carried along, so the error of the 7th is (0.8^17)^6, far below.
    np.testing.assert_allclose(found.explained_variance, variance, rtol=1e-4)
    np.testing.assert_allclose(found.explained_variance_ratio, ratio, rtol=1e-4)
    np.testing.assert_allclose(found.mean, vectors.astype("f8").mean(axis=0), rtol=1e-5, atol=1e-6)
    # The cosines of the angles between both subspaces are all 1, and each component is unit.
    cosines = np.linalg.svd(found.components.astype("f8") @ rows.T)[1]
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(7), atol=1e-5)
    largest = np.abs(found.components).argmax(axis=1)
    assert (found.components[np.arange(7), largest] > 0).all()


def test_transform_is_a_projection():
    vectors = _vectors(101, 33, 10, 3.0).astype(np.float32)
    found = ix.pca(vectors, 5)
    expected = (vectors.astype("f8") - found.mean) @ found.components.T.astype("f8")
    got = found.transform(vectors, memory_bytes=1000)
    assert got.dtype == np.float32
    # Coordinates up to about 3, sums of 33 float32 products.
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(got.var(axis=0, ddof=1), found.explained_variance, rtol=1e-4)


def test_same_seed_same_components():
    vectors = _vectors(100, 500, 20).astype(np.float32)
    one, two, other = ix.pca(vectors, 3, seed=1), ix.pca(vectors, 3, seed=1), ix.pca(vectors, 3, 2)
    np.testing.assert_array_equal(one.components, two.components)
    # The sign rule makes another seed give the same directions, not their mirror images.
    np.testing.assert_allclose(one.components, other.components, atol=1e-4)


@pytest.mark.parametrize("shape", [(20, 6), (20, 600)])
def test_equal_rows_explain_nothing(shape):
    found = ix.pca(np.full(shape, 2.5, np.float32), 2)
    np.testing.assert_array_equal(found.explained_variance_ratio, 0)
    np.testing.assert_array_equal(found.transform(np.full(shape, 2.5, np.float32)), 0)


def test_refuses():
    vectors = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    for dimensions in (0, 7):
        with pytest.raises(ix.IndexingError, match=f"{dimensions} components.*1 to 6"):
            ix.pca(vectors, dimensions)
    with pytest.raises(ix.IndexingError, match="1 to 2"):
        ix.pca(vectors[:3], 3)
    with pytest.raises(ix.IndexingError, match="5 dimensions; these components take 6"):
        ix.pca(vectors, 2).transform(vectors[:, :5])
    vectors[4, 4] = np.inf
    with pytest.raises(ix.IndexingError, match="row 4"):
        ix.pca(vectors, 2)
