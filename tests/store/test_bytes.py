"""Outputs whose rows are byte strings: written in any order, read as an array of objects is."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import Numbers, Powers, Texts, Total, text

from fc7.engine.errors import StoreError
from fc7.engine.report.speed import sizes_by_output
from fc7.engine.store import Output, PartedBytes, Run, open_store, run_fold, run_map, verify
from fc7.engine.store.part import Part, PartWriter, is_committed
from fc7.engine.store.vectors import open_vectors

COUNT, PART_ROWS = 23, 5
WHOLE = np.array([text(row) for row in range(COUNT)], dtype=object)


def make(folder: Path, count: int = COUNT, part_rows: int = PART_ROWS) -> Run:
    return Run.create(folder, Numbers(count), part_rows=part_rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make(tmp_path_factory.mktemp("texts") / "run")
    run_map(made, Texts(backwards=True))
    return open_store(made.folder)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("count", "part_rows"), [(23, 5), (20, 5), (1, 5), (7, 100), (5, 1)])
def test_each_row_comes_back(tmp_path: Path, count: int, part_rows: int, backwards: bool) -> None:
    made = make(tmp_path / "run", count, part_rows)
    run_map(made, Texts(backwards=backwards))
    assert list(made["texts"]) == [text(row) for row in range(count)]
    np.testing.assert_array_equal(np.asarray(made["scalars"]), np.arange(count) * 7)
    assert verify(made) == []
    assert not list(made.folder.rglob("*.tmp"))


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(3, 4),
        slice(5, 10),
        slice(4, 11),
        slice(20, 99),
        slice(9, 2),
        slice(None, None, -2),
        [],
        [22, 0, 22, -1],
        np.array([[1, 2], [21, 3]]),
        np.arange(23) % 4 == 0,
        (slice(2, 9),),
        (),
    ],
    ids=str,
)
def test_indexing_is_that_of_an_object_array(run: Run, index: Any) -> None:
    plain = np.asarray(index, dtype=int) if isinstance(index, list) and not index else index
    got, expected = run["texts"][index], WHOLE[plain]
    assert got.dtype == np.object_
    assert got.shape == expected.shape
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("row", [0, 22, -1, -23, np.int64(7), (3,)])
def test_one_row_is_its_bytes(run: Run, row: Any) -> None:
    assert isinstance(run["texts"][row], bytes)
    assert run["texts"][row] == WHOLE[row]


@pytest.mark.parametrize("index", [23, -24, [0, 23], np.ones(22, bool), [0.5], (0, 1)])
def test_refuses_what_numpy_refuses(run: Run, index: Any) -> None:
    with pytest.raises(IndexError):
        run["texts"][index]


def test_behaves_as_an_array(run: Run) -> None:
    array = run["texts"]
    assert isinstance(array, PartedBytes)
    assert (array.shape, array.ndim, array.dtype, len(array)) == ((23,), 1, np.dtype(object), 23)
    assert array.nbytes == sum(map(len, WHOLE))
    assert array.lengths().tolist() == [len(row) for row in WHOLE]
    assert np.asarray(array).tolist() == WHOLE.tolist()
    assert [len(part) for part in array.parts()] == [5, 5, 5, 5, 3]
    assert [row for part in array.parts() for row in part] == WHOLE.tolist()
    assert "parts=5" in repr(array)
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(array, copy=False)


def test_numpy_alone_reads_a_part(run: Run) -> None:
    path = run.folder / "jobs/texts/texts/part-000004.npy"
    data = np.load(path, mmap_mode="r")
    offsets = np.load(path.with_name("part-000004.offsets.npy"))
    assert (data.dtype, offsets.dtype, offsets.shape) == (np.uint8, np.int64, (3, 2))
    rows = [data[start:stop].tobytes() for start, stop in offsets]
    assert rows == [text(row) for row in (20, 21, 22)]
    assert len(data) == sum(map(len, rows))


def test_bad_rows_are_empty(tmp_path: Path) -> None:
    made = make(tmp_path / "run")
    bad = frozenset({0, 5, 6, 7, 8, 9, 22})  # first, last, and a whole part
    run_map(made, Texts(bad=bad))
    assert list(made["texts"]) == [b"" if row in bad else text(row) for row in range(COUNT)]
    assert not made["texts"][5:10].any()
    assert verify(made) == []


class Large(Texts):
    """Rows of 10 MB, one in a batch; row 2 is empty."""

    def _batch(self, numbers: list[int]) -> Any:
        rows, arrays = super()._batch(numbers)
        large = [bytes([row]) * 10_000_000 if row != 2 else b"" for row in rows.tolist()]
        return rows, {**arrays, "texts": large}


def test_a_part_of_large_rows_is_never_in_memory(tmp_path: Path) -> None:
    made = make(tmp_path / "run", 16, 16)
    tracemalloc.start()
    run_map(made, Large(batch=1))
    lengths = [len(row) for row in made["texts"]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lengths == [0 if row == 2 else 10_000_000 for row in range(16)]
    assert made["texts"][3] == b"\3" * 10_000_000
    # One row being made, one being written, four in the queue, of 150 MB.
    assert peak < 75_000_000


def test_resumes_and_makes_damaged_parts_again(tmp_path: Path) -> None:
    made = make(tmp_path / "run")
    run_map(made, Texts(), selection="0:3")
    with pytest.raises(StoreError, match="lacks 2 of 5 parts"):
        made["texts"]
    second = Texts()
    run_map(made, second)
    assert second.computed == list(range(15, 23))
    folder = made.folder / "jobs/texts/texts"
    for name, rows in (("part-000001.npy", 5), ("part-000002.offsets.npy", 10)):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(StoreError, match="lacks 1 of 5 parts"):
            Run(made.folder)["texts"]
        again = Texts()
        run_map(made, again)
        assert again.computed == list(range(rows, rows + 5))
    assert verify(made) == []
    assert list(made["texts"]) == WHOLE.tolist()


def test_verify_names_the_damaged_file(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.folder, tmp_path / "run"))
    folder = copy.folder / "jobs/texts/texts"
    for name in ("part-000000.npy", "part-000003.offsets.npy"):
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 0x40  # one flipped bit; the size stays
        (folder / name).write_bytes(data)
    (folder / "part-000002.offsets.npy").unlink()
    damage = verify(copy)
    assert [one.path.name for one in damage] == [
        "part-000000.npy",
        "part-000002.offsets.npy",
        "part-000003.offsets.npy",
    ]
    assert ["checksum" in one.what for one in damage] == [True, False, True]
    # Offsets that lead out of the file are no row of it.
    offsets = np.load(folder / "part-000001.offsets.npy")
    offsets[2, 1] += 1 << 40
    np.save(folder / "part-000001.offsets.npy", offsets)
    with pytest.raises(StoreError, match="fc7 verify"):
        PartedBytes([folder / "part-000001.npy"], PART_ROWS, PART_ROWS)[2]


@pytest.mark.parametrize("first", [0, 1])
def test_who_commits_a_part_first_is_kept(tmp_path: Path, first: int) -> None:
    part, arrays = Part(0, 0, 2), {"a": ((2,), "bytes")}
    writers = [PartWriter(tmp_path, part, arrays) for _ in range(2)]
    for value, writer in enumerate(writers):
        writer.write("a", np.array([1, 0]), [b"x" * (value + 1), b"y" * value])
    writers[first].commit("digest", {})
    writers[1 - first].commit("digest", {})
    array = PartedBytes([tmp_path / "a/part-000000.npy"], 2, 2)
    assert list(array) == [b"y" * first, b"x" * (first + 1)]
    assert is_committed(tmp_path, part, "digest")
    assert not list(tmp_path.rglob("*.tmp"))


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from toy import Numbers, Texts
from fc7.engine.store import Run, run_map
run = Run.create({folder!r}, Numbers(200), part_rows=10)
run_map(run, Texts(pause_seconds=0.002))
"""


def start_child(folder: Path) -> "subprocess.Popen[bytes]":
    code = CHILD.format(tests=str(Path(__file__).parent), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code])


def test_sigkill_and_a_second_process_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    children = [start_child(folder) for _ in range(2)]
    commits = folder / "jobs/texts/commits"
    deadline = time.monotonic() + 60
    while len(list(commits.glob("part-*.json"))) < 4:
        assert all(child.poll() is None for child in children)
        assert time.monotonic() < deadline
    os.kill(children[0].pid, signal.SIGKILL)
    children[0].wait()
    assert children[1].wait(60) == 0
    made = Run(folder)
    assert list(made["texts"]) == [text(row) for row in range(200)]
    assert verify(made) == []
    # What the killed process left is removed by whoever makes that part; nobody had to here.
    for leftover in folder.rglob("*.tmp"):
        assert leftover.name.startswith(".part-")
    (commits / "part-000007.json").unlink()
    run_map(made, again := Texts())
    assert again.computed == list(range(70, 80))
    assert list(Run(folder)["texts"]) == [text(row) for row in range(200)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["text"], "got str"),
        ([b"a", b"b"], "2 byte strings for 1 rows"),
        (np.array([b"lost zeros\0"]), "got |S11, expected bytes"),
        (np.array([[1.0]]), "got float64"),
    ],
)
def test_a_job_that_yields_no_bytes_is_refused(tmp_path: Path, value: Any, message: str) -> None:
    class Wrong(Texts):
        def _batch(self, numbers: list[int]) -> Any:
            rows, arrays = super()._batch(numbers)
            return rows, {**arrays, "texts": value}

    made = make(tmp_path / "run", 3)
    with pytest.raises(ValueError, match=re.escape(message)):
        run_map(made, Wrong(batch=1))
    assert not list(made.folder.rglob("*.tmp"))
    assert not made.job("texts").committed()


def test_what_needs_numbers_refuses_bytes(run: Run) -> None:
    with pytest.raises(StoreError, match=r"total needs arrays, and texts holds byte strings"):
        run_fold(run, Total(inputs=("texts",)))
    with pytest.raises(StoreError, match="byte string a row"):
        open_vectors(run, "texts")
    output = run.job("texts").outputs["texts"]
    with pytest.raises(StoreError, match="length of its own"):
        _ = output.bytes_per_row
    with pytest.raises(StoreError, match=r"texts: a row of bytes has the shape \(\)"):
        Output("texts", (3,), "bytes")
    sizes = {name: size for name, size, _ in sizes_by_output(run)}
    headers = 5 * 128
    assert sizes["texts"] == sum(map(len, WHOLE)) + headers


def test_bytes_beside_numbers_in_one_run(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.folder, tmp_path / "run"))
    run_map(copy, Renamed(), folds=[Total()])
    assert list(copy["texts"]) == WHOLE.tolist()
    assert copy.job("total").is_complete


class Renamed(Powers):
    """`Powers` without the scalars, which `Texts` has too."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (Output("vectors", (3,), "float32"),)

    def run(self, rows: Iterator[Any]) -> Any:
        for numbers, arrays in super().run(rows):
            yield numbers, {"vectors": arrays["vectors"]}
