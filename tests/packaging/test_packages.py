"""The package map is whole, the public names exist, and importing them is cheap."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fc7

ROOT = Path(__file__).parents[2]
TOP = ("engine", "kernels", "indexing", "bench")


def test_every_package_folder_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        "fc7." + ".".join(init.parent.relative_to(ROOT).parts)
        for top in TOP
        for init in (ROOT / top).rglob("__init__.py")
    }
    # engine/api is `fc7` itself.
    assert set(listed) == (folders - {"fc7.engine.api"}) | {"fc7"}


@pytest.mark.parametrize("name", fc7.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(fc7, name).__doc__


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(AttributeError, match="open_store"):
        fc7.open_stoer  # noqa: B018


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import fc7", ["torch", "numpy", "pyarrow"]),
        ("from fc7.engine.cli.main import app", ["torch", "numpy", "pyarrow", "faiss", "umap"]),
        ("import fc7; fc7.open_store", ["torch"]),
        ("import fc7.indexing", ["faiss", "umap", "openTSNE"]),
    ],
)
def test_imports_stay_light(code: str, unwanted: list[str]) -> None:
    check = f"{code}\nimport sys; print(*[m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
