"""Maximal patches of one part and of several, against a sort of everything."""

import numpy as np
import pytest

from fc7.engine.features.patches import TopPatches

SIDE, K = 13 * 13, 4


def expected(
    values: np.ndarray, positions: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return values (C, K) and ids (C, K): the first of a sort by (-value, row)."""
    top = np.full((values.shape[1], K), -np.inf, np.float32)
    ids = np.full((values.shape[1], K), -1)
    known = np.where(np.isnan(values), -np.inf, values.astype(np.float32))
    for channel in range(values.shape[1]):
        order = sorted(range(len(rows)), key=lambda r: (-known[r, channel], rows[r]))[:K]
        top[channel, : len(order)] = known[order, channel]
        ids[channel, : len(order)] = rows[order] * SIDE + positions[order, channel]
    return top, ids


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 200])
def test_a_part_and_its_merge_with_another(count: int, dtype: type) -> None:
    rng = np.random.default_rng(count)
    fold = TopPatches("conv5", SIDE, K)
    rows = np.sort(rng.choice(2**40, count + 7, replace=False))
    values = rng.choice([-1, -0.0, 0, 2, np.inf, -np.inf, np.nan], (count + 7, 300)).astype(dtype)
    values[:, 100:] = rng.standard_normal((count + 7, 200))
    positions = rng.integers(0, SIDE, values.shape).astype(np.int32)
    for array in (values, positions):
        array.flags.writeable = False  # as stored arrays are

    parts = []
    for part in (slice(count), slice(count, None)):
        arrays = {"conv5.max": values[part], "conv5.argmax": positions[part]}
        parts.append(fold.part(rows[part], arrays))
        top, ids = expected(values[part], positions[part], rows[part])
        np.testing.assert_array_equal(parts[-1]["values"], top)
        np.testing.assert_array_equal(parts[-1]["ids"], ids)
        assert parts[-1]["values"].dtype == np.float32
        assert parts[-1]["ids"].dtype == np.int64
    merged = fold.merge(*parts)
    top, ids = expected(values, positions, rows)
    np.testing.assert_array_equal(merged["values"], top)
    np.testing.assert_array_equal(merged["ids"], ids)


def test_a_vector_has_one_place() -> None:
    values = np.random.default_rng(0).standard_normal((50, 30)).astype(np.float32)
    state = TopPatches("fc6", 1, K).part(np.arange(50), {"fc6": values})
    np.testing.assert_array_equal(state["ids"], np.argsort(-values, axis=0)[:K].T)
