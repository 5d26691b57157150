"""Devices, poisoned memory and tolerances that the kernels' tests share.

Every correctness test takes a `device`: `cpu` always, and `cuda` under the mark `gpu`. With
TRITON_INTERPRET=1 in the environment the same tests, on the same CPU tensors, go through the
Triton kernels in Triton's interpreter: `make test` runs both.
"""

from collections.abc import Iterator

import pytest
import torch

SLOW_MARKS = {
    "variants": "compiles every variant, for minutes: pytest -m variants",
    "triton36": "installs Triton 3.6.0 and tests with it: pytest -m triton36",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("-m")
    for item in items:
        for mark, reason in SLOW_MARKS.items():
            if item.get_closest_marker(mark) and mark not in asked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Return where the test's tensors lie."""
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return name


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fill what `torch.empty` returns with NaN (integers with their largest), then go back."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before)
