"""The spatial maximum's machine code: 16-byte loads where a layout allows them, nothing spilled."""

import re
from typing import Any

import offline
import pytest
import torch
from torch import Tensor

from fc7.kernels import backend
from fc7.kernels.spatial_max_triton import plan_of, spatial_max_triton

CHANNELS_LAST = torch.channels_last
IN_ORDER = torch.contiguous_format
# More maps than an H100 wants programs; one image, whose maps must be cut among programs.
MANY, ONE = (32, 64, 56, 56), (1, 64, 224, 224)


def absent(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)


def compiled(activations: Tensor, architecture: int) -> list[offline.Compiled]:
    with offline.compiling_for(architecture) as kernels:
        spatial_max_triton(activations)
    assert len(kernels) == (2 if plan_of(activations).parts > 1 else 1)
    for kernel in kernels:
        kernel.check()
    return kernels


def loads(kernel: offline.Compiled) -> set[str]:
    return set(re.findall(r"\bLDG[.\w]*", kernel.sass))


@pytest.mark.parametrize("architecture", offline.ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", [IN_ORDER, CHANNELS_LAST])
@pytest.mark.parametrize("shape", [MANY, ONE])
def test_main_shapes(
    shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype, architecture: int
) -> None:
    activations = absent(shape, dtype, layout)
    kernel = compiled(activations, architecture)[0]
    # The value at the position is the only thing that is loaded alone.
    assert "LDG.E.128" in loads(kernel)
    assert len(re.findall(r"\bLDG\.E\.128", kernel.sass)) == 2
    assert loads(kernel) <= {"LDG.E.128", "LDG.E.U16" if dtype.itemsize == 2 else "LDG.E"}
    assert kernel.usage["REG"] <= 64, "half of the threads would not fit a multiprocessor"


@pytest.mark.parametrize("architecture", offline.ARCHITECTURES)
def test_crops_of_whole_granules_load_16_bytes(architecture: int) -> None:
    whole = absent((8, 64, 32, 32), torch.bfloat16, IN_ORDER)
    cropped = whole[:, :, 8:, 8:]
    assert not plan_of(cropped).dense
    assert "LDG.E.128" in loads(compiled(cropped, architecture)[0])
    odd = whole[:, :, 1:, 1:]
    assert "LDG.E.128" not in loads(compiled(odd, architecture)[0])


def test_what_is_not_aligned_is_loaded_alone() -> None:
    """An address, a stride, a border: one that is odd is enough. Misaligned loads are errors."""
    if not backend.HAS_TRITON:
        pytest.skip("needs Triton")
    flat = torch.empty(2 * 16 * 32 + 1, dtype=torch.bfloat16)
    assert plan_of(flat[:-1].view(2, 16, 4, 8)).granule == 8
    assert plan_of(flat[1:].view(2, 16, 4, 8)).granule == 1
    assert plan_of(flat[:930].view(2, 15, 1, 31)).granule == 1
    assert plan_of(flat.as_strided((2, 3, 4, 8), (97, 32, 8, 1))).granule == 1
    assert plan_of(flat.as_strided((2, 3, 4, 8), (96, 1, 24, 3))).granule == 1
    assert plan_of(flat.as_strided((2, 8, 4, 4), (192, 1, 44, 8))).granule == 4


@pytest.mark.parametrize("architecture", offline.ARCHITECTURES)
def test_odd_maps_are_loaded_as_wide_as_they_lie(architecture: int) -> None:
    fourteen = absent((32, 512, 14, 14), torch.bfloat16, IN_ORDER)  # 196 = 4 * 49
    assert "LDG.E.64" in loads(compiled(fourteen, architecture)[0])
    # Channels are a multiple of 8 whatever the map's size.
    thirteen = absent((32, 256, 13, 13), torch.bfloat16, CHANNELS_LAST)
    assert "LDG.E.128" in loads(compiled(thirteen, architecture)[0])


@pytest.mark.parametrize("layout", [IN_ORDER, CHANNELS_LAST])
def test_addresses_are_64_bits_wide(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stride and no size here needs 64 bits, but their products do."""
    activations = absent((100, 64, 1024, 1024), torch.float32, layout)
    assert max(activations.stride()) < 2**31 < activations.numel()
    code = tapped(monkeypatch)
    compiled(activations, 90)
    compiled(activations[:, :, 1:, 1:], 90)
    for text in code["_spatial_max_kernel"]:
        added = re.findall(r"tt.addptr [^\n]*<f32>[^\n]*, (?:tensor<[\dx]*)?(i\d+)", text)
        assert len(added) >= 3
        assert set(added) == {"i64"}


def tapped(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return what fills with the intermediate code of each kernel that is compiled."""
    from triton.runtime import JITFunction

    code: dict[str, list[str]] = {}
    launch = JITFunction.run

    def run(self: Any, *arguments: Any, **options: Any) -> Any:
        kernel = launch(self, *arguments, **options)
        code.setdefault(self.fn.__name__, []).append(kernel.asm["ttgir"])
        return kernel

    monkeypatch.setattr(JITFunction, "run", run)
    return code


@pytest.mark.variants
@pytest.mark.parametrize("architecture", offline.ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("layout", [IN_ORDER, CHANNELS_LAST])
@pytest.mark.parametrize("side", [1, 3, 6, 13, 14, 28, 55, 224])
def test_every_variant(
    side: int, layout: torch.memory_format, dtype: torch.dtype, architecture: int
) -> None:
    """Every tile, granule and number of parts; dense maps and crops of them; stepped ones."""
    for images, channels in [(1, 3), (1, 64), (8, 512), (1024, 5)]:
        whole = absent((images, channels, side, side), dtype, layout)
        compiled(whole, architecture)
        compiled(whole[:, :, side // 2 :, side // 3 :], architecture)
        compiled(whole[:, ::2, ::2, ::2], architecture)
