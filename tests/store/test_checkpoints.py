"""Checkpoints: whole or not at all, of one stage, gone when it is done; a kill costs one step."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import Numbers

from fc7.engine.store import Checkpoints, ResumableStage, Run, run_stage, verify

STEPS = 40


@dataclass
class Counting:
    """A stage whose state is a number that each step squares and adds to."""

    seed: int = 3
    pause_seconds: float = 0.0
    stop_at: int = STEPS
    done: list[int] = field(default_factory=list)
    name: str = "counting"

    def fingerprint(self) -> Mapping[str, Any]:
        return {"seed": self.seed}

    def resume(self, folder: Path, checkpoints: Checkpoints) -> Mapping[str, Any]:
        step, value = 0, self.seed
        latest = checkpoints.latest()
        if latest is not None:
            step, value = json.loads((latest / "state.json").read_text())
        while step < STEPS:
            time.sleep(self.pause_seconds)
            value = (value**2 + step) % 1_000_003
            self.done.append(step)
            step += 1
            with checkpoints.write() as newest:
                (newest / "state.json").write_text(json.dumps([step, value]))
            if step == self.stop_at:
                raise KeyboardInterrupt
        np.save(folder / "value.npy", np.array(value))
        return {"steps": step}


def expected(seed: int = 3) -> int:
    value = seed
    for step in range(STEPS):
        value = (value**2 + step) % 1_000_003
    return value


def make(folder: Path) -> Run:
    return Run.create(folder, Numbers(5))


def checkpoints_of(run: Run) -> list[str]:
    return sorted(path.name for path in run.folder.glob("jobs/counting/checkpoints/*"))


def test_a_stage_that_is_not_stopped_leaves_no_checkpoint(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    assert isinstance(Counting(), ResumableStage)
    job = run_stage(run, Counting(stop_at=-1))
    assert int(job.result("value")) == expected()
    assert not (job.folder / "checkpoints").exists()
    assert verify(run) == []
    again = Counting(stop_at=-1)
    run_stage(run, again)
    assert again.done == []


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    for stop in (7, 8, 30):
        with pytest.raises(KeyboardInterrupt):
            run_stage(run, Counting(stop_at=stop))
        assert checkpoints_of(run) == [f"{stop:06d}"], "the one before goes when it is there"
        assert run.job("counting").result_record() is None
        assert verify(run) == [], "what is unfinished is not damaged"
    last = Counting(stop_at=-1)
    job = run_stage(run, last)
    assert last.done == list(range(30, STEPS))
    assert int(job.result("value")) == expected()
    assert checkpoints_of(run) == []


def test_checkpoints_of_another_stage_are_not_its_own(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run_stage(run, Counting(stop_at=20))
    other = Counting(seed=5, stop_at=-1)
    job = run_stage(run, other)
    assert other.done == list(range(STEPS))
    assert int(job.result("value")) == expected(5)
    assert checkpoints_of(run) == []


def test_damaged_checkpoints_are_passed_over(tmp_path: Path) -> None:
    own = Checkpoints(tmp_path / "checkpoints", "mine")
    assert own.latest() is None
    with own.write() as folder:
        (folder / "a").write_text("1")
    first = own.latest()
    assert first is not None
    assert first.name == "000001"

    def fail() -> None:
        with own.write() as folder:
            (folder / "a").write_text("2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert own.latest() == first
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000001"]
    broken = tmp_path / "checkpoints/000009"
    broken.mkdir()
    assert own.latest() == first
    (broken / "record.json").write_text("{")
    assert own.latest() == first
    (broken / "record.json").write_text('{"fingerprint": "another"}')
    assert own.latest() == first
    assert Checkpoints(tmp_path / "checkpoints", "another").latest() == broken
    with own.write() as folder:
        (folder / "a").write_text("3")
    latest = own.latest()
    assert latest is not None
    assert (latest.name, (latest / "a").read_text()) == ("000010", "3")
    own.clear()
    own.clear()
    assert not (tmp_path / "checkpoints").exists()


def test_what_a_kill_after_the_commit_left_goes(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    job = run_stage(run, Counting(stop_at=-1))
    with Checkpoints(job.folder / "checkpoints", job.digest).write():
        pass
    run_stage(run, Counting(stop_at=-1))
    assert checkpoints_of(run) == []


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from test_checkpoints import Counting, make
from pathlib import Path
run = make(Path({folder!r}))
from fc7.engine.store import run_stage
run_stage(run, Counting(pause_seconds=0.01, stop_at=-1))
"""


@pytest.mark.parametrize("number", [1, 9])
def test_sigkill_costs_one_step(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "run"
    code = CHILD.format(tests=str(Path(__file__).parent), folder=str(folder))
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not list(folder.glob(f"jobs/counting/checkpoints/{number:06d}")):
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    run = make(folder)
    mine = Counting(stop_at=-1)
    job = run_stage(run, mine)
    assert number <= mine.done[0] < STEPS - 1
    assert mine.done == list(range(mine.done[0], STEPS))
    assert int(job.result("value")) == expected()
    assert not list(folder.rglob("*.tmp")), "what was being written is cleaned up"
    assert verify(run) == []
