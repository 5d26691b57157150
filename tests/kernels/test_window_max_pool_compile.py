"""The max-pooling of windows as machine code for GPUs that are not there."""

import re

import pytest
import torch
from offline import ARCHITECTURES, Compiled, compiling_for
from pixel_cases import absent_list, slides
from test_spatial_max_compile import tapped

from fc7.kernels import Slides
from fc7.kernels.window_max_pool import _window_max_pool_triton


def compile_pool(
    architecture: int, channels: int, how: Slides, dtype: torch.dtype, images: int = 2
) -> Compiled:
    """Compile what `window_max_pool` would launch, and check it."""
    source, target = absent_list(100_001, (112, 113)), absent_list(60_001, (56, 57))
    differences = torch.empty(images, 100_001, channels, dtype=dtype, device="meta")
    base = torch.empty(images, *source.size, channels, dtype=dtype, device="meta")
    with compiling_for(architecture) as compiled:
        _window_max_pool_triton(differences, base, source, target, how)
    (kernel,) = compiled
    kernel.check()
    return kernel


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_main_shapes(dtype: torch.dtype, architecture: int) -> None:
    kernel = compile_pool(architecture, 64, slides(3, stride=2, padding=1), dtype)
    assert "LDG.E.128" in kernel.sass
    assert set(re.findall(r"\bSTG\.[\w.]+", kernel.sass)) == {"STG.E.128"}


def test_one_channel() -> None:
    compile_pool(90, 1, slides(2, stride=2), torch.float32)


def test_addresses_are_64_bits_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No size here needs 64 bits, but their products do."""
    code = tapped(monkeypatch)
    compile_pool(90, 64, slides(3, stride=2), torch.float32, images=1000)
    (text,) = code["_window_max_pool_kernel"]
    added = re.findall(r"tt.addptr [^\n]*<f32>[^\n]*, (?:tensor<[\dx]*)?(i\d+)", text)
    assert len(added) >= 4
    assert set(added) == {"i64"}


@pytest.mark.variants
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("channels", [1, 3, 12, 24, 63, 64, 65, 96, 512])
def test_every_variant(channels: int, dtype: torch.dtype, architecture: int) -> None:
    for how in (
        slides(1),
        slides(2, stride=2),
        slides(3, stride=2),
        slides(3, padding=1, dilation=2),
        slides(11, stride=5, padding=5),
    ):
        compile_pool(architecture, channels, how, dtype)
