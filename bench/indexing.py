"""Search speed: ours beside FAISS called directly, in interleaved rounds.

    python -m fc7.bench.indexing --rows 60000 --dimensions 4096

Nothing is reported unless every answer was checked first: exact ids and distances against FAISS's
and a float64 sample, recall of the approximate kinds against the exact answer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import faiss
import numpy as np

import fc7.indexing as ix
from fc7.bench.record import record

K = 10
COUNTS = (1, 32, 1024)


def clustered(rows: int, dimensions: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Rectified vectors around 1,000 centres on 64 directions: what a late layer looks like."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(64, dimensions)).astype(np.float32)
    centres = rng.normal(size=(1000, 64)).astype(np.float32)
    out = np.empty((rows, dimensions), np.float32)
    for start in range(0, rows, 4096):
        block = out[start : start + 4096]
        places = centres[rng.integers(0, 1000, len(block))]
        places = places + 0.5 * rng.normal(size=places.shape).astype(np.float32)
        noise = rng.standard_normal(block.shape, dtype=np.float32)
        np.maximum(places @ directions / 8 + 0.3 * noise, 0, out=block)
    return out


def check_exact(index: ix.Index, vectors: Any, queries: Any) -> None:
    """Raise unless the first answers are the float64 ones."""
    found = index.search(queries, K)
    for number in range(min(4, len(queries))):
        squared = np.empty(len(vectors))
        for start in range(0, len(vectors), 8192):
            block = vectors[start : start + 8192].astype(np.float64) - queries[number]
            squared[start : start + 8192] = np.einsum("nd,nd->n", block, block)
        order = np.argsort(squared, kind="stable")[:K]
        if found.ids[number].tolist() != order.tolist():
            raise AssertionError("exact search is wrong: nothing is reported")
        np.testing.assert_allclose(found.distances[number], np.sqrt(squared[order]), rtol=1e-6)


def recall(found: np.ndarray[Any, Any], true: np.ndarray[Any, Any]) -> float:
    """Share of the true ids found, both (Q, K)."""
    return float((true[:, :, None] == found[:, None, :]).any(axis=2).mean())


def interleave(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, the order turned round every time."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name in sorted(calls, reverse=bool(number % 2)):
            begin = time.perf_counter()
            calls[name]()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def summary(seconds: list[float], queries: int) -> dict[str, float]:
    """Latency of a call, median and 99th percentile, and queries a second at the median."""
    middle = statistics.median(seconds)
    return {
        "p50_ms": 1000 * middle,
        "p99_ms": 1000 * float(np.percentile(seconds, 99)),
        "best_ms": 1000 * min(seconds),
        "queries_per_second": queries / middle,
    }


def main() -> None:
    """Measure, check, write results/indexing.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dimensions", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5, help="of 1,024 queries; fewer take more")
    options = parser.parse_args()
    drawn = clustered(options.rows + max(COUNTS), options.dimensions)
    vectors, queries = drawn[: options.rows], drawn[options.rows :]
    direct = faiss.IndexFlatL2(options.dimensions)
    direct.add(vectors)
    flat = ix.build_index(vectors, "flat")
    check_exact(flat, vectors, queries[:4])
    check_exact(flat, vectors, queries[:64])
    results: dict[str, Any] = {"rows": options.rows, "dimensions": options.dimensions, "k": K}
    results["backend"] = ix.backend()
    true = flat.search(queries, K).ids
    for count in COUNTS:
        some = queries[:count]
        agreement = recall(direct.search(some, K)[1], true[:count])
        if agreement < 0.999:
            raise AssertionError(f"FAISS and we agree on {agreement:.4f} only: nothing is reported")
        rounds = options.rounds * (1 if count == 1024 else 4 if count == 32 else 12)
        seconds = interleave(
            {
                "faiss": partial(direct.search, some, K),
                "fc7": partial(flat.search, some, K),
            },
            rounds,
        )
        ratios = [f / o for f, o in zip(seconds["faiss"], seconds["fc7"], strict=True)]
        results[f"exact_{count}"] = {
            "faiss": summary(seconds["faiss"], count),
            "fc7": summary(seconds["fc7"], count),
            "speed_of_faiss": statistics.median(ratios),
            "rounds": rounds,
        }
        print(count, results[f"exact_{count}"], flush=True)
    for kind in ("pca", "ivf"):
        begin = time.perf_counter()
        index = ix.build_index(vectors, kind)
        built = time.perf_counter() - begin
        measured = recall(index.search(queries, K).ids, true)
        if measured < 0.9:
            raise AssertionError(f"{kind} finds {measured:.3f} only: nothing is reported")
        facts: dict[str, Any] = {"recall_at_10": measured, "build_seconds": built}
        for count in COUNTS:
            some = queries[:count]
            calls = {"fc7": partial(index.search, some, K)}
            facts[f"queries_{count}"] = summary(interleave(calls, options.rounds)["fc7"], count)
        results[kind] = facts
        print(kind, facts, flush=True)
    command = (
        f"python -m fc7.bench.indexing --rows {options.rows} --dimensions {options.dimensions}"
        f" --rounds {options.rounds}"
    )
    record("indexing", results, command)


if __name__ == "__main__":
    main()
