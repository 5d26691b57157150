"""The benchmarks' own arithmetic and gates: a wrong rate would pass for a measured one."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fc7.bench import extract, table
from fc7.bench.__main__ import plan
from fc7.bench.drift import drift
from fc7.bench.processes import CommandError, Measurement, measure


def test_drift_is_relative_to_what_differs_between_rows() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(7, 5)) + 1000  # a large common part
    values = reference.copy()
    values[2] += [3, 0, 4, 0, 0]
    found = drift(values, reference)
    size = sum((reference[2, d] - reference[:, d].mean()) ** 2 for d in range(5)) ** 0.5
    assert found[2] == pytest.approx(5 / size)
    assert found[[0, 1, 3, 4, 5, 6]].max() == 0


def test_drift_refuses_other_rows() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\) activations against a reference of \(7, 5\)"):
        drift(np.zeros((4, 5)), np.zeros((7, 5)))


def test_measure_sees_memory_and_time_of_children() -> None:
    # The child holds its memory for ten times as long as a sample of the tree may be late.
    child = (
        "import time; b = bytearray(200_000_000); b[::4096] = b'x' * len(b[::4096]); "
        "sum(range(3_000_000)); time.sleep(2)"
    )
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    idle = measure([sys.executable, "-c", "print('said')"])
    busy = measure([sys.executable, "-c", parent])
    assert idle.output == "said\n"
    assert busy.peak_bytes > 200_000_000 > idle.peak_bytes
    assert busy.cpu_seconds > idle.cpu_seconds


def test_measure_hands_on_what_a_failing_command_said() -> None:
    with pytest.raises(CommandError, match="out of luck"):
        measure([sys.executable, "-c", "raise SystemExit('out of luck')"])


def runs(cpu: list[float], peak: int) -> list[Measurement]:
    return [Measurement(2 * seconds, seconds, peak, "") for seconds in cpu]


def test_the_rate_leaves_starting_up_out() -> None:
    found = extract.summarize(
        {"all": runs([14.0, 30.0, 13.0], 900), "tenth": runs([5.0, 5.0, 4.0], 100)},
        {"all": 500, "tenth": 50},
    )
    assert found["images_per_cpu_second"] == pytest.approx(450 / 9)
    assert found["images_per_second"] == pytest.approx(450 / 18)
    assert found["peak_bytes"] == 900


def test_we_are_compared_with_the_better_of_a_peers_ways() -> None:
    def rate(images: float, peak: int) -> dict[str, float]:
        return {"images_per_cpu_second": images, "images_per_second": images, "peak_bytes": peak}

    found = extract.ratios(
        {
            "dataloader, 0 workers": rate(30, 100),
            "dataloader, 2 workers": rate(40, 300),
            "fc7 fp32": rate(51, 110),
        }
    )
    assert list(found) == ["fp32 to dataloader"]
    assert found["fp32 to dataloader"]["rate"] == pytest.approx(51 / 40)
    assert not found["fp32 to dataloader"]["met"]  # 1.275 of 1.3
    assert found["fp32 to dataloader"]["peak"] == pytest.approx(1.1)


def test_nothing_is_timed_while_the_drift_is_red(tmp_path: Path) -> None:
    def says(value: float) -> extract.Contestant:
        code = "import sys, numpy as np; a = np.eye(4); a[0, 0] = {}; np.save(sys.argv[1], a)"
        return extract.Contestant(
            f"eye with {value}",
            lambda folder, out: [sys.executable, "-c", code.format(value), str(out)],
            np.load,
            0.005,
        )

    with pytest.raises(SystemExit, match="Nothing is timed until that is mended"):
        extract.check_drift([says(1.0), says(1.001), says(1.1)], tmp_path, tmp_path)


def test_the_table_goes_between_its_markers(tmp_path: Path) -> None:
    facts = {
        "command": "python -m fc7.bench.startup",
        "machine": {"cpu": "a CPU", "cores": 2},
        "versions": {"torch": "2.15.0"},
        "results": {"wall_seconds": 0.314, "bar_seconds": 0.5},
    }
    (tmp_path / "startup.json").write_text(json.dumps(facts))
    text = table.table(tmp_path)
    assert "| `fc7 --help` | 0.31 s | 0.5 s |" in text
    assert "a CPU, 2 cores" in text
    readme = f"before\n{table.START}\nold\n{table.END}\nafter\n"
    once = table.put_into(readme, text)
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    assert table.put_into(once, text) == once
    with pytest.raises(SystemExit, match="once each"):
        table.put_into("no markers", text)


def test_every_recorded_result_is_in_the_readme() -> None:
    recorded = {path.stem.split("-")[0] for path in table.RESULTS.glob("*.json")}
    assert recorded <= set(table.WRITERS)


def test_each_benchmark_that_cannot_run_says_what_it_needs() -> None:
    without = {one.name: one.without for one in plan(None, None, None) if one.without}
    assert "--images" in without["extract"]
    assert "--cifar" in without["agreement"]
    able = {one.name for one in plan(Path("photos"), "*.parquet", 3) if not one.without}
    assert {"extract", "agreement", "memory"} <= able
