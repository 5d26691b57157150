"""The exact graph against a float64 brute force, where float32 alone would go wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fc7.indexing as ix
from fc7.indexing.exact import Database

# The distances are differences in float64, rounded once to float32: half a unit in the last
# place, 6e-8, and the reference is rounded in the same way; 1e-6 leaves room for summation order.
RELATIVE = 1e-6


def _rng():
    return np.random.default_rng(7)


def _make(name):
    rng = _rng()
    plain = rng.normal(size=(257, 65))
    groups = rng.integers(0, 10, 257)
    return {
        "plain": plain,
        # ||x||^2 is 6.5e9, known to about 400 in float32; distances^2 are about 130.
        "offset": plain + 1e4,
        # Spread 1e-3 around ten centres 1e3 apart: a shift by the mean cannot help.
        "tight": rng.normal(size=(10, 65))[groups] * 100 + 1e-3 * plain,
        "duplicates": plain[rng.integers(0, 40, 257)],
        "equal": np.ones((257, 65)),
        # Squared distances 0 to 3: nearly all tied.
        "ties": rng.integers(0, 2, size=(257, 3)),
        "zeros": plain * (rng.random((257, 1)) < 0.5),
        # One row a million times longer than the others.
        "outlier": np.vstack([plain[:256], 1e6 * plain[256:]]),
    }[name]


NAMES = ["plain", "offset", "tight", "duplicates", "equal", "ties", "zeros", "outlier"]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("name", NAMES)
def test_equals_brute_force(name, metric, brute, each_backend):
    vectors = _make(name).astype(np.float32)
    ids, distances = brute(vectors, vectors, 16, metric, itself=True)
    for k in (1, 3, 16):
        found = ix.all_neighbors(vectors, k, metric)
        np.testing.assert_array_equal(found.ids, ids[:, :k])
        np.testing.assert_allclose(found.distances, distances[:, :k], rtol=RELATIVE, atol=0)
    assert found.ids.dtype == np.int64
    assert found.distances.dtype == np.float32


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("name", ["offset", "ties", "zeros"])
def test_many_tiles_change_nothing(name, metric, each_backend):
    vectors = _make(name).astype(np.float32)
    # Tiles of 31 rows: 257 is no multiple, and the last tile is shorter than k + 1.
    memory_bytes = 31 * 4 * 4 * vectors.shape[1]
    assert Database(vectors, metric, memory_bytes).tile_rows == 31
    calls = []
    one = ix.all_neighbors(vectors, 40, metric)
    many = ix.all_neighbors(
        vectors, 40, metric, memory_bytes, progress=lambda *done: calls.append(done)
    )
    np.testing.assert_array_equal(one.ids, many.ids)
    np.testing.assert_array_equal(one.distances, many.distances)
    assert calls == [(min(62 * i, 257), 257) for i in range(1, 6)]


class Pieces:
    """Slices only, over two memory maps: what a store of parts looks like."""

    def __init__(self, parts):
        self._parts = parts
        self.shape = (sum(map(len, parts)), parts[0].shape[1])
        self.dtype = parts[0].dtype
        self.longest = 0

    def __getitem__(self, key):
        assert isinstance(key, slice)
        self.longest = max(self.longest, key.stop - key.start)
        return np.concatenate(self._parts)[key]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_stored_vectors(dtype, tmp_path, brute):
    vectors = _make("plain").astype(dtype)
    np.save(tmp_path / "a.npy", vectors[:100])
    np.save(tmp_path / "b.npy", vectors[100:])
    np.save(tmp_path / "all.npy", vectors)
    mapped = np.load(tmp_path / "all.npy", mmap_mode="r")
    pieces = Pieces([np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in "ab"])
    ids, distances = brute(vectors, vectors, 5, itself=True)
    memory_bytes = 40 * 4 * 4 * 65
    for stored in (mapped, pieces):
        found = ix.all_neighbors(stored, 5, memory_bytes=memory_bytes)
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_allclose(found.distances, distances, rtol=RELATIVE)
    # Tiles of 40 and 80 rows, and runs of candidates: never all of it.
    assert 80 <= pieces.longest < 257


@settings(max_examples=25, deadline=None, derandomize=True)
@given(n=st.integers(2, 40), d=st.integers(1, 9), levels=st.integers(1, 4), data=st.data())
def test_any_shape(n, d, levels, data):
    k = data.draw(st.integers(1, n - 1))
    rows_a_tile = data.draw(st.integers(1, n))
    vectors = np.random.default_rng(n * d).integers(0, levels, (n, d)).astype(np.float32)
    found = ix.all_neighbors(vectors, k, memory_bytes=16 * d * rows_a_tile)
    squared = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    for row in range(n):
        others = sorted((squared[row, j], j) for j in range(n) if j != row)[:k]
        assert found.ids[row].tolist() == [j for _, j in others]


@pytest.mark.parametrize(
    ("vectors", "k", "metric", "says"),
    [
        (np.zeros((5, 3), np.float32), 5, "l2", "k is 5.*5 rows"),
        (np.zeros((5, 3), np.float32), 0, "l2", "k is 0"),
        (np.zeros((1, 3), np.float32), 1, "l2", "k is 1.*1 rows"),
        (np.zeros((0, 3), np.float32), 1, "l2", r"\(0, 3\)"),
        (np.zeros((5, 0), np.float32), 1, "l2", r"\(5, 0\)"),
        (np.zeros((5, 3, 2, 2), np.float32), 1, "l2", r"\(5, 3, 2, 2\).*flatten"),
        (np.zeros((5, 3), np.int64), 1, "l2", "int64"),
        (np.zeros((5, 3), np.float32), 1, "hamming", "hamming"),
        (np.full((5, 3), 1e30, np.float32), 1, "l2", "row 0, 1, 2, 3, 4: too large"),
    ],
)
def test_refuses(vectors, k, metric, says):
    with pytest.raises(ix.IndexingError, match=says):
        ix.all_neighbors(vectors, k, metric)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_names_rows_with_bad_values(value):
    vectors = _rng().normal(size=(50, 4)).astype(np.float16)
    vectors[[17, 33], 2] = value
    # The rows are counted from the start of the data, not of the tile: 10 rows a tile.
    with pytest.raises(ix.IndexingError, match="row 17: NaN or infinite"):
        ix.all_neighbors(vectors, 1, memory_bytes=10 * 16 * 4)
    with pytest.raises(ix.IndexingError, match="row 17, 33: NaN or infinite"):
        ix.all_neighbors(vectors, 1)
