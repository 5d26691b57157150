"""spatial_max at shapes, strides and values that hypothesis chooses."""

import pytest

pytest.importorskip("hypothesis")

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fc7.kernels import backend, spatial_max
from fc7.kernels.spatial_max import spatial_max_reference


@settings(max_examples=25 if backend.INTERPRETED else 200, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(1, 5)] * 4),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_ties_nan_and_strides(
    seed: int, shape: tuple[int, int, int, int], last: bool, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    pool = np.array([-1.0, -0.0, 0.0, 2.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    n, c, h, w = shape
    whole = torch.from_numpy(rng.choice(pool, (n, c, 2 * h, 2 * w))).to(dtype)
    for activations in (
        whole[:, :, ::2, 1::2],
        whole.to(memory_format=torch.channels_last) if last else whole.transpose(2, 3),
    ):
        values, positions = spatial_max(activations)
        expected, places = spatial_max_reference(activations.double().numpy())
        np.testing.assert_array_equal(values.double().numpy(), expected)
        np.testing.assert_array_equal(positions.numpy(), places)
