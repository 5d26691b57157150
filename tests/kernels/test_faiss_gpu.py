"""FAISS on the GPU and our kernels in one process: neither disturbs the other.

FAISS brings CUDA libraries, a stream and a gigabyte of scratch memory of its own. A search on
torch's stream and our kernels behind it must find what they find alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fc7.kernels.gram import gram, gram_reference
from fc7.kernels.guided_relu import guided_relu, guided_relu_reference
from fc7.kernels.spatial_max import spatial_max, spatial_max_reference

pytestmark = pytest.mark.gpu

N, D, Q, K = 5_003, 96, 33, 5


@pytest.fixture(scope="module")
def faiss() -> Any:
    """Return FAISS, if it is one that sees a GPU."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.zeros(1, device="cuda")  # FAISS must find the CUDA libraries that torch has loaded
    try:
        import faiss
    except Exception as error:  # some of its wheels fail in other ways than ImportError
        pytest.skip(f"no faiss-gpu ({error})")
    if not hasattr(faiss, "StandardGpuResources"):
        pytest.skip("faiss is installed without a GPU: pip install faiss-gpu")
    if not faiss.get_num_gpus():
        pytest.skip("faiss sees no GPU")
    return faiss


def check_kernels(generator: torch.Generator) -> None:
    """Compare three kernels, one that reduces, one that multiplies, one with a mask."""
    maps = torch.randn(3, 65, 13, 13, device="cuda", generator=generator)
    expected = maps.double().cpu().numpy()
    values, positions = spatial_max(maps)
    best, places = spatial_max_reference(expected)
    np.testing.assert_array_equal(values.cpu().numpy(), best.astype(np.float32))
    np.testing.assert_array_equal(positions.cpu().numpy(), places)
    grams = np.asarray(gram_reference(expected))
    # A mean of 169 products near 1, in TF32 at worst: 11 bits.
    np.testing.assert_allclose(gram(maps).cpu().numpy(), grams, atol=2e-3)
    x = maps.clone().requires_grad_()
    gradient = torch.randn(maps.shape, device="cuda", generator=generator)
    guided_relu(x).backward(gradient)
    assert x.grad is not None
    _, back = guided_relu_reference(expected, gradient.double().cpu().numpy(), "guided")
    np.testing.assert_array_equal(x.grad.cpu().numpy(), np.asarray(back, np.float32))


def check_search(search: Callable[[Tensor], Any], vectors: Tensor, queries: Tensor) -> None:
    found = np.asarray(search(queries))
    squared = torch.cdist(queries.double(), vectors.double()).square().cpu()
    # By distance: where two rows are equally near within rounding either may come first.
    nearest = squared.sort(dim=1).values[:, :K]
    there = squared.gather(1, torch.from_numpy(found.astype(np.int64)))
    torch.testing.assert_close(there, nearest, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("streams", ["torch's stream", "a stream of our own"])
def test_a_search_and_our_kernels_share_a_device(faiss: Any, streams: str) -> None:
    generator = torch.Generator("cuda").manual_seed(3)
    vectors = torch.randn(N, D, device="cuda", generator=generator)
    queries = torch.randn(Q, D, device="cuda", generator=generator)
    check_kernels(generator)
    torch.cuda.synchronize()
    stream = torch.cuda.current_stream() if streams[0] == "t" else torch.cuda.Stream()
    with torch.cuda.stream(stream):
        resources = faiss.StandardGpuResources()
        handle = faiss.cast_integer_to_cudastream_t(stream.cuda_stream)
        resources.setDefaultStream(torch.cuda.current_device(), handle)
        index = faiss.GpuIndexFlatL2(resources, D)
        index.add(vectors.cpu().numpy())

        def search(some: Tensor) -> Any:
            return index.search(some.cpu().numpy(), K)[1]

        check_search(search, vectors, queries)
        check_kernels(generator)
        # Kernels in flight while it searches: nothing waits in between.
        maps = torch.randn(64, 128, 56, 56, device="cuda", generator=generator)
        before = spatial_max(maps)
        found = search(queries)
        after = spatial_max(maps)
        for one, other in zip(before, after, strict=True):
            assert torch.equal(one, other)
        assert torch.equal(before[0], maps.flatten(2).amax(2))
        check_search(lambda _: found, vectors, queries)
    torch.cuda.synchronize()
    check_kernels(generator)


def test_our_own_search_and_our_kernels(faiss: Any) -> None:
    """The way that fc7 itself calls FAISS."""
    from fc7.indexing import faiss_backend

    assert faiss_backend.backend() == "faiss-gpu"
    generator = torch.Generator("cuda").manual_seed(4)
    vectors = torch.randn(N, D, device="cuda", generator=generator)
    queries = torch.randn(Q, D, device="cuda", generator=generator)
    block = vectors.cpu().numpy()

    def search(some: Tensor) -> Any:
        return faiss_backend.faiss_scan(some.cpu().numpy(), block, K, cosine=False, gpu=True)[1]

    check_kernels(generator)
    check_search(search, vectors, queries)
    check_kernels(generator)
