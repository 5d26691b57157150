"""gram and gram_loss for whatever shapes hypothesis finds."""

import pytest

pytest.importorskip("hypothesis")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fc7.kernels import backend, gram_plan
from fc7.kernels.gram import gram, gram_reference
from fc7.kernels.gram_loss import gram_loss, gram_loss_reference

EXAMPLES = 15 if backend.INTERPRETED else 60


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 140), st.integers(1, 20), st.integers(1, 20)),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    last=st.booleans(),
    center=st.booleans(),
    crop=st.booleans(),
)
def test_any_shape(
    shape: tuple[int, int, int, int], dtype: torch.dtype, last: bool, center: bool, crop: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(shape, generator=generator).to(dtype)
    features = features.to(memory_format=torch.channels_last) if last else features
    features = features[:, :, shape[2] // 2 :, : shape[3] // 2 + 1] if crop else features
    found = gram(features, center)
    expected = torch.from_numpy(gram_reference(features.double().numpy(), center))
    # bf16 sums may be rounded to bf16 on a CPU, and centred features are in 16 bits on a GPU.
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(found, found.mT)

    target = torch.randn(shape[1], shape[1], generator=generator)
    losses = gram_loss_reference(features.double().numpy(), target.double().numpy())
    torch.testing.assert_close(
        gram_loss(features, target).double(), torch.from_numpy(losses), rtol=1e-5, atol=1e-6
    )


@given(
    images=st.integers(1, 200),
    channels=st.integers(1, 3000),
    pixels=st.integers(1, 10**6),
    itemsize=st.sampled_from([2, 4]),
    aligned=st.booleans(),
    multiprocessors=st.integers(1, 200),
)
def test_every_pixel_is_multiplied_once(
    images: int, channels: int, pixels: int, itemsize: int, aligned: bool, multiprocessors: int
) -> None:
    cut = gram_plan.plan(images, channels, pixels, itemsize, aligned, multiprocessors)
    assert cut.pixels_per_split % cut.step == 0
    assert (cut.splits - 1) * cut.pixels_per_split < pixels <= cut.splits * cut.pixels_per_split
    tiles = -(-channels // cut.tile)
    blocks = images * tiles * (tiles + 1) // 2 * cut.splits
    # Splitting goes no further than two blocks a multiprocessor, and four steps a block.
    assert cut.splits == 1 or blocks <= 2 * multiprocessors
    assert cut.splits == 1 or cut.pixels_per_split >= 4 * cut.step
