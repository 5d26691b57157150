"""spatial_max against a loop over every element: exact, for it copies values and never computes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fc7.kernels import spatial_max
from fc7.kernels.spatial_max import spatial_max_reference


def check(activations: torch.Tensor) -> None:
    values, positions = spatial_max(activations)
    expected, places = spatial_max_reference(activations.double().numpy())
    assert values.dtype == activations.dtype
    assert positions.dtype == torch.int32
    np.testing.assert_array_equal(values.double().numpy(), expected)
    np.testing.assert_array_equal(positions.numpy(), places)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 5), (3, 65, 13, 13), (1, 4, 1, 9)])
def test_equals_the_definition(
    shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    check(torch.randn(shape, generator=generator).to(dtype).to(memory_format=layout))


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 5)] * 4), st.booleans())
def test_ties_nan_and_strides(seed: int, shape: tuple[int, int, int, int], last: bool) -> None:
    rng = np.random.default_rng(seed)
    pool = np.array([-1.0, -0.0, 0.0, 2.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    n, c, h, w = shape
    whole = torch.from_numpy(rng.choice(pool, (n, c, 2 * h, 2 * w)))
    check(whole[:, :, ::2, 1::2])
    check(whole.to(memory_format=torch.channels_last) if last else whole.transpose(2, 3))


def test_no_images_give_no_values() -> None:
    values, positions = spatial_max(torch.empty(0, 5, 3, 3))
    assert values.shape == positions.shape == (0, 5)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 0, 4)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        spatial_max(torch.zeros(shape))
