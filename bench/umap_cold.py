"""UMAP from a fresh process: our exact graph and umap-learn's layout, beside umap-learn alone.

    python -m fc7.bench.umap_cold --rows 5000 --dimensions 4096

Each run is a new process, ours and theirs in turns, on the same vectors, with the same number of
epochs. Times are of the whole process, reading excluded; processor seconds count both cores.
Nothing is reported where our layout keeps fewer of the true 15 neighbours than 0.9 of theirs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fc7.bench.indexing import clustered, recall
from fc7.bench.record import record

OURS = """
import fc7.indexing as ix
graph = ix.all_neighbors(vectors, 15)
layout = ix.umap(vectors, graph, n_epochs=EPOCHS)
"""
THEIRS = """
import umap
layout = umap.UMAP(n_epochs=EPOCHS).fit_transform(vectors)
"""
AROUND = """
import resource, sys, time, warnings
warnings.simplefilter("ignore")
begin = time.perf_counter()
import numpy as np
vectors = np.load(sys.argv[1])
BODY
seconds = time.perf_counter() - begin
used = resource.getrusage(resource.RUSAGE_SELF)
np.save(sys.argv[2], layout)
print("RESULT", seconds, used.ru_utime + used.ru_stime)
"""


def run(body: str, epochs: int, folder: Path) -> tuple[float, float, Any]:
    """Wall and processor seconds of one fresh process, and its layout (N, 2)."""
    code = AROUND.replace("BODY", body).replace("EPOCHS", str(epochs))
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "vectors.npy"), str(folder / "layout.npy")],
        check=True,
        capture_output=True,
        text=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    wall, processor = (float(word) for word in line.split()[1:])
    return wall, processor, np.load(folder / "layout.npy")


def main() -> None:
    """Measure, check, write results/umap_cold.json."""
    import fc7.indexing as ix

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dimensions", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    vectors = clustered(options.rows, options.dimensions)
    true = ix.all_neighbors(vectors, 15).ids
    seconds: dict[str, list[tuple[float, float]]] = {"fc7": [], "umap_learn": []}
    kept: dict[str, list[float]] = {"fc7": [], "umap_learn": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "vectors.npy", vectors)
        # The first process after an installation compiles what pynndescent caches: warm that up.
        subprocess.run([sys.executable, "-W", "ignore", "-c", "import umap"], check=True)
        for number in range(options.rounds):
            pair = [("fc7", OURS), ("umap_learn", THEIRS)]
            for who, body in pair[:: -1 if number % 2 else 1]:
                wall, processor, layout = run(body, options.epochs, folder)
                seconds[who].append((wall, processor))
                kept[who].append(recall(ix.all_neighbors(layout, 15).ids, true))
                print(who, round(wall, 1), round(processor, 1), round(kept[who][-1], 3), flush=True)
    share = {who: statistics.median(values) for who, values in kept.items()}
    if share["fc7"] < 0.9 * share["umap_learn"]:
        raise AssertionError(f"our layout keeps fewer neighbours, {share}: nothing is reported")
    results: dict[str, Any] = {
        "rows": options.rows,
        "dimensions": options.dimensions,
        "epochs": options.epochs,
        "rounds": options.rounds,
        "neighbors_kept_of_15": share,
    }
    for place, unit in enumerate(("wall_seconds", "processor_seconds")):
        middle = {who: statistics.median(t[place] for t in seconds[who]) for who in seconds}
        results[unit] = {**middle, "speedup": middle["umap_learn"] / middle["fc7"]}
    print(json.dumps(results, indent=1))
    command = (
        f"python -m fc7.bench.umap_cold --rows {options.rows} --dimensions {options.dimensions}"
        f" --epochs {options.epochs} --rounds {options.rounds}"
    )
    record("umap_cold", results, command)


if __name__ == "__main__":
    main()
