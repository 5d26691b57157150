"""The convolution of windows as machine code for GPUs that are not there."""

import re
from collections.abc import Iterator

import pytest
import torch
from offline import ARCHITECTURES, Compiled, compiling_for
from pixel_cases import absent_list, slides
from test_spatial_max_compile import tapped
from torch import Tensor

from fc7.kernels import Bounds, Residual, Slides
from fc7.kernels.window_conv_triton import plan, window_conv_triton

MATRIX_INSTRUCTION = {80: r"\bHMMA\.", 90: r"\bHGMMA\."}
IN_BACKGROUND = r"LDGSTS\.E\.(\w+\.)*128"
PRECISIONS = {
    "bf16": (torch.bfloat16, "tf32"),
    "fp16": (torch.float16, "tf32"),
    "tf32": (torch.float32, "tf32"),
    "ieee": (torch.float32, "ieee"),
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.backends.cudnn.conv.fp32_precision
    yield
    torch.backends.cudnn.conv.fp32_precision = before


def compile_conv(
    architecture: int,
    channels: tuple[int, int],
    how: Slides,
    precision: str,
    adds: bool = True,
    limits: bool = True,
    images: int = 2,
    pixels: int = 60_001,
) -> Compiled:
    """Compile what `window_conv` would launch, and check it."""
    dtype, torch.backends.cudnn.conv.fp32_precision = PRECISIONS[precision]
    c_in, c_out = channels

    def absent(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    source, target = absent_list(2 * pixels, (56, 57)), absent_list(pixels, (55, 56))
    weight = absent(c_out, c_in, *how.kernel).to(memory_format=torch.channels_last)
    added, low = absent(images, 3 * pixels, c_out), absent(images, *target.size, c_out)
    with compiling_for(architecture) as compiled:
        window_conv_triton(
            absent(images, 2 * pixels, c_in),
            weight,
            source,
            target,
            how,
            Residual(added, absent_list(3 * pixels, target.size)) if adds else None,
            Bounds(low, low) if limits else None,
        )
    (kernel,) = compiled
    kernel.check()
    matrix = re.search(MATRIX_INSTRUCTION[architecture], kernel.sass)
    assert bool(matrix) == (precision != "ieee")
    return kernel


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("precision", ["bf16", "tf32", "ieee"])
def test_many_channels(precision: str, architecture: int) -> None:
    kernel = compile_conv(architecture, (256, 256), slides(3, padding=1), precision)
    assert re.search(IN_BACKGROUND, kernel.sass), "no copies in the background"
    assert "LDG.E.128" in kernel.sass
    assert set(re.findall(r"\bSTG\.[\w.]+", kernel.sass)) == {"STG.E.128"}


@pytest.mark.parametrize(("precision", "architecture"), [("bf16", 80), ("tf32", 90)])
def test_the_first_layer(precision: str, architecture: int) -> None:
    """Three channels, filled up to four: 8 or 16 bytes a pixel."""
    kernel = compile_conv(architecture, (3, 64), slides(11, 4, 2), precision, adds=False)
    copied = set(re.findall(r"\bLDGSTS\.E[\w.]*", kernel.sass))
    assert copied
    assert all(re.search(r"\.(64|128)$", each) for each in copied), copied


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_few_pixels_and_no_ending(architecture: int) -> None:
    small = compile_conv(architecture, (512, 512), slides(1), "bf16", False, False, 1, 36)
    assert re.search(IN_BACKGROUND, small.sass)


def test_one_of_everything() -> None:
    """Triton makes constants of arguments that are 1: these have no methods of a number's."""
    compile_conv(90, (1, 1), slides(1), "tf32", True, True, 1, 1)


def test_tiles_follow_the_shape() -> None:
    def tile(rows: int, c_in: int, c_out: int) -> tuple[int, ...]:
        return tuple(plan(rows, c_in, c_out, torch.bfloat16, 132)[:3])

    torch.backends.cudnn.conv.fp32_precision = "tf32"
    assert tile(10**6, 256, 512) == (128, 128, 64)
    assert tile(10**6, 256, 48) == (128, 64, 64)
    assert tile(10**6, 256, 8) == (128, 32, 64)
    assert tile(1000, 256, 512) == (64, 128, 64)  # or half of the GPU had nothing to do
    assert tile(10**6, 96, 512) == (128, 128, 32)  # 64 would multiply a third more
    assert tile(10**6, 16, 512) == (128, 128, 16)


@pytest.mark.parametrize("c_in", [3, 64])
def test_addresses_are_64_bits_wide(c_in: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No size here needs 64 bits, but their products do."""
    code = tapped(monkeypatch)
    compile_conv(90, (c_in, 64), slides(3, padding=1), "tf32", images=1000)
    (text,) = code["_window_conv_kernel"]
    added = re.findall(r"tt.addptr [^\n]*<f32>[^\n]*, (?:tensor<[\dx]*)?(i\d+)", text)
    assert len(added) >= 6
    assert set(added) == {"i64"}


@pytest.mark.variants
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("ending", ["plain", "both"])  # the least registers, and the most
def test_every_variant(ending: str, precision: str, architecture: int) -> None:
    """Every tile, every way to read channels, kernels of one tap and of many."""
    both = ending == "both"
    for channels in ((1, 1), (3, 64), (6, 40), (20, 20), (63, 65), (64, 64), (96, 208), (512, 999)):
        for how in (slides(1), slides(3, 2, 1)):
            for pixels in (101, 60_001):
                compile_conv(architecture, channels, how, precision, both, both, 1, pixels)
    for how in (slides(7, 2, 3), slides(11, 4, 2), slides(5, dilation=2), slides(1, stride=2)):
        compile_conv(architecture, (3, 96), how, precision, both, both, 1, 60_000)
        compile_conv(architecture, (128, 128), how, precision, both, both, 1, 60_000)
