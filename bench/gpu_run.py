"""Processes with an end: stages and test files, each in its own, none beyond its time."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any

Say = Callable[[str], None]
_CPU_MARKS = "not gpu and not variants and not triton36"
_LOG_BYTES = 8 * 2**20
_FAILURE_CHARACTERS = 400
STOPPED = "was stopped"
_live: set["subprocess.Popen[str]"] = set()


class Runner:
    """Runs stages of `fc7.bench.gpu_stages` and reads what they found.

    Args:
        folder: for the stages' results.
        log: everything that the stages write is added to it.
        say: prints one line.
    """

    def __init__(self, folder: Path, log: Path, say: Say) -> None:
        self._folder, self._log, self._say = folder, log, say
        log.write_text("")

    def stage(
        self, name: str, options: Sequence[str], seconds: float
    ) -> tuple[dict[str, Any], str]:
        """Run a stage.

        Returns:
            What it found, as far as it came, and how it ended: "" is well.
        """
        path = self._folder / f"{name}.json"
        command = [sys.executable, "-m", "fc7.bench.gpu_stages", name, str(path), *options]
        with self._log.open("a") as log:
            log.write(f"== {name}\n")

            def line(text: str) -> None:
                log.write(text)
                log.flush()
                if text.strip():
                    self._say(f"{name}: {text.rstrip()}"[:160])

            ended = run(command, seconds, line)
        found = json.loads(path.read_text()) if path.exists() else {}
        return found, ended

    def put(self, name: str, found: dict[str, Any]) -> None:
        """Leave results for the next process of a stage to continue from."""
        (self._folder / f"{name}.json").write_text(json.dumps(found))


def run(command: Sequence[str], seconds: float, line: Callable[[str], None]) -> str:
    """Run a command for so many seconds at most, and pass on what it writes, line by line.

    It is interrupted first, so that it can say how far it came, and killed ten seconds later.

    Returns:
        "" where it exited with 0, else a few words: "ended with exit code 3".
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"},
        process_group=0,  # a group of its own, children included
    )
    stopping = Timer(max(0.0, seconds), _signal, (process, signal.SIGINT))
    killing = Timer(max(0.0, seconds) + 10, _signal, (process, signal.SIGKILL))
    _live.add(process)
    last = ""
    try:
        stopping.start()
        killing.start()
        assert process.stdout is not None
        for text in process.stdout:
            last = text.strip() or last
            line(text)
        late = not stopping.is_alive()
        code = process.wait()
    finally:
        stopping.cancel()
        killing.cancel()
        _live.discard(process)
        if process.poll() is None:
            _signal(process, signal.SIGKILL)
    if late:
        return f"{STOPPED} after {seconds:.0f} s"
    return "" if code == 0 else f"ended with exit code {code} ({last[:300]})"


def _signal(process: "subprocess.Popen[str]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def run_tests(
    tests: Path, out: Path, device: str, end: float, processes: int, say: Say
) -> dict[str, Any]:
    """Run each test file in a process of its own, several at a time: most of it is compiling.

    A kernel that reads where it should not spoils its process: one file's tests, not everyone's.

    Args:
        tests: a folder of test files, or one of them.
        out: tests.log and tests.xml go there.
        device: other than "cpu", the tests with the mark `gpu` run.
        end: of the time there is, as time.monotonic() has it.
        processes: at a time.
        say: prints one line.

    Returns:
        Counts, the failures with the beginning of their messages, and the files not run.
    """
    files = [tests] if tests.is_file() else sorted(tests.rglob("test_*.py"))
    marks = "gpu" if device != "cpu" else _CPU_MARKS
    log: list[str] = []

    def one(file: Path) -> tuple[Path, "ElementTree.Element | None", str]:
        junit = Path(scratch) / f"{file.stem}.xml"
        options = ["-m", marks, "-q", "-rfE", "--tb=short", "--junitxml", str(junit)]
        # A trial has no minutes for compiling either.
        options += ["-k", "not compile"] if device == "cpu" else []
        lines: list[str] = []
        seconds = end - time.monotonic()
        if seconds < 5:
            return file, None, "not begun"
        ended = run([sys.executable, "-m", "pytest", str(file), *options], seconds, lines.append)
        log.append(f"== {file}\n{''.join(lines)}")
        (out / "tests.log").write_text("\n".join(log)[-_LOG_BYTES:])
        suite = ElementTree.parse(junit).getroot() if junit.exists() else None
        nothing = "exit code 5" in ended  # no test of the file has the mark
        say(f"tests: {file.name}: {_last(lines)}")
        return file, suite, "" if nothing else ended

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(processes) as pool:
        try:
            done = list(pool.map(one, files))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_live):
                _signal(process, signal.SIGKILL)
            raise
    suites = ElementTree.Element("testsuites")
    found: dict[str, Any] = {
        **dict.fromkeys(("passed", "failed", "errors", "skipped"), 0),
        "failures": {},
        "skips": {},
        "not_run": [],
        "marks": marks,
    }
    for file, suite, ended in done:
        count = 0
        if suite is not None:
            suites.extend(suite.iter("testsuite"))
            count = _count(suite, found)
        if ended == "not begun" or ended.startswith(STOPPED):
            found["not_run"].append(file.name)
        elif ended and not count:  # it died, or could not even begin
            found["errors"] += 1
            found["failures"][file.name] = ended
    ElementTree.ElementTree(suites).write(out / "tests.xml")
    return found


def _count(suite: ElementTree.Element, found: dict[str, Any]) -> int:
    """Add a file's tests to the counts; return how many there are."""
    cases = list(suite.iter("testcase"))
    for case in cases:
        name = f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}".removeprefix("::")
        if (skipped := case.find("skipped")) is not None:
            found["skipped"] += 1
            reason = skipped.get("message", "")
            found["skips"][reason] = found["skips"].get(reason, 0) + 1
            continue
        for kind, key in (("failure", "failed"), ("error", "errors")):
            if (wrong := case.find(kind)) is not None:
                found[key] += 1
                found["failures"][name] = wrong.get("message", "")[:_FAILURE_CHARACTERS]
                break
        else:
            found["passed"] += 1
    return len(cases)


def _last(lines: Sequence[str]) -> str:
    """Return pytest's last line, without its ornaments."""
    last = next((text for text in reversed(lines) if text.strip()), "nothing was said")
    return re.sub(r"^=+ | =+$", "", last.strip())
