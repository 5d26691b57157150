"""The clockwork of the kernels' benchmark, with clocks that we turn ourselves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fc7.bench import timing
from fc7.bench.kernel_cases import gram_case, guided_relu_cases, occlude_case, spatial_max_case
from fc7.bench.roofline import Roofline, Work, matmul_precision, measure_roofline
from fc7.bench.timing import (
    CpuSampler,
    GpuSampler,
    interleave,
    interquartile,
    new_stream,
    sets_of_inputs,
)

GIB = 2**30
CPU = torch.device("cpu")
# What the facts about an H200 say: its copy, and its matrix products.
H200 = Roofline(4.3e12, {"bf16": 790e12, "tf32": 395e12})


class Stint:
    """Calls that take as long as they say, by a clock that ticks now and then."""

    def __init__(self, seconds: float, tick: float = 0.0) -> None:
        self.now, self.calls = 0.0, [0, 0, 0]
        self._seconds, self._tick = seconds, tick

    def clock(self) -> float:
        return self.now if not self._tick else self.now // self._tick * self._tick

    def call(self, number: int) -> Callable[[], None]:
        def run() -> None:
            self.now += self._seconds
            self.calls[number] += 1

        return run

    def sampler(self) -> CpuSampler:
        return CpuSampler([self.call(n) for n in range(3)], least_seconds=0.05, clock=self.clock)


def test_a_sample_is_the_time_of_one_call() -> None:
    work = Stint(0.004)
    assert work.sampler()() == pytest.approx(0.004)


def test_a_sample_outlasts_a_coarse_clock() -> None:
    work = Stint(0.0011, tick=0.01)
    sample = work.sampler()
    before = work.now
    assert sample() == pytest.approx(0.0011, rel=0.25)
    assert work.now - before > 0.04


def test_every_set_of_inputs_takes_its_turn() -> None:
    work = Stint(0.004)
    sample = work.sampler()
    for _ in range(5):
        sample()
    assert max(work.calls) - min(work.calls) <= 1


def test_a_long_call_is_made_once_a_sample() -> None:
    work = Stint(3.0)
    sample = work.sampler()
    before = sum(work.calls)
    assert sample() == pytest.approx(3.0)
    assert sum(work.calls) == before + 1


class FakeGpu:
    """As much of a GPU as the sampler needs: a clock that replayed calls move on."""

    def __init__(self, seconds: float, fails_to_capture: bool = False) -> None:
        self.now, self.captured, self.eager = 0.0, 0, 0
        self._seconds, self._fails = seconds, fails_to_capture
        self._capturing = False

    def call(self) -> None:
        if self._capturing and self._fails:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        if self._capturing:
            self.captured += 1
        else:
            self.eager += 1
            self.now += self._seconds

    def replay(self) -> None:
        self.now += self._seconds * self.captured

    @contextmanager
    def capturing(self, graph: Any, stream: Any) -> Iterator[None]:
        self._capturing = True
        try:
            yield
        finally:
            self._capturing = False

    def events(self) -> Any:
        start, end = SimpleNamespace(at=0.0), SimpleNamespace(at=0.0)
        start.record = lambda: setattr(start, "at", self.now)
        end.record = lambda: setattr(end, "at", self.now)
        end.synchronize = lambda: None
        start.elapsed_time = lambda other: 1000 * (other.at - start.at)
        return start, end

    def install(self, patch: pytest.MonkeyPatch) -> Any:
        patch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        patch.setattr(torch.cuda, "graph", self.capturing)
        patch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        patch.setattr(torch.cuda, "synchronize", lambda: None)
        patch.setattr(timing, "events", self.events)
        return SimpleNamespace(synchronize=lambda: None)


def test_a_replayed_graph_is_timed_by_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(0.0004)
    sample = GpuSampler([gpu.call] * 3, gpu.install(monkeypatch))
    assert gpu.captured == 3
    launched, before = gpu.eager, gpu.now
    assert sample() == pytest.approx(0.0004)
    assert gpu.now - before == pytest.approx(0.0048)  # four replays: near 5 ms
    assert gpu.eager == launched
    assert sample.facts()["captured"]
    assert sample.facts()["eager_ms"] >= 0


def test_what_cannot_be_captured_is_launched_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(0.0004, fails_to_capture=True)
    sample = GpuSampler([gpu.call] * 3, gpu.install(monkeypatch))
    assert sample() == pytest.approx(0.0004)
    assert not sample.facts()["captured"]
    reason = "RuntimeError: operation not permitted"
    assert sample.facts()["not_captured_because"] == reason


def test_contestants_take_turns_in_alternating_order() -> None:
    order: list[str] = []

    def contestant(name: str) -> Callable[[], float]:
        def sample() -> float:
            order.append(name)
            return float(len(order))

        return sample

    seconds = interleave({name: contestant(name) for name in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert seconds == {"a": [1.0, 6.0, 7.0], "b": [2.0, 5.0, 8.0], "c": [3.0, 4.0, 9.0]}


def test_the_interquartile_range() -> None:
    assert interquartile([1.0, 2.0, 3.0, 4.0, 100.0]) == 2.0
    assert interquartile([5.0]) == 0.0


def test_inputs_exceed_the_cache_together() -> None:
    assert sets_of_inputs(CPU, GIB) == 1
    assert sets_of_inputs(CPU, 16 * 2**20) == 8
    assert sets_of_inputs(CPU, 100) == 64
    assert sets_of_inputs(CPU, 100, quick=True) == 4


def test_the_floor_is_the_slower_of_moving_and_computing() -> None:
    roofline = Roofline(100e9, {"fp32": 2e12})
    assert roofline.floor(Work(bytes=5 * 10**9), "bf16") == pytest.approx(0.05)
    assert roofline.floor(Work(bytes=10**9, operations=10**9), "fp32") == pytest.approx(0.01)
    assert roofline.floor(Work(bytes=10**9, operations=10**12), "fp32") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("shape", "precision", "microseconds"),
    [
        # 32 x 64 x 50176 x 2 bytes read, 32 x 64 x 64 x 4 written: 206,045,184 bytes
        ((32, 64, 224, 224), "bf16", 47.92),
        # 8 x 512 x 784 x 4 read, 8 x 512 x 512 x 4 written: 21,233,664 bytes
        ((8, 512, 28, 28), "tf32", 4.938),
        # 59,244,544 bytes; 32 x 512 x 513 x 784 operations would take 8.34 us
        ((32, 512, 28, 28), "bf16", 13.78),
    ],
)
def test_grams_floor(shape: tuple[int, int, int, int], precision: str, microseconds: float) -> None:
    case = gram_case(shape, precision, "nchw", on_gpu=True)
    assert 1e6 * H200.floor(case.work, precision) == pytest.approx(microseconds, rel=1e-3)


def test_half_a_product_is_all_that_a_gram_matrix_needs() -> None:
    # Channels 1 x 1, 1 x 2 and 2 x 2 over 5 x 7 positions: an addition and a multiplication each.
    assert gram_case((1, 2, 5, 7), "fp32", "nchw").work == Work(
        bytes=2 * 35 * 4 + 2 * 2 * 4, operations=3 * 35 * 2
    )


def test_the_elementwise_floors() -> None:
    ways = {case.name: case for case in guided_relu_cases(GIB, "bf16", on_gpu=True)}
    # One gibibyte of gradients read, one written, and a bit for each of 2^29 elements.
    backward = ways["guided_relu-guided-backward-1024MiB-bf16"]
    assert backward.work.bytes == 2 * GIB + 2**26
    assert 1e6 * H200.floor(backward.work, "bf16") == pytest.approx(515, abs=0.5)
    both = ways["guided_relu-guided-both-1024MiB-bf16"]
    assert both.work.bytes == 4 * GIB + 2 * 2**26
    occlusion = occlude_case(224, 16, 8, "bf16", "nchw", on_gpu=True)
    assert "729x3x224" in occlusion.name
    assert 1e6 * H200.floor(occlusion.work, "bf16") == pytest.approx(51.1, abs=0.1)
    strongest = spatial_max_case((128, 64, 256, 256), "bf16", "nchw", on_gpu=True)
    assert strongest.work.bytes == GIB + 128 * 64 * (2 + 4)
    assert 1e6 * H200.floor(strongest.work, "bf16") == pytest.approx(250, abs=0.5)


def test_the_roofline_is_measured() -> None:
    found = measure_roofline(CPU, ["fp32"], quick=True)
    assert 1e8 < found.bytes_per_second < 1e13
    assert 1e9 < found.operations_per_second["fp32"] < 1e14


def test_tf32_is_allowed_only_within() -> None:
    before = torch.get_float32_matmul_precision()
    with matmul_precision("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    with matmul_precision("fp32"):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_timed_by_its_own_clock() -> None:
    device = torch.device("cuda")
    stream = new_stream(device)
    assert stream is not None
    sizes = (2**20, 2**28)
    times = []
    for size in sizes:
        inputs = [torch.randn(size // 4, device=device) for _ in range(2)]
        torch.cuda.synchronize()
        sample = GpuSampler([tensor.sin for tensor in inputs], stream)
        times.append(sample())
        assert sample.facts()["captured"]
    assert 0 < 20 * times[0] < times[1] < 0.1
