"""The package's face, and its forecasts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fc7.indexing as ix
from fc7.indexing.arrays import check_finite


def test_import_is_light():
    code = (
        "import sys, fc7.indexing as ix\n"
        "heavy = {'torch', 'faiss', 'umap', 'openTSNE', 'sklearn', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "ix.pca, ix.umap, ix.tsne\n"
        "assert callable(ix.pca) and callable(ix.umap) and callable(ix.tsne)\n"
        "assert 'umap' not in sys.modules and 'openTSNE' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_loads():
    for name in ix.__all__:
        assert getattr(ix, name).__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        ix.no_such_name  # noqa: B018


def test_finite_extremes_are_told_from_infinite_ones():
    block = np.zeros((4, 3), np.float32)
    block[2] = 3e38
    with pytest.raises(ix.IndexingError, match="row 12: too large"):
        check_finite(block, 10)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_neighbors_forecast_holds_for_the_working_set(tmp_path):
    """Private memory of a tiled run, at its peak, stays near the forecast."""
    code = (
        "import resource, sys, numpy as np, fc7.indexing as ix\n"
        "n, d, budget = 5000, 1024, 8 << 20\n"
        "path = sys.argv[1]\n"
        "rows = np.lib.format.open_memmap(path, 'w+', np.float16, (n, d))\n"
        "rng = np.random.default_rng(0)\n"
        "for s in range(0, n, 1000): rows[s:s+1000] = rng.normal(size=(1000, d))\n"
        "ix.all_neighbors(rows[:64], 5)\n"
        "def peak():\n"
        "    return int([l for l in open('/proc/self/status') if l.startswith('RssAnon')][0]"
        ".split()[1]) * 1024\n"
        "before, most = peak(), 0\n"
        "import threading, time\n"
        "done = threading.Event()\n"
        "def watch():\n"
        "    global most\n"
        "    while not done.wait(0.005): most = max(most, peak())\n"
        "t = threading.Thread(target=watch); t.start()\n"
        "ix.all_neighbors(rows, 5, memory_bytes=budget)\n"
        "done.set(); t.join()\n"
        "print(most - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "rows.npy")],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    used = int(done.stdout)
    forecast = ix.neighbors_cost(5000, 1024, 5, memory_bytes=8 << 20).memory_bytes
    # On top come the scratch of FAISS's block products and of the exact pass, some tens of MB. The
    # distances of all pairs would be 100 MB.
    assert used < forecast + (64 << 20)


def test_forecasts_grow_with_their_sizes():
    small = ix.neighbors_cost(1000, 512, 16)
    assert ix.neighbors_cost(2000, 512, 16).seconds == pytest.approx(4 * small.seconds)
    assert small.disk_bytes == 1000 * 16 * 12
    # ImageNet at 4,096 dimensions: tens of hours on two cores, and a bounded working set.
    full = ix.neighbors_cost(1_281_167, 4096, 16, memory_bytes=2 << 30)
    assert 20 < full.seconds / 3600 < 100
    assert full.memory_bytes < 3 << 30
    assert ix.index_cost(1_281_167, 4096, 16 << 30).disk_bytes == pytest.approx(1.3e9, rel=0.05)
    assert ix.pca_cost(1_281_167, 4096, 50).memory_bytes < 1 << 30
    assert ix.umap_cost(100_000, 50).seconds > ix.umap_cost(50_000, 50).seconds
    assert ix.tsne_cost(100_000, 50).memory_bytes > ix.tsne_cost(50_000, 50).memory_bytes
    with pytest.raises(ix.IndexingError, match="positive"):
        ix.pca_cost(0, 5, 1)
