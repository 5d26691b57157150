"""Maps and folds through the runner: what is stored, what is resumed, what is refused."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from toy import Numbers, Powers, Total, vectors

from fc7.engine.errors import FingerprintError, StoreError
from fc7.engine.store import Progress, Run, open_store, run_fold, run_map, verify


def make(folder: Path, count: int = 23, part_rows: int = 5) -> Run:
    return Run.create(folder, Numbers(count), part_rows=part_rows)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("count", "part_rows"), [(23, 5), (20, 5), (1, 5), (7, 100), (5, 1)])
def test_stores_each_row_at_its_place(
    tmp_path: Path, count: int, part_rows: int, backwards: bool
) -> None:
    run = make(tmp_path / "run", count, part_rows)
    summary = run_map(run, Powers(backwards=backwards))
    rows = np.arange(count)
    assert summary.is_complete
    assert summary.rows == summary.computed == count
    np.testing.assert_array_equal(np.asarray(run["vectors"]), vectors(rows))
    np.testing.assert_array_equal(np.asarray(run["scalars"]), rows * 7)
    assert run.rows.column("status").to_pylist() == ["ok"] * count
    assert run.rows.column("key").to_pylist() == [f"number-{n}" for n in rows]
    np.testing.assert_array_equal(run.labels, rows % 3)


def test_numpy_alone_reads_a_part(tmp_path: Path) -> None:
    run_map(make(tmp_path / "run"), Powers())
    part = np.load(tmp_path / "run/jobs/powers/vectors/part-000004.npy", mmap_mode="r")
    np.testing.assert_array_equal(part, vectors(np.arange(20, 23)))


def test_bad_rows_stay_zero_and_keep_their_reason(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    bad = frozenset({0, 5, 6, 7, 8, 9, 22})  # first, last, and a whole part
    summary = run_map(run, Powers(bad=bad), folds=[Total()])
    good = np.array([n not in bad for n in range(23)])
    expected = vectors(np.arange(23)) * good[:, None]
    np.testing.assert_array_equal(np.asarray(run["vectors"]), expected)
    np.testing.assert_array_equal(run.good, good)
    assert sorted(row for row, _, _ in summary.bad) == sorted(bad)
    table = run.rows
    assert table.column("status").to_pylist()[4:7] == ["ok", "empty", "empty"]
    assert table.column("detail").to_pylist()[4:6] == [None, "0 bytes"]
    np.testing.assert_array_equal(run.job("total").result("sum"), expected.sum(0))


def test_resumes_at_the_first_part_that_is_not_committed(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run_map(run, Powers(), selection="0:3")
    assert not run.job("powers").is_complete
    with pytest.raises(StoreError, match="lacks 2 of 5 parts"):
        run["vectors"]
    kept = {p: p.stat() for p in (tmp_path / "run/jobs").rglob("part-*")}
    second = Powers()
    summary = run_map(run, second)
    assert second.computed == list(range(15, 23))
    assert (summary.rows, summary.computed) == (23, 8)
    for path, before in kept.items():
        after = path.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), path
    third = Powers()
    run_map(run, third)
    assert third.computed == []


def test_a_file_cut_short_makes_its_part_again(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run_map(run, Powers())
    path = tmp_path / "run/jobs/powers/vectors/part-000001.npy"
    path.write_bytes(path.read_bytes()[:-1])
    again = Powers()
    run_map(run, again)
    assert again.computed == [5, 6, 7, 8, 9]
    assert verify(run) == []


def test_slices_of_parts_make_the_same_run(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    run_map(whole, Powers(), folds=[Total()])
    sliced = make(tmp_path / "sliced")
    for task in ("1::2", "0::2"):
        run_map(sliced, Powers(), folds=[Total()], selection=task)
    np.testing.assert_array_equal(np.asarray(whole["vectors"]), np.asarray(sliced["vectors"]))
    for name in ("sum", "order"):
        np.testing.assert_array_equal(
            whole.job("total").result(name), sliced.job("total").result(name)
        )
    np.testing.assert_array_equal(sliced.job("total").result("order"), [0, 5, 10, 15, 20])
    with pytest.raises(StoreError, match="0::8"):
        run_map(sliced, Powers(), selection="every other")


def test_a_different_job_is_refused_with_what_changed(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run_map(run, Powers(factor=1), selection="0:1")
    with pytest.raises(FingerprintError, match="factor: 1 then, 2 now"):
        run_map(run, Powers(factor=2))


def test_another_source_is_refused_and_a_new_job_is_not(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run_map(run, Powers())
    with pytest.raises(FingerprintError, match="another --out"):
        Run.create(tmp_path / "run", Numbers(24))
    other = dataclasses.replace(Powers(), name="powers-2")
    with pytest.raises(StoreError, match="vectors"):
        run_map(run, other)


def test_folds_follow_changed_options_and_inputs(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run_map(run, Powers(), folds=[Total()])
    once = np.array(run.job("total").result("sum"))
    run_fold(run, Total(scale=2.0))
    np.testing.assert_array_equal(run.job("total").result("sum"), 2 * once)
    with pytest.raises(StoreError, match="nothing"):
        run_fold(run, Total(inputs=("nothing",)))


def test_counts_values_that_a_cast_made_infinite(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    # Row r holds r * 4000: past row 16 the first and last exceed float16's 65504.
    summary = run_map(run, Powers(factor=4000, dtype="float16"))
    expected = (np.abs(vectors(np.arange(23)) * 4000) >= 65520).sum()  # halfway to 2^16
    assert expected > 0
    assert summary.nonfinite["vectors"] == {"nan": 0, "infinite": int(expected)}


def test_progress_counts_every_row_once(tmp_path: Path) -> None:
    seen: list[Progress] = []
    run_map(make(tmp_path / "run"), Powers(bad=frozenset({3})), report=seen.append)
    assert seen[-1].done == seen[-1].total == 23
    assert all(a.done <= b.done for a, b in itertools.pairwise(seen))
    assert set(seen[-1].seconds) == {"read", "decode", "forward", "wait", "write"}


@pytest.mark.parametrize("fault", ["twice", "missing", "stray", "foreign"])
def test_a_job_that_loses_or_repeats_rows_is_caught(tmp_path: Path, fault: str) -> None:
    class Faulty(Powers):
        def run(self, rows):  # type: ignore[no-untyped-def]
            for numbers, arrays in super().run(rows):
                if fault == "missing" and 5 in numbers:
                    continue
                # One row back: that of the first row of a part belongs to the part before.
                yield numbers - (fault == "stray" and 5 in numbers), arrays
                if fault == "twice":
                    yield numbers, arrays

    if fault == "foreign":
        with pytest.raises(ValueError, match="boom"):
            run_map(make(tmp_path / "run"), _Exploding())
    else:
        message = {"twice": "twice", "missing": "row 5", "stray": "not of"}[fault]
        with pytest.raises(RuntimeError, match=message):
            run_map(make(tmp_path / "run"), Faulty())
    assert not list((tmp_path / "run").rglob("*.tmp"))


class _Exploding(Powers):
    def _batch(self, numbers):  # type: ignore[no-untyped-def]
        if 12 in numbers:
            raise ValueError("boom")
        return super()._batch(numbers)


def test_an_error_keeps_what_was_committed(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    with pytest.raises(ValueError, match="boom"):
        run_map(run, _Exploding())
    assert [part.index for part in run.job("powers").committed()] == [0, 1]
    later = Powers()
    run_map(run, later)
    assert later.computed[0] == 10
    np.testing.assert_array_equal(np.asarray(run["vectors"]), vectors(np.arange(23)))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run in"):
        open_store(tmp_path)
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty and not a run"):
        make(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        open_store(tmp_path / "run")
    (tmp_path / "run/run.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(tmp_path / "run")


def test_verify_names_the_corrupted_part(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run_map(run, Powers(), folds=[Total()])
    assert verify(run) == []
    path = tmp_path / "run/jobs/powers/vectors/part-000003.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # one flipped bit; the size stays
    path.write_bytes(data)
    (tmp_path / "run/jobs/total/result/sum.npy").unlink()
    damage = verify(run)
    assert [one.path for one in damage] == [
        path,
        tmp_path / "run/jobs/total/result/sum.npy",
    ]
    assert "checksum" in damage[0].what
    assert "missing" in damage[1].what
    # A record that is no JSON is damage too, not the end of the search for more.
    (tmp_path / "run/jobs/total/result/record.json").write_text("{")
    assert [one.path.name for one in verify(run)] == ["part-000003.npy", "record.json"]
