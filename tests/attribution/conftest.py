"""Makes the helpers importable beside the tests, which are no package; small work, one thread."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def set_conv_precision() -> Iterator[Callable[[str], None]]:
    """What sets cuDNN's "ieee" or "tf32"; pytest's monkeypatch cannot undo it."""
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision

    def set_to(precision: str) -> None:
        conv.fp32_precision = precision

    yield set_to
    set_to(before)
