"""Timing ours and a peer in one process, in turns, with cold caches.

A contestant is a list of calls, one for each of several sets of inputs that together exceed the
caches: each call finds its inputs in memory, not in a cache that the call before has filled. A
sampler measures one contestant once; `interleave` lets all of them take turns, so that whatever
else the machine does falls on all alike.

On a CPU the clock is the process's CPU time, of all threads: it holds still while other programs
use the machine. On a GPU it is events around the replay of a CUDA graph: launching from Python
takes longer than a small kernel runs, and would hide it. The eager launch is recorded beside it.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

Call = Callable[[], Any]
CPU_SAMPLE_SECONDS = 0.05
GPU_SAMPLE_SECONDS = 0.005
_CPU_CACHE_BYTES = 32 * 2**20  # what the largest caches of today's processors give to a few cores


class Sampler(Protocol):
    """Measures one contestant once.

    Attributes:
        estimate: seconds of one call, from when the sampler was made ready.
    """

    estimate: float

    def __call__(self) -> float:
        """Return the seconds of one call."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what the record should hold beside the seconds."""
        ...


def sampler(calls: Sequence[Call], stream: torch.cuda.Stream | None = None) -> Sampler:
    """Return a GPU's sampler for calls that were prepared on a stream, else a CPU's."""
    return CpuSampler(calls) if stream is None else GpuSampler(calls, stream)


class CpuSampler:
    """CPU-seconds of a call, over as many calls as make a sample long enough to trust.

    Args:
        calls: one for each set of inputs, taken in turn.
        least_seconds: that a sample lasts: some systems' clocks tick a hundred times a second.
        clock: the seconds that count.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        least_seconds: float = CPU_SAMPLE_SECONDS,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._turns = itertools.cycle(calls)
        self._least, self._clock = least_seconds, clock
        self._walls: list[float] = []
        self._batch = 1
        self._next()  # imports, threads and compilation
        while (took := self._timed(self._batch)) < least_seconds / 8:
            self._batch *= 2 if took <= 0 else max(2, int(least_seconds / 8 / took))
        self._long = took >= least_seconds and self._batch == 1
        self.estimate = took / self._batch

    def __call__(self) -> float:
        """Return the CPU-seconds of one call."""
        if not self._long:
            self._next()  # the turn before left its threads spinning for a moment, on our account
        calls, seconds, began = 0, 0.0, time.perf_counter()
        while seconds < self._least:
            seconds += self._timed(self._batch)
            calls += self._batch
        self._walls.append((time.perf_counter() - began) / calls)
        return seconds / calls

    def facts(self) -> dict[str, Any]:
        """Return the wall time, which is the clock on the wall's and everybody else's too."""
        return {"wall_ms": 1000 * statistics.median(self._walls)} if self._walls else {}

    def _next(self) -> None:
        next(self._turns)()

    def _timed(self, calls: int) -> float:
        begin = self._clock()
        for _ in range(calls):
            self._next()
        return self._clock() - begin


class GpuSampler:
    """Seconds of a call on the GPU, by events around replays of a CUDA graph of all the calls.

    What cannot be captured is launched eagerly, and the record says so.

    Args:
        calls: one for each set of inputs; a replay makes each once, and keeps every output, so
            that outputs too go to memory that no cache holds.
        stream: that the calls were prepared on: a backward pass runs where its forward pass did.
        least_seconds: that a sample lasts.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        stream: torch.cuda.Stream,
        least_seconds: float = GPU_SAMPLE_SECONDS,
    ) -> None:
        self._calls, self._stream = calls, stream
        self._why_eager = ""
        with torch.cuda.stream(stream):
            for _ in range(3):  # load, compile, choose algorithms
                for call in calls:
                    call()
        stream.synchronize()
        self._eager_seconds = self._wall_seconds()
        self._graph = self._capture()
        self._replays = 1
        self._timed(1)
        once = self._timed(1)
        self._replays = max(1, round(least_seconds / once)) if once > 0 else 1
        self.estimate = once / len(calls)

    def __call__(self) -> float:
        """Return the GPU's seconds of one call."""
        return self._timed(self._replays) / (self._replays * len(self._calls))

    def facts(self) -> dict[str, Any]:
        """Return how it was launched, and the time of an eager call, launch included."""
        found: dict[str, Any] = {"eager_ms": 1000 * self._eager_seconds}
        found["captured"] = self._graph is not None
        if self._why_eager:
            found["not_captured_because"] = self._why_eager
        return found

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                kept = [call() for call in self._calls]
            del kept
        except Exception as error:  # whatever a library says when it cannot be captured
            self._why_eager = f"{type(error).__name__}: {error}".split("\n", 1)[0]
            torch.cuda.synchronize()
            return None
        return graph

    def _wall_seconds(self, samples: int = 5) -> float:
        found = []
        for _ in range(samples):
            begin = time.perf_counter()
            with torch.cuda.stream(self._stream):
                for call in self._calls:
                    call()
            self._stream.synchronize()
            found.append((time.perf_counter() - begin) / len(self._calls))
        return statistics.median(found)

    def _timed(self, replays: int) -> float:
        start, end = events()
        with torch.cuda.stream(self._stream):
            start.record()
            for _ in range(replays):
                if self._graph is not None:
                    self._graph.replay()
                else:
                    for call in self._calls:
                        call()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


def wall_clock(device: torch.device | str) -> float:
    """Return the wall clock's seconds when a device has done all that it was asked for."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    """Return two events of a GPU that keep the time."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")  # type: ignore[no-untyped-call]
    return start, end


def new_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return where calls are to be prepared and made on a GPU; None for a CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def interleave(samplers: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant in each round, the order turned round every time."""
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    for number in range(rounds):
        for name in list(samplers)[:: -1 if number % 2 else 1]:
            seconds[name].append(samplers[name]())
    return seconds


def interquartile(values: Sequence[float]) -> float:
    """Return the distance between the quartiles; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def sets_of_inputs(device: torch.device, bytes_a_call: int, quick: bool = False) -> int:
    """Return how many sets of inputs to take turns with, for each to be cold when its turn comes.

    Until then the other calls have moved four times the cache; one that moves as much is cold
    alone.
    """
    cache, most = _CPU_CACHE_BYTES, 64
    if device.type == "cuda":
        cache, most = torch.cuda.get_device_properties(device).L2_cache_size, 512
    wanted = -(-4 * cache // max(1, bytes_a_call))
    return min(wanted, 4 if quick else most)


def clock_step(clock: Callable[[], float] = time.process_time) -> float:
    """Return the middle of a few steps that the clock was seen to make, in seconds."""
    steps = []
    for _ in range(20):
        before = now = clock()
        while now <= before:
            now = clock()
        steps.append(now - before)
    return statistics.median(steps)
