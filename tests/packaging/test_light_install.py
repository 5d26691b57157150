"""What runs on somebody's GPU machine needs torch and a handful of packages, not all of ours.

`pip install --no-deps` leaves out what only other parts use; here those packages cannot be
imported, as if they were not there.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = (
    *("faiss", "hypothesis", "numba", "openTSNE", "pynndescent", "pytest_benchmark"),
    *("safetensors", "scipy", "sklearn", "umap"),
)
WITHOUT_THEM = f"""
import sys

class But:
    # A finder that does not find them; some ask whether a package is there, and import nothing.

    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in {ABSENT}
        return None if absent else self._finder.find_spec(name, path, target)

sys.meta_path[:] = [But(finder) for finder in sys.meta_path]
"""


def run_without_them(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_THEM + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        # Plugins of pytest load themselves wherever they are installed.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


def test_the_packages_are_absent() -> None:
    for name in ABSENT:
        done = run_without_them(f"import {name}")
        assert "ModuleNotFoundError" in done.stderr, name


def test_extraction_and_the_gpu_script_run(tmp_path: Path) -> None:
    done = run_without_them(
        f"""
from pathlib import Path
import numpy as np
import fc7
from fc7.bench import gpu_extraction, gpu_occlusion, gpu_stages, gpu_synthesis, kernels, on_gpu
from fc7.bench.synthetic_jpegs import make_photographs

folder = Path({str(tmp_path)!r})
make_photographs(folder / "photographs", 5)
print(gpu_stages.environment("cpu")["versions"]["torch"])
network = fc7.load_model("tiny-shapes", "random", device="cpu")
subject = gpu_extraction.Subject(network, ("conv3", "fc7"), folder / "photographs", 0.05, 1)
measured = gpu_extraction.rates(subject, 2, 100.0, gpu_extraction.Budget(60))
print(measured["end_to_end"] > 0)
run = fc7.extract(folder / "photographs", network, ["conv3", "fc7"], folder / "run")
print(np.isfinite(np.asarray(run["fc7"])).all(), fc7.read_patches(run, "conv3").k)
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["True", "True", "9"]


def test_the_kernels_tests_are_there_without_hypothesis() -> None:
    """Each file of tests is collected, or skipped as a whole for want of hypothesis."""
    done = run_without_them(
        "import pytest\n"
        "sys.exit(pytest.main(['tests/kernels', '-m', 'gpu', '--collect-only', '-q', '-rs']))"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    for kernel in ("gram", "guided_relu", "occlude", "spatial_max", "merge_topk"):
        assert f"test_{kernel}.py::" in done.stdout, kernel
