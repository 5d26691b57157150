import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pictures import encode, jpeg, picture

from fc7.engine.data import ReadTimes, Transform, open_source, read_rows
from fc7.engine.data.source import TableSource

TRANSFORM = Transform(16, 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty rows of different sizes; rows 3, 7 and 19 are bad in three ways."""
    for row in range(20):
        data = jpeg(16 + row, 40 - row, seed=row)
        data = {3: b"", 7: b"hello", 19: data[:-9]}.get(row, data)
        (tmp_path / f"{row:02d}.jpg").write_bytes(data)
    return tmp_path


class Slow(TableSource):
    """Rows that take their time, the later ones less; it knows how many were asked for."""

    kind = "slow"

    def __init__(self, rows: int, seconds: float = 0.0) -> None:
        keys = pa.array([str(row) for row in range(rows)], pa.large_string())
        super().__init__("slow", keys, None, None, 10_000)
        self.seconds = seconds
        self.asked: list[int] = []
        self.data = encode(picture(8, 9), "PNG")

    def read(self, row: int) -> bytes:
        self.asked.append(row)
        time.sleep(self.seconds * (len(self) - row) / len(self))
        if self.data == b"defect":
            raise ZeroDivisionError("a defect, not a bad image")
        return self.data


def reader_threads() -> int:
    return sum(thread.name.startswith("fc7-read") for thread in threading.enumerate())


def test_a_row_may_keep_something_of_the_image_itself(folder: Path) -> None:
    source = open_source(folder)
    plain = read_rows(source, range(20), TRANSFORM, 2, 8)
    both = read_rows(source, range(20), TRANSFORM, 2, 8, keep=lambda image: image[:, ::4, ::4])
    for row, expected in zip(both, plain, strict=True):
        assert expected.kept is None
        if row.bad is not None:
            assert row.kept is None
            continue
        assert row.kept is not None
        assert expected.image is not None
        assert torch.equal(row.kept, source.decode(source.read(row.number))[:, ::4, ::4])
        assert torch.equal(row.image, expected.image)


@pytest.mark.parametrize(("threads", "lookahead"), [(1, 1), (2, 3), (4, 64), (8, 8)])
def test_rows_in_order_with_the_bad_ones_kept(folder: Path, threads: int, lookahead: int) -> None:
    source = open_source(folder)
    rows = list(read_rows(source, range(20), TRANSFORM, threads, lookahead))
    assert [row.number for row in rows] == list(range(20))
    status = {row.number: row.bad.status for row in rows if row.bad is not None}
    assert status == {3: "empty", 7: "not-an-image", 19: "truncated"}
    for row in rows:
        if row.bad is None:
            assert row.size == (16 + row.number, 40 - row.number)
            assert row.image is not None
            expected = TRANSFORM(source.decode(source.read(row.number)))
            assert torch.equal(row.image, expected)
        else:
            assert row.image is None
            assert row.size is None
            # A traceback would hold the frames, and they the payload, for as long as the row.
            assert row.bad.__traceback__ is None
            assert row.bad.__context__ is None
    assert reader_threads() == 0


def test_any_order_is_kept_however_long_each_row_takes() -> None:
    source = Slow(12, seconds=0.02)
    order = [3, 11, 0, 3, 7, 10, 1]
    assert [row.number for row in read_rows(source, order, None, 4, 4)] == order
    first = next(iter(read_rows(source, order, None)))
    assert first.image is not None
    assert tuple(first.image.shape) == (3, 8, 9)


def test_an_image_refused_by_the_transform_is_a_bad_row() -> None:
    source = Slow(1)
    source.data = encode(picture(1, 6000), "PNG")
    (row,) = read_rows(source, [0], Transform(256, 224))
    assert row.image is None
    assert row.bad is not None
    assert row.bad.status == "too-large"
    assert row.size == (1, 6000)


def test_lookahead_bounds_what_is_in_the_air() -> None:
    source = Slow(1000)
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for taken in itertools.count(1):  # without an end: it must not be drained
            yield taken % 1000

    stream = read_rows(source, numbers(), None, threads=2, lookahead=5)
    for consumed in range(1, 21):
        next(stream)
        assert taken <= consumed + 5
        assert len(source.asked) <= consumed + 5
    stream.close()


def test_closing_early_ends_the_threads() -> None:
    source = Slow(1000, seconds=0.02)
    stream = read_rows(source, range(1000), None, threads=4, lookahead=500)
    next(stream)
    assert reader_threads() == 4
    started = time.perf_counter()
    stream.close()
    assert reader_threads() == 0
    # Five hundred rows were waiting: 2.5 s of work, of which at most one row a thread is done.
    assert time.perf_counter() - started < 1.0
    assert len(source.asked) < 50


def test_a_defect_is_raised_and_ends_the_threads() -> None:
    source = Slow(50)
    stream = read_rows(source, range(50), None, threads=2, lookahead=4)
    next(stream)
    source.data = b"defect"
    with pytest.raises(ZeroDivisionError, match="a defect"):
        list(stream)
    assert reader_threads() == 0


def test_an_error_in_the_row_numbers_is_raised() -> None:
    def numbers() -> Iterator[int]:
        yield 0
        raise LookupError("no more")

    with pytest.raises(LookupError):
        list(read_rows(Slow(3), numbers(), None))
    with pytest.raises(IndexError):
        list(read_rows(open_missing_row(), [3], None))
    assert reader_threads() == 0


def open_missing_row() -> Slow:
    source = Slow(3)
    source.read = lambda row: source.key(row).encode()  # type: ignore[method-assign]
    return source


def test_times_add_up_over_the_threads(folder: Path) -> None:
    source = Slow(20, seconds=0.02)
    times = ReadTimes()
    started = time.perf_counter()
    assert len(list(read_rows(source, range(20), None, 4, 20, times))) == 20
    elapsed = time.perf_counter() - started
    asleep = sum(0.02 * (20 - row) / 20 for row in range(20))
    assert asleep <= times.read_seconds
    assert times.decode_seconds > 0
    assert times.read_seconds + times.decode_seconds <= 4 * elapsed


@pytest.mark.parametrize(("threads", "lookahead"), [(0, 1), (1, 0), (-2, 5)])
def test_wrong_arguments_are_told_at_once(threads: int, lookahead: int) -> None:
    with pytest.raises(ValueError, match=f"threads is {threads} and lookahead {lookahead}"):
        read_rows(Slow(1), [0], None, threads, lookahead)


def test_torchs_thread_count_is_left_alone(folder: Path) -> None:
    before = torch.get_num_threads()
    list(read_rows(open_source(folder), range(20), TRANSFORM, 3, 8))
    assert torch.get_num_threads() == before
