"""merge_topk on candidates cut into parts as hypothesis chooses."""

import pytest

pytest.importorskip("hypothesis")

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fc7.kernels import backend, empty_topk, merge_topk
from fc7.kernels.merge_topk import topk_reference


@settings(max_examples=30 if backend.INTERPRETED else 200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.lists(st.integers(0, 15), max_size=6))
def test_any_cut_into_parts_equals_a_full_sort(seed: int, k: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    channels, count = 3, sum(cuts)
    # Few distinct values, so that ties are the rule; NaN and infinities among them.
    pool = np.array([-2.0, -1.0, 0.0, 1.0, np.nan, -np.inf, np.inf], dtype=np.float32)
    values = rng.choice(pool, (channels, count))
    ids = np.stack([rng.permutation(count) for _ in range(channels)]).reshape(channels, count)
    top, top_ids = empty_topk(channels, k)
    start = 0
    for size in cuts:
        part = slice(start, start + size)
        top, top_ids = merge_topk(
            top, top_ids, torch.from_numpy(values[:, part]), torch.from_numpy(ids[:, part])
        )
        start += size
    expected, expected_ids = topk_reference(values.astype(np.float64), ids, k)
    kept = min(k, count)
    np.testing.assert_array_equal(top[:, :kept].numpy(), np.reshape(expected, (channels, kept)))
    np.testing.assert_array_equal(
        top_ids[:, :kept].numpy(), np.reshape(expected_ids, (channels, kept))
    )
    assert (top_ids[:, kept:] == -1).all()
