"""Processes that meet in one run, and what they or a kill may leave behind for the next."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy import Numbers, Powers, Total, vectors

from fc7.engine.errors import StoreError
from fc7.engine.store import Output, Run, run_fold, run_map, summarize, verify
from fc7.engine.store.part import Part, PartWriter, is_committed

ROWS, PART_ROWS = 120, 10

CHILD = """
import sys
sys.path.insert(0, {tests!r})
from toy import Numbers, Powers, Total
from fc7.engine.store import Run, run_map
run = Run.create({folder!r}, Numbers({rows}), part_rows={part_rows})
run_map(run, Powers(pause_seconds=0.002), folds=[Total()], selection={selection!r})
"""


def make(folder: Path, count: int = 23, part_rows: int = 5) -> Run:
    return Run.create(folder, Numbers(count), part_rows=part_rows)


@pytest.mark.parametrize("selections", [("0::2", "1::2"), ("0:", "0:")], ids=["slices", "same"])
def test_two_processes_make_one_run(tmp_path: Path, selections: tuple[str, str]) -> None:
    folder = tmp_path / "run"
    tests = str(Path(__file__).parent)
    children = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                CHILD.format(
                    tests=tests,
                    folder=str(folder),
                    rows=ROWS,
                    part_rows=PART_ROWS,
                    selection=selection,
                ),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for selection in selections
    ]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    run = Run(folder)
    np.testing.assert_array_equal(np.asarray(run["vectors"]), vectors(np.arange(ROWS)))
    np.testing.assert_array_equal(run.job("total").result("order"), np.arange(0, ROWS, PART_ROWS))
    assert run.rows.column("status").to_pylist() == ["ok"] * ROWS
    assert verify(run) == []
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("first", [0, 1])
def test_who_commits_a_part_first_is_kept(tmp_path: Path, first: int) -> None:
    part, arrays = Part(0, 0, 2), {"a": ((2,), "int64")}
    writers = [PartWriter(tmp_path, part, arrays) for _ in range(2)]
    for value, writer in enumerate(writers):
        writer.write("a", np.arange(2), np.full(2, value))
    writers[first].commit("digest", {})
    writers[1 - first].commit("digest", {})
    np.testing.assert_array_equal(np.load(tmp_path / "a/part-000000.npy"), [first, first])
    assert is_committed(tmp_path, part, "digest")
    assert not list(tmp_path.rglob("*.tmp"))


def test_reading_leaves_a_damaged_part_to_the_job(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run_map(run, Powers())
    path = tmp_path / "run/jobs/powers/vectors/part-000001.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="lacks 1 of 5 parts"):
        Run(run.folder)["vectors"]
    assert [one.path for one in verify(run)] == [path]
    assert [one.path for one in verify(run)] == [path], "looking mends nothing"
    # Another task's slice does not hold the part: the run is not complete for it either.
    assert not run_map(run, Powers(), selection="2:").is_complete
    assert summarize(run, run.job("powers")).rows == 18


def test_a_fold_begun_with_other_options_is_made_again(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run_map(run, Powers(), folds=[Total()])
    once = np.array(run.job("total").result("sum"))
    # What a kill may leave of a fold that was being replaced: states without a description.
    (run.folder / "jobs/total/job.json").unlink()
    run_fold(run, Total(scale=2.0))
    np.testing.assert_array_equal(run.job("total").result("sum"), 2 * once)
    assert verify(run) == []


def test_a_job_begun_with_other_arrays_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    job = Powers()
    run_map(run, job, selection="0:1")
    with pytest.raises(StoreError, match="makes scalars, vectors"):
        run.start_job(job.name, "map", job.fingerprint(), [Output("vectors", (3,), "float32")])


class Others(Powers):
    @property
    def outputs(self) -> tuple[Output, ...]:
        return (Output("others", (3,), "float32"),)

    def run(self, rows):  # type: ignore[no-untyped-def]
        for numbers, arrays in super().run(rows):
            yield numbers, {"others": arrays["vectors"]}


def test_rows_bad_for_a_later_job_are_marked_after_a_kill(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run_map(run, Powers(bad=frozenset({3})))
    before = shutil.copy(run.folder / "rows.parquet", tmp_path)
    later = Others(name="later", bad=frozenset({3, 20}))
    run_map(run, later)
    shutil.copy(before, run.folder / "rows.parquet")  # killed before the table was rewritten
    run_map(run, later)
    assert np.flatnonzero(~run.good).tolist() == [3, 20]


def test_a_part_holds_a_row_at_least(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="0 rows"):
        make(tmp_path / "run", part_rows=0)
    assert not (tmp_path / "run").exists()
