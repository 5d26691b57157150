"""How often neighbours share a label: fc7 of `tiny-cifar10` against pixels, on unseen rows.

    python -m fc7.bench.agreement --cifar 'cifar10/*.parquet'

The network never saw the last 5,000 rows. Each of them asks for its 10 nearest: among all rows,
and among the 5,000 alone, where no neighbour was trained on either.
"""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np

from fc7.bench.record import record
from fc7.engine.features.neighbors import label_agreement
from fc7.engine.features.workflow import ExtractOptions, extract, index
from fc7.engine.models import load_model
from fc7.engine.store import Run
from fc7.engine.store.vectors import PIXELS, Vectors, open_vectors
from fc7.indexing import all_neighbors

HELD_OUT, K = 5000, 10
LEAST = 0.75


def agreement_among(run: Run, layer: str, rows: np.ndarray) -> float:
    """Return the mean share of the K nearest of `rows`, sought among them, with the same label."""
    vectors = open_vectors(run, layer)
    subset = Vectors(run[layer], rows, vectors.rectified)
    labels = run.rows.column("label").to_numpy()[rows]
    ids = all_neighbors(subset, K).ids
    return float((labels[ids] == labels[:, None]).mean())


def main() -> int:
    """Measure and record; return 1 when fc7's agreement on unseen rows is below the bar."""
    parser = argparse.ArgumentParser(prog="python -m fc7.bench.agreement", description=__doc__)
    parser.add_argument("--cifar", required=True, metavar="GLOB", help="CIFAR-10 as Parquet files")
    arguments = parser.parse_args()
    network = load_model("tiny-cifar10")
    with tempfile.TemporaryDirectory() as folder:
        options = ExtractOptions(top_k=0, batch_rows=128)
        run = extract(arguments.cifar, network, ["fc7", PIXELS], Path(folder) / "run", options)
        unseen = slice(len(run) - HELD_OUT, len(run))
        results: dict[str, float | int] = {"rows": len(run), "unseen": HELD_OUT, "k": K}
        for layer in ("fc7", PIXELS):
            index(run, layer, k=K)
            among_all = label_agreement(run, layer, K, unseen)
            assert among_all is not None
            results[f"{layer}_among_all"] = round(among_all, 4)
            rows = np.arange(len(run))[unseen]
            results[f"{layer}_among_unseen"] = round(agreement_among(run, layer, rows), 4)
    for name, value in results.items():
        print(f"{name:20} {value}")
    command = shlex.join(["python", "-m", "fc7.bench.agreement", "--cifar", "cifar10/*.parquet"])
    print(record("agreement", results, command))
    return int(results["fc7_among_unseen"] < LEAST)


if __name__ == "__main__":
    sys.exit(main())
