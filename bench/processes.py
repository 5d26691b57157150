"""A command as a whole process: its wall time, its CPU time and the most memory it held.

CPU seconds are the measure to compare by: they hold still while other programs use the machine,
and on a CPU decoding and forward pass share the cores, so they are what throughput is made of.
"""

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

_SAMPLE_SECONDS = 0.2


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
        # Linux counts ru_maxrss in kibibytes, macOS in bytes.
        largest = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        cpu = usage.ru_utime + usage.ru_stime
        return Measurement(wall, cpu, max(largest, sampler.peak_bytes), out.read())


class _TreeSampler(threading.Thread):
    """Samples the memory of a process with children; one without is the kernel's to count."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._pid, self._done = pid, threading.Event()

    def run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            children = _descendants(self._pid)
            if children:
                total = sum(_proportional_bytes(pid) for pid in [self._pid, *children])
                self.peak_bytes = max(self.peak_bytes, total)

    def stop(self) -> None:
        self._done.set()
        self.join()


def _descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        words = [word for task in tasks for word in (task / "children").read_text().split()]
    except OSError:  # it ended meanwhile, or this is not Linux
        return []
    return [pid for word in words for pid in (int(word), *_descendants(int(word)))]


def _proportional_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.split("\n") if "Pss:" in line), 0)


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Return (largest - smallest) / median, a hint of how much one measurement may mean."""
    return (max(values) - min(values)) / statistics.median(values)
