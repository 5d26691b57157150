"""PartedArray against numpy on the same values."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fc7.engine.store import PartedArray

SHAPE, PART_ROWS = (23, 3, 2), 5
WHOLE = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float16)


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> PartedArray:
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / f"part-{number:06d}.npy" for number in range(5)]
    for number, path in enumerate(paths):
        np.save(path, WHOLE[number * PART_ROWS : (number + 1) * PART_ROWS])
    return PartedArray(paths, PART_ROWS, SHAPE, np.dtype(np.float16))


@pytest.mark.parametrize(
    "index",
    [
        0,
        22,
        -1,
        -23,
        np.int64(7),
        slice(None),
        slice(3, 4),
        slice(5, 10),
        slice(4, 11),
        slice(20, 99),
        slice(9, 2),
        slice(-3, None),
        slice(None, None, -2),
        slice(1, 22, 7),
        [],
        [22, 0, 22, -1],
        np.array([[1, 2], [21, 3]]),
        np.arange(23) % 4 == 0,
        (3, 1),
        (slice(2, 9), 0),
        ([4, 5], slice(None), 1),
        (slice(None), slice(None), [1, 0]),
    ],
    ids=str,
)
def test_indexing_is_numpys(array: PartedArray, index: Any) -> None:
    expected = WHOLE[
        np.asarray(index, dtype=int) if isinstance(index, list) and not index else index
    ]
    got = array[index]
    assert got.dtype == WHOLE.dtype
    np.testing.assert_array_equal(got, expected)


@given(st.lists(st.integers(-23, 22), max_size=40))
def test_any_gather_is_numpys(array: PartedArray, rows: list[int]) -> None:
    np.testing.assert_array_equal(array[rows], WHOLE[np.asarray(rows, dtype=int)])


def test_behaves_as_an_array(array: PartedArray) -> None:
    assert (array.shape, array.dtype, array.ndim, len(array)) == (SHAPE, WHOLE.dtype, 3, 23)
    assert array.nbytes == WHOLE.nbytes
    np.testing.assert_array_equal(np.asarray(array), WHOLE)
    np.testing.assert_array_equal(np.asarray(array, dtype=np.float32), WHOLE.astype(np.float32))
    np.testing.assert_array_equal(np.stack(list(array)), WHOLE)
    np.testing.assert_array_equal(np.concatenate(list(array.parts())), WHOLE)


def test_a_slice_within_a_part_is_a_view_of_the_file(array: PartedArray) -> None:
    view = array[6:9]
    assert view.base is not None
    assert not view.flags.writeable


@pytest.mark.parametrize("index", [23, -24, [0, 23], np.ones(22, bool), [0.5], "fc7"])
def test_refuses_what_numpy_refuses(array: PartedArray, index: Any) -> None:
    with pytest.raises(IndexError):
        array[index]


@pytest.fixture
def few_files() -> Iterator[int]:
    """Let the process have 200 files open at a time."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    yield 200
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_parts_than_a_process_may_open_files(tmp_path: Path, few_files: int) -> None:
    paths = [tmp_path / f"part-{number:06d}.npy" for number in range(few_files + 50)]
    for number, path in enumerate(paths):
        np.save(path, np.array([number]))
    array = PartedArray(paths, 1, (len(paths),), np.dtype(np.int64))
    np.testing.assert_array_equal(array[np.arange(len(paths))], np.arange(len(paths)))
    np.testing.assert_array_equal([int(row) for row in array], np.arange(len(paths)))


def test_a_copy_of_a_single_part_can_be_written_to(tmp_path: Path) -> None:
    path = tmp_path / "part-000000.npy"
    np.save(path, WHOLE)
    array = PartedArray([path], len(WHOLE), SHAPE, WHOLE.dtype)
    copy = np.array(array)
    copy[:] = 0
    np.testing.assert_array_equal(np.load(path), WHOLE)
    assert np.shares_memory(np.asarray(array, copy=False), array[:])
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(array, dtype=np.float64, copy=False)
