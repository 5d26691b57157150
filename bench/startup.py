"""How soon the command line answers: `python -m fc7.bench.startup`.

`fc7 --help` as a whole process, and the modules whose import takes longest in it.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from fc7.bench.processes import measure, median
from fc7.bench.record import record

BAR_SECONDS = 0.5
_IMPORT_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)")


def time_help(runs: int) -> dict[str, Any]:
    """Run `fc7 --help` several times; return medians and the costliest imports."""
    program = Path(sys.executable).parent / "fc7"
    measure([program, "--help"])  # the first one also compiles modules and fills the file cache
    taken = [measure([program, "--help"]) for _ in range(runs)]
    wall = median([m.wall_seconds for m in taken])
    return {
        "runs": runs,
        "wall_seconds": wall,
        "cpu_seconds": median([m.cpu_seconds for m in taken]),
        "bar_seconds": BAR_SECONDS,
        "met": wall < BAR_SECONDS,
        "imports_milliseconds": costliest_imports(8),
    }


def costliest_imports(count: int) -> dict[str, float]:
    """Return the packages whose own modules take longest to import, in milliseconds each."""
    code = "import sys; sys.argv = ['fc7', '--help']; from fc7.engine.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True
    )
    own: dict[str, float] = {}
    for microseconds, _, _, module in _IMPORT_LINE.findall(result.stderr):
        package = module.split(".")[0]
        own[package] = own.get(package, 0.0) + int(microseconds) / 1000
    longest = sorted(own.items(), key=lambda item: -item[1])[:count]
    return {package: round(milliseconds, 1) for package, milliseconds in longest}


def main(argv: list[str] | None = None) -> None:
    """Time it and record it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args(argv)
    results = time_help(arguments.runs)
    verdict = "met" if results["met"] else "NOT met"
    print(
        f"fc7 --help: {results['wall_seconds']:.2f} s by the clock, "
        f"{results['cpu_seconds']:.2f} CPU-s (bar {BAR_SECONDS} s: {verdict})"
    )
    for package, milliseconds in results["imports_milliseconds"].items():
        print(f"  {package:20}{milliseconds:7.1f} ms")
    record("startup", results, f"python -m fc7.bench.startup --runs {arguments.runs}")


if __name__ == "__main__":
    main()
