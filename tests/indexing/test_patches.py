"""Patches over stored maps against loops over every position in float64."""

from __future__ import annotations

import numpy as np
import pytest

import fc7.indexing as ix

N, C, H, W = 23, 13, 5, 3
# Two images a block of float32: the running top k crosses blocks.
TINY = 2 * 2 * 4 * C * H * W


@pytest.fixture(params=[np.float16, np.float32])
def maps(request):
    # Rectified and rounded to eighths: zeros and ties as in a real layer, exact in float16.
    values = np.random.default_rng(1).normal(size=(N, C, H, W))
    return (np.maximum(values * 8, 0).round() / 8).astype(request.param)


def _best_of_each_image(maps, score):
    """(score, row, position) with the highest score of each image, first position first."""
    hits = []
    for row, image in enumerate(maps.astype(np.float64)):
        values = [score(image[:, y, x]) for y in range(H) for x in range(W)]
        position = max(range(H * W), key=lambda p: (values[p], -p))
        hits.append((values[position], row, position))
    return sorted(hits, key=lambda hit: (-hit[0], hit[1]))


@pytest.mark.parametrize("memory_bytes", [TINY, 1 << 30])
def test_channel_direction_gives_its_maximal_patches(maps, memory_bytes):
    for channel in (0, 12):
        direction = np.zeros(C, np.float32)
        direction[channel] = 1
        expected = _best_of_each_image(maps, lambda patch, channel=channel: patch[channel])
        for k in (1, 7, N):
            hits = ix.search_direction(maps, direction, k, memory_bytes)
            assert hits.rows.tolist() == [row for _, row, _ in expected[:k]]
            assert hits.positions.tolist() == [position for _, _, position in expected[:k]]
            # A product with 1 and sums of zeros: exact.
            assert hits.scores.tolist() == [score for score, _, _ in expected[:k]]


def test_any_direction(maps):
    direction = np.random.default_rng(2).normal(size=C).astype(np.float32)
    expected = _best_of_each_image(maps, lambda patch: patch @ direction.astype(np.float64))
    hits = ix.search_direction(maps, direction, 5, TINY)
    assert hits.rows.tolist() == [row for _, row, _ in expected[:5]]
    # 13 float32 products of size 1: rounding below 13 * 6e-8.
    np.testing.assert_allclose(hits.scores, [score for score, _, _ in expected[:5]], atol=2e-6)


def test_all_zero_maps_tie():
    hits = ix.search_direction(np.zeros((4, C, H, W), np.float32), np.ones(C, np.float32), 4)
    assert hits.rows.tolist() == [0, 1, 2, 3]
    assert hits.positions.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("memory_bytes", [TINY, 1 << 30])
def test_similar_patches(maps, memory_bytes):
    query = np.stack([maps[4, :, 2, 1], maps[20, :, 0, 0] + 0.25, np.ones(C)]).astype(np.float32)
    hits = ix.similar_patches(maps, query, 6, memory_bytes=memory_bytes)
    for number, point in enumerate(query.astype(np.float64)):
        expected = _best_of_each_image(
            maps, lambda patch, point=point: -np.float32(np.sqrt(((patch - point) ** 2).sum()))
        )[:6]
        assert hits.rows[number].tolist() == [row for _, row, _ in expected]
        assert hits.positions[number].tolist() == [position for _, _, position in expected]
        # Squares of eighths sum exactly in float32; only the root is rounded.
        np.testing.assert_allclose(hits.scores[number], [-s for s, _, _ in expected], rtol=1e-6)
    assert (hits.rows[0, 0], hits.positions[0, 0], hits.scores[0, 0]) == (4, 2 * W + 1, 0)


@pytest.mark.parametrize("memory_bytes", [TINY, 1 << 30])
def test_every_position_may_be_listed(maps, memory_bytes, brute):
    flat = np.stack([maps[n, :, y, x] for n in range(N) for y in range(H) for x in range(W)])
    query = flat[[7, 100]].astype(np.float32)
    ids, distances = brute(query, flat, 40)
    hits = ix.similar_patches(maps, query, 40, one_per_image=False, memory_bytes=memory_bytes)
    np.testing.assert_array_equal(hits.rows * H * W + hits.positions, ids)
    np.testing.assert_allclose(hits.scores, distances, rtol=1e-6)
    index = ix.PatchIndex(maps, "pca")
    found = index.search(query, 1)
    np.testing.assert_array_equal(found.scores[:, 0], 0)


def test_refuses(maps):
    unit = np.ones(C, np.float32)
    for call, says in [
        (lambda: ix.search_direction(maps, unit, N + 1), "k is 24, with 23 images"),
        (lambda: ix.search_direction(maps, unit[:3], 1), r"direction has shape \(3,\).*\(13,\)"),
        (lambda: ix.search_direction(maps, unit * np.nan, 1), "finite"),
        (lambda: ix.search_direction(maps[0], unit, 1), r"maps have shape \(13, 5, 3\)"),
        (lambda: ix.search_direction(maps[:0], unit, 1), r"maps have shape \(0, 13, 5, 3\)"),
        (lambda: ix.search_direction(maps.astype(int), unit, 1), "int64"),
        (lambda: ix.similar_patches(maps, unit, 1), r"query has shape \(13,\)"),
        (lambda: ix.similar_patches(maps, unit[None], N + 1), "k is 24"),
    ]:
        with pytest.raises(ix.IndexingError, match=says):
            call()
    maps[9, 3, 1, 1] = np.nan
    with pytest.raises(ix.IndexingError, match="maps row 9: NaN"):
        ix.search_direction(maps, unit, 1, TINY)
