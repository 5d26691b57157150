"""merge_topk against a full sort of everything it ever saw: exact, for it computes nothing.

Most ids are beyond 2^61 and differ by one: no float, and no half of an integer, could hold them.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from fc7.kernels import backend, empty_topk, merge_topk
from fc7.kernels.merge_topk import _merge_topk, _merge_topk_torch, topk_reference

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
POOL = torch.tensor([-2.0, -1.0, -0.0, 0.0, 1.0, torch.nan, -torch.inf, torch.inf])


def candidates(
    channels: int, count: int, device: str, dtype: torch.dtype = torch.float32, ties: bool = True
) -> tuple[Tensor, Tensor]:
    """Draw values, few of them distinct, and ids, all distinct and most beyond 2^61."""
    generator = torch.Generator().manual_seed(channels * 1000 + count)
    values = torch.randn(channels, count, generator=generator)
    if ties:
        values = POOL[torch.randint(len(POOL), (channels, count), generator=generator)]
    ids = torch.stack([torch.randperm(count, generator=generator) for _ in range(channels)])
    ids = torch.where(ids % 3 == 0, ids, ids + 2**61)
    return values.to(device, dtype), ids.to(device)


def check(top: tuple[Tensor, Tensor], values: Tensor, ids: Tensor) -> None:
    """Assert that `top` is the top of all (C, M) candidates, with empty places after the last."""
    k, kept = top[0].shape[1], min(top[0].shape[1], values.shape[1])
    expected = topk_reference(values.double().cpu().numpy(), ids.cpu().numpy(), k)
    assert top[0].dtype == values.dtype
    shape = (len(values), kept)
    np.testing.assert_array_equal(
        top[0][:, :kept].double().cpu().numpy(), np.reshape(expected[0], shape)
    )
    np.testing.assert_array_equal(top[1][:, :kept].cpu().numpy(), np.reshape(expected[1], shape))
    assert (top[0][:, kept:] == -torch.inf).all()
    assert (top[1][:, kept:] == -1).all()


def empty(channels: int, k: int, values: Tensor) -> tuple[Tensor, Tensor]:
    top, ids = empty_topk(channels, k, values.dtype)
    return top.to(values.device), ids.to(values.device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ties", [True, False])
def test_is_the_first_of_a_full_sort(ties: bool, dtype: torch.dtype, device: str) -> None:
    for k, count in [(1, 1), (9, 9), (9, 300), (3, 2), (64, 65)]:
        values, ids = candidates(3, count, device, dtype, ties)
        check(merge_topk(*empty(3, k, values), values, ids), values, ids)


@pytest.mark.parametrize("k", [1, 3, 63, 64, 65, 123, 130])
def test_awkward_sizes(k: int, device: str) -> None:
    if backend.INTERPRETED and k == 63:
        pytest.skip("as many rounds as 64, and slow")
    for count in (1, 63, 65, 130):
        values, ids = candidates(2, count, device)
        check(merge_topk(*empty(2, k, values), values, ids), values, ids)


@pytest.mark.parametrize("size", [1, 4, 20, 33])
def test_parts_in_any_order_equal_the_whole(size: int, device: str) -> None:
    if backend.INTERPRETED and size == 1:
        pytest.skip("66 launches are slow")
    values, ids = candidates(3, 66, device)
    top = empty(3, 9, values)
    for start in reversed(range(0, 66, size)):
        part = slice(start, start + size)
        top = merge_topk(*top, values[:, part], ids[:, part])
    check(top, values, ids)


def test_more_candidates_than_a_program_holds(device: str) -> None:
    values, ids = candidates(2, 9000, device)
    check(merge_topk(*empty(2, 9, values), values, ids), values, ids)


def test_more_than_a_cache_holds_at_once(device: str) -> None:
    channels = 40 if backend.INTERPRETED else 600
    values, ids = candidates(channels, 500, device)
    values[::2] = 0  # in half of the channels every value ties
    check(merge_topk(*empty(channels, 5, values), values, ids), values, ids)


def test_any_strides(device: str) -> None:
    whole, numbers = candidates(8, 60, device)
    views = [
        (whole[:, ::2], numbers[:, ::2]),
        (whole[1::2], numbers[1::2]),
        (whole.T.contiguous().T, numbers.T.contiguous().T),
        (whole[:1].expand(4, -1), numbers),
        (whole, torch.arange(60, device=device).expand(8, -1)),
    ]
    for values, ids in views:
        ids = ids[: len(values)]
        top = empty(len(values), 9, values)
        turned = (top[0].T.contiguous().T, top[1].T.contiguous().T)
        check(merge_topk(*top, values, ids), values, ids)
        half = merge_topk(*turned, values[:, :20], ids[:, :20])
        half = (half[0].T.contiguous().T, half[1].T.contiguous().T)
        check(merge_topk(*half, values[:, 20:], ids[:, 20:]), values, ids)


def test_empty_places_lose_against_minus_infinity(device: str) -> None:
    values = torch.tensor([[-torch.inf, -torch.inf, torch.nan, -torch.inf]], device=device)
    ids = torch.tensor([[-1, 2**40, 7, -1]], device=device)
    for k, expected in [
        (1, [7]),
        (2, [7, 2**40]),
        (3, [7, 2**40, -1]),
        (5, [7, 2**40, -1, -1, -1]),
    ]:
        top, kept = merge_topk(*empty(1, k, values), values, ids)
        assert kept.tolist() == [expected]
        assert (top == -torch.inf).all()


def test_empty_places_beside_others(device: str) -> None:
    for place in range(0, 40, 3):
        values = torch.full((1, 40), -torch.inf, device=device)
        ids = torch.full((1, 40), -1, device=device)
        values[0, place], ids[0, place], ids[0, -1 - place] = 1.0, 5, 4
        kept = merge_topk(*empty(1, 6, values), values, ids)[1]
        assert kept.tolist() == [[5, 4, -1, -1, -1, -1]]


def test_channels_never_positive_still_have_a_top(device: str) -> None:
    values = torch.tensor([[-3.0, -1.0, -2.0]], device=device)
    top, ids = merge_topk(*empty(1, 2, values), values, torch.tensor([[0, 1, 2]], device=device))
    assert top.tolist() == [[-1.0, -2.0]]
    assert ids.tolist() == [[1, 2]]


@pytest.mark.parametrize(("channels", "k", "count"), [(0, 3, 5), (2, 0, 5), (2, 3, 0), (0, 0, 0)])
def test_nothing_to_merge(channels: int, k: int, count: int, device: str) -> None:
    values = torch.zeros(channels, count, device=device)
    ids = torch.zeros(channels, count, device=device, dtype=torch.int64)
    top, kept = merge_topk(*empty(channels, k, values), values, ids)
    assert top.shape == kept.shape == (channels, k)
    if count == 0:
        assert (top == -torch.inf).all()
        assert (kept == -1).all()


def test_the_sorts_where_nothing_else_serves(device: str) -> None:
    values, ids = candidates(3, 40, device)
    check(_merge_topk_torch(*empty(3, 9, values), values, ids), values, ids)
    check(_merge_topk_torch(*empty(3, 50, values), values, ids), values, ids)


def test_the_inputs_stay_as_they_are(device: str) -> None:
    values, ids = candidates(2, 40, device)
    before = values.clone(), ids.clone()
    merge_topk(*empty(2, 9, values), values, ids)
    assert torch.equal(values.nan_to_num(), before[0].nan_to_num())
    assert values.isnan().any()
    assert torch.equal(ids, before[1])


def test_refuses_shapes_that_do_not_fit() -> None:
    values, ids = empty_topk(2, 3)
    with pytest.raises(ValueError, match="must agree"):
        merge_topk(values, ids, torch.zeros(2, 4), torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="cannot be merged"):
        merge_topk(values, ids, torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="cannot be merged"):
        merge_topk(values, ids, torch.zeros(2), torch.zeros(2, dtype=torch.int64))


def test_refuses_dtypes_that_do_not_fit() -> None:
    values, ids = empty_topk(2, 3)
    with pytest.raises(TypeError, match=r"torch\.float32 and new values torch\.float64"):
        merge_topk(values, ids, torch.zeros(2, 4).double(), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"torch\.int64, got torch\.int64 and torch\.int32"):
        merge_topk(values, ids, torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.int32))
    with pytest.raises(TypeError, match=r"torch\.int32"):
        merge_topk(values.int(), ids, torch.zeros(2, 4).int(), torch.zeros(2, 4).long())


def test_the_operator_is_sound(device: str) -> None:
    values, ids = candidates(2, 40, device, ties=False)
    torch.library.opcheck(_merge_topk, (*empty(2, 3, values), values, ids))


def test_compiles_without_a_break(device: str) -> None:
    def tripled(values: Tensor, ids: Tensor, more: Tensor, ids_of_more: Tensor) -> Tensor:
        return merge_topk(values, ids, more * 3, ids_of_more)[0] + 1

    values, ids = candidates(2, 40, device, ties=False)
    arguments = (*empty(2, 3, values), values, ids)
    compiled = torch.compile(tripled, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), tripled(*arguments))


@pytest.mark.gpu
def test_beyond_two_to_the_31_elements() -> None:
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 6 * 2**30:
        pytest.skip("needs a GPU with 6 GiB")
    channels, count = 2**20 + 2**10, 2**11
    values = torch.zeros(channels, count, device="cuda", dtype=torch.bfloat16)
    ids = torch.arange(count, device="cuda").expand(channels, -1)
    best = (torch.arange(channels, device="cuda") * 7) % count
    values.scatter_(1, best[:, None], 1.0)
    top, kept = merge_topk(*empty(channels, 1, values), values, ids)
    assert (top == 1).all()
    assert torch.equal(kept[:, 0], best)
