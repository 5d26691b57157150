"""merge_topk against a full sort of everything it ever saw."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fc7.kernels import empty_topk, merge_topk
from fc7.kernels.merge_topk import topk_reference


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.lists(st.integers(0, 7), max_size=6))
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


def test_channels_never_positive_still_have_a_top() -> None:
    top, ids = merge_topk(
        *empty_topk(1, 2), torch.tensor([[-3.0, -1.0, -2.0]]), torch.tensor([[0, 1, 2]])
    )
    assert top.tolist() == [[-1.0, -2.0]]
    assert ids.tolist() == [[1, 2]]


def test_refuses_shapes_that_do_not_fit() -> None:
    values, ids = empty_topk(2, 3)
    with pytest.raises(ValueError, match="must agree"):
        merge_topk(values, ids, torch.zeros(2, 4), torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="cannot be merged"):
        merge_topk(values, ids, torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int64))
