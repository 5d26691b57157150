"""Memory does not grow with the data set: `python -m fc7.bench.memory [--cifar GLOB]`.

Peak memory of `fc7 extract` as a whole process over the first 500 rows and over all 50,000, in
turns. With `--cifar` the rows are CIFAR-10's photographs in Parquet files and the network is
tiny-cifar10; without, they are the built-in shapes and tiny-shapes.
"""

import argparse
import glob
import sys
import tempfile
from pathlib import Path
from typing import Any

from fc7.bench.processes import Measurement, measure, median
from fc7.bench.record import record

FEW, MANY = 500, 50_000
BAR = 1.10
"""The most by which the peak over many rows may exceed the peak over few."""


def compare(cifar: str | None, rounds: int) -> dict[str, Any]:
    """Measure both sizes in turns and return the medians."""
    with tempfile.TemporaryDirectory(prefix="fc7-bench-") as name:
        work = Path(name)
        model = "tiny-cifar10" if cifar else "tiny-shapes"
        few = str(first_rows(cifar, FEW, work)) if cifar else f"shapes:{FEW}:0"
        many = cifar or f"shapes:{MANY}:0"
        taken: dict[str, list[Measurement]] = {"few": [], "many": []}
        for turn in range(rounds):
            for size, data in (("few", few), ("many", many)):
                out = work / f"{size}-{turn}"
                taken[size].append(measure(command(data, model, out)))
    peak = {size: median([float(m.peak_bytes) for m in runs]) for size, runs in taken.items()}
    rate = (MANY - FEW) / (
        median([m.cpu_seconds for m in taken["many"]])
        - median([m.cpu_seconds for m in taken["few"]])
    )
    ratio = peak["many"] / peak["few"]
    return {
        "data": "CIFAR-10 in Parquet" if cifar else "shapes",
        "model": model,
        "rows": {"few": FEW, "many": MANY},
        "rounds": rounds,
        "peak_bytes": peak,
        "ratio": ratio,
        "bar": BAR,
        "met": ratio <= BAR,
        "images_per_cpu_second": rate,
    }


def command(data: str, model: str, out: Path) -> list[str]:
    """Return the extraction whose memory is measured: a map layer and a vector, with patches."""
    program = Path(sys.executable).parent / "fc7"
    options = f"--model {model} --layers conv5,fc7 --device cpu --out".split()
    return [str(program), "extract", data, *options, str(out)]


def first_rows(pattern: str, count: int, work: Path) -> Path:
    """Write the first rows of the Parquet files into a file of their own.

    Raises:
        SystemExit: there are not as many rows as the comparison needs.
    """
    from pyarrow import parquet

    files = sorted(glob.glob(pattern))
    rows = sum(parquet.ParquetFile(file).metadata.num_rows for file in files)
    if rows < MANY:
        raise SystemExit(f"{pattern} holds {rows} rows; the comparison needs {MANY}")
    batch = next(parquet.ParquetFile(files[0]).iter_batches(count))
    path = work / "first.parquet"
    with parquet.ParquetWriter(path, batch.schema) as writer:
        writer.write_batch(batch)
    return path


def main(argv: list[str] | None = None) -> None:
    """Run the comparison and record it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cifar", metavar="GLOB", help="CIFAR-10 as Parquet files")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args(argv)
    results = compare(arguments.cifar, arguments.rounds)
    peak = results["peak_bytes"]
    print(
        f"{results['data']}: peak {peak['few'] / 1e6:.0f} MB over {FEW} rows, "
        f"{peak['many'] / 1e6:.0f} MB over {MANY}: {results['ratio']:.3f} x "
        f"(bar {BAR}: {'met' if results['met'] else 'NOT met'})"
    )
    data = "--cifar 'cifar10/*.parquet' " if arguments.cifar else ""
    record("memory", results, f"python -m fc7.bench.memory {data}--rounds {arguments.rounds}")


if __name__ == "__main__":
    main()
