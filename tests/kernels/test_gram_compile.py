"""The Gram kernels as machine code for GPUs that are not there."""

import re

import pytest
import torch
from offline import ARCHITECTURES, Compiled, compiling_for
from torch import Tensor

from fc7.kernels import gram_triton
from fc7.kernels.symmetrize import _symmetrize_triton

NCHW, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
MATRIX_INSTRUCTION = {80: r"\bHMMA\.", 90: r"\bHGMMA\."}


def meta(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format = NCHW) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta").to(memory_format=layout)


def compile_product(
    architecture: int, features: Tensor, center: bool = False, target: Tensor | None = None
) -> list[Compiled]:
    """Compile what `gram`, or with a target `gram_loss`, would launch, and check each kernel."""
    n, c, _, _ = features.shape
    loss_of_bf16 = target is not None and features.dtype == torch.bfloat16
    out = meta((n, c, c), torch.bfloat16 if loss_of_bf16 else torch.float32)
    with compiling_for(architecture) as compiled:
        gram_triton.multiply(features, out, center, target)
    for kernel in compiled:
        kernel.check()
    assert re.search(MATRIX_INSTRUCTION[architecture], compiled[0].sass)
    return compiled


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", [NCHW, CHANNELS_LAST])
def test_many_tiles(layout: torch.memory_format, dtype: torch.dtype, architecture: int) -> None:
    (product,) = compile_product(architecture, meta((32, 512, 28, 28), dtype, layout))
    assert "STG.E.128" in product.sass
    if layout == NCHW or dtype == torch.bfloat16:
        assert re.search(r"LDGSTS\.E\.(\w+\.)*128", product.sass), "no copies in the background"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_tile_split(architecture: int) -> None:
    product, finish = compile_product(architecture, meta((8, 64, 224, 224), torch.bfloat16))
    assert (product.name, finish.name) == ("_product_kernel", "_finish_kernel")
    assert "LDG.E.128" in finish.sass
    assert "STG.E.128" in finish.sass


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_centered(architecture: int) -> None:
    compile_product(architecture, meta((32, 512, 28, 28), torch.bfloat16), center=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss(architecture: int) -> None:
    target = meta((512, 512), torch.float32).expand(32, 512, 512)
    compile_product(architecture, meta((32, 512, 28, 28), torch.float32), target=target)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_crop(architecture: int) -> None:
    features = meta((32, 130, 30, 31), torch.bfloat16)[:, :, 1:-1, 1:-2]
    compile_product(architecture, features, center=True)


def test_one_channel_and_one_pixel() -> None:
    """Triton makes constants of arguments that are 1: these have no methods of a number's."""
    compile_product(90, meta((1, 1, 1, 1), torch.float32), center=True)
    target = meta((1, 1, 1), torch.float32)
    with compiling_for(90) as compiled:
        gram_triton.finish(meta((1, 1, 1, 1), torch.float32), target, 1, target)
        _symmetrize_triton(target, meta((1,), torch.float32), torch.float16)
    assert len(compiled) == 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_symmetrize(architecture: int) -> None:
    matrices, scales = meta((32, 512, 512), torch.float32), meta((32,), torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        with compiling_for(architecture) as compiled:
            _symmetrize_triton(matrices, scales, dtype)
        (kernel,) = compiled
        kernel.check()
        assert "LDG.E.128" in kernel.sass
        assert "STG.E.128" in kernel.sass


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_strides_beyond_two_billion(architecture: int) -> None:
    memory = torch.empty(2**35, dtype=torch.bfloat16, device="meta")
    features = memory.as_strided((2, 64, 28, 28), (2**33, 2**31, 28, 1))
    compile_product(architecture, features)


@pytest.mark.variants
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "crop", "transposed"])
@pytest.mark.parametrize("images", [1, 300])  # split, and not
@pytest.mark.parametrize("kind", ["plain", "centered", "loss", "loss of float64"])
def test_every_variant(
    kind: str, images: int, layout: str, dtype: torch.dtype, architecture: int
) -> None:
    # One tile and many, of numbers that divide by 16 and that do not.
    for c, h in ((1, 1), (3, 13), (64, 28), (65, 28), (128, 28), (256, 13), (512, 28), (511, 28)):
        features = meta((images, c, h, h), dtype)
        if layout == "channels_last":
            features = meta((images, c, h, h), dtype, CHANNELS_LAST)
        elif layout == "crop":
            features = meta((images, c, h + 2, h + 3), dtype)[:, :, 1:-1, 1:-2]
        elif layout == "transposed":
            features = features.transpose(2, 3)
        target = None
        if kind.startswith("loss"):
            wide = torch.float64 if kind == "loss of float64" else torch.float32
            target = meta((c, c), wide).expand(images, c, c)
        compile_product(architecture, features, kind == "centered", target)


@pytest.mark.variants
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("c", [1, 3, 65, 512])
def test_every_finish_and_symmetrize(c: int, dtype: torch.dtype, architecture: int) -> None:
    parts, scales = meta((4, 1, c, c), dtype), meta((4,), dtype)
    with compiling_for(architecture) as compiled:
        gram_triton.finish(parts, parts[:, 0], 1)
        gram_triton.finish(parts, parts[:, 0], 1, meta((4, c, c), torch.float32).mT)
        for result in (torch.float16, torch.bfloat16, dtype):
            _symmetrize_triton(parts[:, 0], scales, result)
            _symmetrize_triton(parts[:, 0].mT, scales, result)
    assert len(compiled) == 8
    for kernel in compiled:
        kernel.check()
