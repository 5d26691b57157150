"""A run killed at the worst moments continues as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from toy import Numbers, Powers, Total

from fc7.engine.store import Run, run_map, verify

ROWS, PART_ROWS = 200, 10

CHILD = """
import sys
sys.path.insert(0, {tests!r})
from toy import Numbers, Powers, Total
from fc7.engine.store import Run, run_map
run = Run.create({folder!r}, Numbers({rows}), part_rows={part_rows})
run_map(run, Powers(pause_seconds=0.002), folds=[Total()])
"""


@pytest.mark.parametrize("records", [1, 4, 9])
def test_sigkill_as_commit_records_appear(tmp_path: Path, records: int) -> None:
    folder = tmp_path / "run"
    code = CHILD.format(
        tests=str(Path(__file__).parent), folder=str(folder), rows=ROWS, part_rows=PART_ROWS
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    commits = folder / "jobs/powers/commits"
    deadline = time.monotonic() + 60
    while len(list(commits.glob("part-*.json"))) < records:
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
    os.kill(child.pid, signal.SIGKILL)
    child.wait()

    run = Run.create(folder, Numbers(ROWS), part_rows=PART_ROWS)
    committed = run.job("powers").committed()
    assert records <= len(committed) < len(run.parts)
    names = {part.name for part in committed}
    kept = {
        path: path.stat()
        for path in (folder / "jobs/powers").rglob("part-*")
        if path.name.split(".")[0] in names
    }
    continued = Powers()
    run_map(run, continued, folds=[Total()])
    assert len(continued.computed) == ROWS - PART_ROWS * len(committed)
    for path, before in kept.items():
        after = path.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), path

    undisturbed = Run.create(tmp_path / "whole", Numbers(ROWS), part_rows=PART_ROWS)
    run_map(undisturbed, Powers(), folds=[Total()])
    for output in ("vectors", "scalars"):
        np.testing.assert_array_equal(np.asarray(run[output]), np.asarray(undisturbed[output]))
    for name in ("sum", "order"):
        np.testing.assert_array_equal(
            run.job("total").result(name), undisturbed.job("total").result(name)
        )
    assert run.rows.equals(undisturbed.rows)
    assert verify(run) == []
    assert not list(folder.rglob("*.tmp")), "what the killed process left behind is cleaned up"


def test_opening_a_store_imports_no_torch(tmp_path: Path) -> None:
    run_map(Run.create(tmp_path / "run", Numbers(7)), Powers())
    code = (
        "import sys, numpy, fc7.engine.store as s; r = s.open_store(sys.argv[1]); "
        "assert numpy.asarray(r['vectors']).shape == (7, 3); assert r.rows.num_rows == 7; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)
