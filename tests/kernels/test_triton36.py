"""The kernels under the oldest Triton that fc7 serves, 3.6.0, which belongs to torch 2.11.

It goes into a folder of its own that is put in front of everything else. numpy goes with it: the
interpreter of Triton 3.6 fails at loops with run-time bounds from numpy 2.4 on.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.triton36

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".peers" / "triton36"
PACKAGES = ("triton==3.6.0", "numpy==2.3.5")
TESTS = "tests/kernels"
IN_THE_SAME_PROCESS = """
import sys, numpy, pytest, triton
assert (triton.__version__, numpy.__version__) == ("3.6.0", "2.3.5"), triton.__file__
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    """Return the folder, installed once; needs a package index and 700 MB."""
    ready = FOLDER / "ready"
    if not ready.exists():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = ["--no-deps", "--upgrade", "--target", str(FOLDER)]
        subprocess.run([*pip, *options, *PACKAGES], check=True)
        ready.touch()
    return FOLDER


def passed(folder: Path, out: Path, tests: Sequence[str], interpret: str) -> Counter[str]:
    """Run tests with Triton 3.6.0 and return how many of each file passed; none may fail."""
    junit = out / "junit.xml"
    done = subprocess.run(
        [
            *(sys.executable, "-c", IN_THE_SAME_PROCESS, *tests),
            *("-q", "--tb=short", "--junitxml", str(junit)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder), "TRITON_INTERPRET": interpret},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    cases = ElementTree.parse(junit).getroot().iter("testcase")
    good = [case for case in cases if case.find("skipped") is None]
    return Counter(case.get("classname", "").split(".")[-1] for case in good)


def test_the_interpreter_finds_what_the_references_find(folder: Path, tmp_path: Path) -> None:
    counts = passed(folder, tmp_path, [TESTS], "1")
    for file in (ROOT / TESTS).glob("test_*.py"):
        if "@triton.jit" in _kernels_source(file):
            assert counts[file.stem] > 0, f"{file.name}: nothing ran"
    assert sum(counts.values()) > 0


def test_every_kernel_compiles_for_gpus_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    files = sorted((ROOT / TESTS).glob("test_*_compile.py"))
    assert files
    counts = passed(folder, tmp_path, [str(file) for file in files], "0")
    for file in files:
        assert counts[file.stem] > 0, f"{file.name}: nothing was compiled"


def _kernels_source(test: Path) -> str:
    """Return the source of the kernel whose correctness a file tests; nothing for other files."""
    kernel = ROOT / "kernels" / test.name.removeprefix("test_")
    triton = kernel.with_name(f"{kernel.stem}_triton.py")
    return "".join(file.read_text() for file in (kernel, triton) if file.exists())
