"""occlude against its definition for shapes, boxes, fills and layouts that nobody chose."""

import numpy as np
import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from fc7.kernels import backend
from fc7.kernels.occlude import occlude, occlude_reference

SHAPES = {
    "number": lambda b, c, h, w: (),
    "colour": lambda b, c, h, w: (c,),
    "image": lambda b, c, h, w: (c, h, w),
    "images": lambda b, c, h, w: (b, c, h, w),
}


@settings(max_examples=30 if backend.INTERPRETED else 100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(0, 3), *[st.integers(1, 9)] * 3),
    boxes=st.lists(st.tuples(*[st.integers(-12, 12)] * 4), max_size=6),
    cuts=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    axes=st.permutations([1, 2, 3]),
    fill=st.sampled_from(list(SHAPES)),
    last=st.booleans(),
)
def test_equals_the_definition(
    seed: int,
    shape: tuple[int, int, int, int],
    boxes: list[tuple[int, int, int, int]],
    cuts: tuple[int, int],
    axes: list[int],
    fill: str,
    last: bool,
) -> None:
    rng = np.random.default_rng(seed)
    # In memory the axes lie in any order.
    images = torch.from_numpy(rng.standard_normal(shape, np.float32))
    images = images.permute(0, *axes).contiguous().permute(0, *(1 + np.argsort(axes)))
    assert images.shape == shape
    cover = torch.from_numpy(np.asarray(rng.standard_normal(SHAPES[fill](*shape)), np.float32))
    places = torch.tensor(boxes, dtype=torch.int64).reshape(-1, 4)
    start, stop = sorted(min(cut, len(boxes)) for cut in cuts)

    layout = torch.channels_last if last else torch.contiguous_format
    out = occlude(images, places, cover, start=start, stop=stop, memory_format=layout)

    cover = cover[:, None, None] if fill == "colour" else cover
    expected = occlude_reference(
        images.double().numpy(),
        places[start:stop].numpy(),
        cover.double().expand(shape).numpy(),
    )
    np.testing.assert_array_equal(out.double().numpy(), expected)
    if out.numel() > 0:
        assert out.flatten(0, 1).is_contiguous(memory_format=layout)
