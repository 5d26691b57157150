"""How fast a GPU extracts, beside how fast it could: decoding, the network, and everything.

Over the same JPEGs, each through fc7's own job: decoding alone; the network alone over decoded
images, copies to the device and back included; and everything, from files to a committed run with
its maximal patches. Were the first two perfectly overlapped, the third would run at the pace of
the slower one: the share of that pace is what is reported.
"""

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fc7.bench.drift import drift
from fc7.bench.processes import median
from fc7.engine.data import Row, Source, open_source
from fc7.engine.features.extract import Extract
from fc7.engine.features.workflow import ExtractOptions, extract_with_summaries
from fc7.engine.models import Network, load_model

LAYERS = {"alexnet": ("conv5", "fc7"), "resnet50": ("layer4", "avgpool")}
BATCHES = (32, 256)
MAX_DRIFT = {"bf16": 0.25, "fp32": 0.05}
"""Mean drift to float32 on the CPU above which a rate would be that of something else.

Random weights tell images hardly apart, which makes rounding look large: on a CPU bf16 drifts by
0.02 (AlexNet) and 0.07 (ResNet50). Torch lets a GPU's convolutions in fp32 use TF32."""
_SECONDS = 2.5  # of one measurement of a part; of everything, nearly twice that
_TURNS = 2
_MOST_ROWS = 65_536


class Budget:
    """A stage's seconds, and what was cut to keep within them."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.shortened: list[str] = []

    def allows(self, seconds: float, what: str) -> bool:
        """Say whether that many seconds are left; if not, note what is gone without."""
        if time.monotonic() + seconds <= self._end:
            return True
        self.shortened.append(what)
        return False


@dataclass(frozen=True)
class Subject:
    """What is extracted from what.

    Attributes:
        network: on its device.
        layers: of the network.
        folder: of JPEGs.
        seconds: of one measurement.
        turns: of the whole extraction, at most.
    """

    network: Network
    layers: tuple[str, ...]
    folder: Path
    seconds: float
    turns: int

    @property
    def name(self) -> str:
        """Network and precision."""
        return f"{self.network.name} {self.network.precision}"

    def source(self) -> Source:
        """Return the JPEGs as rows."""
        return open_source(self.folder)

    def job(self, batch: int, **options: Any) -> Extract:
        """Return fc7's own job, with a decoding thread for every core."""
        return Extract(
            self.network, self.source(), self.layers, batch_rows=batch, threads=cores(), **options
        )


def extraction(
    model: str,
    device: str,
    quick: bool,
    seconds: float,
    folder: Path,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Measure the extraction of one network in both precisions.

    Args:
        model: a key of LAYERS.
        device: as torch names it.
        quick: tiny sizes that prove the script and measure nothing.
        seconds: to end within, more or less; turns are cut first.
        folder: of JPEGs.
        save: called with the results so far.
    """
    budget = Budget(seconds)
    each, turns = (0.2, 1) if quick else (_SECONDS, _TURNS)

    def subject(device: str, precision: Any) -> Subject:
        network = load_model(model, "random", device=device, precision=precision)
        return Subject(network, LAYERS[model], folder, each, turns)

    checked = 4 if quick else 16
    reference = activations(subject("cpu", "fp32"), checked)
    precisions: dict[str, Any] = {}
    found: dict[str, Any] = {
        "threads": cores(),
        "layers": list(LAYERS[model]),
        "precisions": precisions,
        "shortened": budget.shortened,
    }
    for precision, most in MAX_DRIFT.items():
        if not budget.allows(6 * each, f"{model} {precision}"):
            continue
        this = subject(device, precision)
        print(f"{this.name}: decoding, forward, end to end", flush=True)
        moved = {
            name: float(drift(values, reference[name]).mean())
            for name, values in activations(this, checked).items()
        }
        precisions[precision] = {"drift": moved, "batches": {}}
        if not max(moved.values()) <= most:
            precisions[precision]["red"] = f"drifts by {moved} from the CPU's; {most} is rounding"
            save(found)
            continue
        if "decode" not in found:
            found["decode"] = decode_rate(this)
        for batch in (2,) if quick else BATCHES:
            if budget.allows(4 * each, f"{this.name} in batches of {batch}"):
                measured = rates(this, batch, found["decode"], budget)
                precisions[precision]["batches"][str(batch)] = measured
                save(found)
    return found


def activations(subject: Subject, images: int) -> dict[str, Any]:
    """Return what is found in the first images, places left out: names to (images, D)."""
    job = subject.job(8, dtype="float32")
    parts = [arrays for _, arrays in job.run(iter(job.rows(range(images))))]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: values for name, values in whole.items() if values.dtype.kind == "f"}


def rates(subject: Subject, batch: int, decode: float, budget: Budget) -> dict[str, Any]:
    """Measure the network alone and everything, in batches of one size."""
    on_gpu = subject.network.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(subject.network.device)
    forward = forward_rate(subject, batch)
    slower = min(decode, forward)
    whole_batches = round(1.6 * subject.seconds * slower / batch)
    rows = batch * max(2, min(whole_batches, _MOST_ROWS // batch))
    turns = [end_to_end(subject, batch, rows)]
    for turn in range(1, subject.turns):
        what = f"turn {turn + 1} of {subject.name} in batches of {batch}"
        if budget.allows(2 * subject.seconds, what):
            turns.append(end_to_end(subject, batch, rows))
    middle = {key: median([turn[key] for turn in turns]) for key in turns[0]}
    return {
        "forward": forward,
        **middle,
        "share_of_the_slower": middle["end_to_end"] / slower,
        "rows": rows,
        "turns": len(turns),
        # What torch held of the GPU's memory at most, between batches too.
        "peak_bytes": torch.cuda.max_memory_reserved(subject.network.device) if on_gpu else None,
    }


def decode_rate(subject: Subject) -> float:
    """Images a second, read, decoded and transformed by all threads, and then dropped."""
    rows = iter(subject.job(max(BATCHES)).rows(itertools.cycle(range(len(subject.source())))))
    for _ in range(4 * cores()):
        next(rows)  # imports, and the threads' start
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < subject.seconds:
        next(rows)
        count += 1
    return count / (time.perf_counter() - started)


def forward_rate(subject: Subject, batch: int) -> float:
    """Images a second from decoded images to activations, both in the CPU's memory."""
    job = subject.job(batch)
    decoded: list[Row] = list(job.rows(range(min(4 * batch, len(subject.source())))))
    started = time.perf_counter()

    def enough() -> Iterator[Row]:
        # Whole batches; the clock is asked between them.
        again = itertools.cycle(decoded)
        yield from itertools.islice(again, 3 * batch)
        while time.perf_counter() - started < subject.seconds:
            yield from itertools.islice(again, batch)

    count = first = 0
    for numbers, _ in job.run(enough()):
        count += len(numbers)
        if count <= 2 * batch:  # these load, compile and choose algorithms
            first, started = count, time.perf_counter()
    return (count - first) / (time.perf_counter() - started)


def end_to_end(subject: Subject, batch: int, rows: int) -> dict[str, float]:
    """Images a second from files to a committed run with its maximal patches."""
    with tempfile.TemporaryDirectory(prefix="fc7-on-gpu-") as name:
        # The same files again and again; what is decoded is decoded anew each time.
        files = itertools.cycle(sorted(subject.folder.resolve().iterdir()))
        paths = Path(name) / "list.txt"
        paths.write_text("".join(f"{path}\n" for path in itertools.islice(files, rows)))
        options = ExtractOptions(batch_rows=batch, threads=cores())
        cpu, started = time.process_time(), time.perf_counter()
        _, summaries = extract_with_summaries(
            paths, subject.network, subject.layers, Path(name) / "run", options
        )
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    if summaries[0].bad:
        raise RuntimeError(f"{len(summaries[0].bad)} bad rows, the first {summaries[0].bad[0]}")
    inside = {f"seconds_{kind}": value for kind, value in summaries[0].seconds.items()}
    return {"end_to_end": rows / wall, "images_per_cpu_second": rows / cpu, **inside}


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
