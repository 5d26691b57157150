"""A command as a whole process: its wall time, its CPU time and the most memory it held.

CPU seconds are the measure to compare by: they hold still while other programs use the machine,
and on a CPU decoding and forward pass share the cores, so they are what throughput is made of.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_SECONDS = 0.02
# Adding up the pages of a process tree takes milliseconds; its high-water mark is one line.
_SAMPLES_A_TREE = 10


class CommandError(RuntimeError):
    """A measured command ended with an error; the message is the end of what it wrote."""


@dataclass(frozen=True)
class Measurement:
    """What one run of a command took.

    Attributes:
        wall_seconds: from start to exit.
        cpu_seconds: user and system time, of the process and every child that it waited for.
        peak_bytes: resident memory at its highest. With child processes, the sum over all of
            them in which a page shared by n counts 1/n to each, sampled five times a second.
        output: what it wrote to stdout.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def measure(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Measurement:
    """Run a command to its end and measure it.

    Args:
        command: program and arguments.
        env: variables set on top of this process's own.

    Raises:
        CommandError: it exited with another code than 0.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **(env or {})},
        )
        sampler = _TreeSampler(process.pid)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        sampler.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            end = err.read()[-2000:]
            raise CommandError(f"{command[0]} exited with {process.returncode}:\n{end}")
        # Linux counts ru_maxrss in kibibytes, macOS in bytes. It is the second choice: a child
        # starts as a copy of this process, and what this one holds then counts for it as well.
        largest = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        cpu = usage.ru_utime + usage.ru_stime
        return Measurement(wall, cpu, sampler.peak_bytes or largest, out.read())


class _TreeSampler(threading.Thread):
    """Samples a process's own high-water mark, and the memory of it and its children together."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._pid, self._done = pid, threading.Event()

    def run(self) -> None:
        for sample in itertools.count():
            found = _kibibytes(self._pid, "status", "VmHWM:")
            children = _descendants(self._pid) if sample % _SAMPLES_A_TREE == 0 else []
            if children:
                tree = [self._pid, *children]
                together = sum(_kibibytes(pid, "smaps_rollup", "Pss:") for pid in tree)
                found = max(found, together)
            self.peak_bytes = max(self.peak_bytes, 1024 * found)
            if self._done.wait(_SAMPLE_SECONDS):
                return

    def stop(self) -> None:
        self._done.set()
        self.join()


def own_peak_bytes() -> int:
    """Return the most memory that this process has held so far; 0 where Linux does not say.

    What it takes to end, when torch's libraries are unloaded, is not in it: 110 MiB and more.
    """
    return 1024 * _kibibytes(os.getpid(), "status", "VmHWM:")


def own_bytes() -> int:
    """Return the memory that this process holds now; 0 where Linux does not say."""
    return 1024 * _kibibytes(os.getpid(), "status", "VmRSS:")


def _descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        words = [word for task in tasks for word in (task / "children").read_text().split()]
    except OSError:  # it ended meanwhile, or this is not Linux
        return []
    return [pid for word in words for pid in (int(word), *_descendants(int(word)))]


def _kibibytes(pid: int, file: str, word: str) -> int:
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:  # it ended meanwhile, or this is not Linux
        return 0
    lines = (line.split() for line in text.split("\n"))
    return next((int(line[1]) for line in lines if line and line[0] == word), 0)


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Return (largest - smallest) / median, a hint of how much one measurement may mean."""
    return (max(values) - min(values)) / statistics.median(values)
