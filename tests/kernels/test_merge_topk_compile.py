"""The merge's machine code: candidates stay in registers, and addresses have 64 bits."""

import re
from typing import Any

import offline
import pytest
import torch

from fc7.kernels.merge_topk import _merge_topk_triton

CHANNELS = 4096


def compiled(
    k: int, count: int, dtype: torch.dtype, architecture: int, columns: bool = False
) -> list[offline.Compiled]:
    top = torch.empty(CHANNELS, k, dtype=dtype, device="meta")
    values = torch.empty(CHANNELS, count, dtype=dtype, device="meta")
    if columns:
        values = torch.empty(count, CHANNELS, dtype=dtype, device="meta").T
    with offline.compiling_for(architecture) as kernels:
        _merge_topk_triton(top, top.long(), values, values.long())
    for kernel in kernels:
        kernel.check()
    return kernels


@pytest.mark.parametrize("architecture", offline.ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("k", "count", "columns"), [(9, 9, False), (9, 1024, True)])
def test_main_shapes(
    k: int, count: int, columns: bool, dtype: torch.dtype, architecture: int
) -> None:
    (kernel,) = compiled(k, count, dtype, architecture, columns)
    assert kernel.usage["REG"] <= 128


@pytest.mark.parametrize("architecture", offline.ARCHITECTURES)
def test_many_candidates_come_in_several_launches(architecture: int) -> None:
    for number, count in enumerate((4032, 4033, 9000), 1):
        assert len(compiled(64, count, torch.float32, architecture)) == number


def test_addresses_are_64_bits_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import JITFunction

    code: list[str] = []
    launch = JITFunction.run

    def run(self: Any, *arguments: Any, **options: Any) -> Any:
        kernel = launch(self, *arguments, **options)
        code.append(kernel.asm["ttgir"])
        return kernel

    monkeypatch.setattr(JITFunction, "run", run)
    compiled(9, 1024, torch.float32, 90, columns=True)
    offsets = re.findall(r"tt\.addptr [^\n]*, (?:tensor<[\dx]*)?(i\d+)", code[0])
    assert len(offsets) >= 8
    # Within a channel's K places 32 bits are enough.
    assert offsets.count("i32") <= 2
    assert set(offsets) <= {"i32", "i64"}


@pytest.mark.variants
@pytest.mark.parametrize("architecture", offline.ARCHITECTURES)
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("columns", [False, True])
def test_every_variant(columns: bool, dtype: torch.dtype, architecture: int) -> None:
    for k in (1, 9, 64):
        for count in (0, 9, 256, 1024, 4000):
            compiled(k, count, dtype, architecture, columns)
