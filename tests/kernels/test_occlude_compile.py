"""occlude's kernel as machine code for the GPUs that it is for: 16-byte stores, and no spills."""

import re

import pytest
import torch
from offline import ARCHITECTURES, Compiled, compiling_for

from fc7.kernels.occlude import _empty, _occlude_triton

SIZE = 3 * 224 * 224
FILLS = ["number", "colour", "image", "images"]
NAMED = [
    (torch.bfloat16, torch.contiguous_format, "number"),
    (torch.bfloat16, torch.channels_last, "image"),
    (torch.float32, torch.contiguous_format, "image"),
    (torch.float32, torch.channels_last, "number"),
]


def compile_for(
    architecture: int,
    dtype: torch.dtype,
    layout: torch.memory_format,
    fill: str,
    shape: tuple[int, int, int, int] = (4, 3, 224, 224),
    positions: int = 729,
    read: torch.memory_format = torch.contiguous_format,
) -> Compiled:
    images = torch.empty(shape, dtype=dtype, device="meta").contiguous(memory_format=read)
    boxes = torch.empty(positions, 4, dtype=torch.int32, device="meta")
    cover = {"colour": images[0, :, :1, :1], "image": images[0]}.get(fill, images)
    last = layout is torch.channels_last
    out = _empty(images, boxes, None, 0.0, dtype, last)
    with compiling_for(architecture) as compiled:
        _occlude_triton(images, boxes, 0.5 if fill == "number" else cover.expand(shape), out, last)
    assert len(compiled) == 1
    compiled[0].check()
    return compiled[0]


def stores(kernel: Compiled) -> list[str]:
    found = re.findall(r"\bSTG\.[\w.]+", kernel.sass)
    assert found
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "layout", "fill"), NAMED)
def test_stores_sixteen_bytes_a_thread(
    dtype: torch.dtype, layout: torch.memory_format, fill: str, architecture: int
) -> None:
    kernel = compile_for(architecture, dtype, layout, fill)
    assert set(stores(kernel)) == {"STG.E.128"}
    assert len(stores(kernel)) == 2
    if layout is torch.contiguous_format:  # the images lie likewise
        assert "LDG.E.128" in kernel.sass
    # Four blocks of 128 threads a multiprocessor at least: while one loads a box, others store.
    assert kernel.usage["REG"] <= 128


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_counts_images_in_64_bits(architecture: int) -> None:
    # The result's place is (image * positions + position) * bytes: the product is 64 bits wide.
    kernel = compile_for(architecture, torch.bfloat16, torch.contiguous_format, "number")
    assert re.search(rf"\bIMAD\.WIDE\.U32 [^;]*, {hex(2 * SIZE)},", kernel.sass)
    assert not re.search(rf"\bIMAD R\d+, [^;]*, {hex(SIZE)},", kernel.sass)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("positions", [1, 3])
def test_an_odd_image_and_few_positions(positions: int, architecture: int) -> None:
    shape = (1, 1, 65, 63)
    compile_for(architecture, torch.float16, torch.channels_last, "colour", shape, positions)


@pytest.mark.variants
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("read", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_variant(
    dtype: torch.dtype,
    read: torch.memory_format,
    layout: torch.memory_format,
    fill: str,
    architecture: int,
) -> None:
    whole = compile_for(architecture, dtype, layout, fill, read=read)
    assert set(stores(whole)) == {"STG.E.128"}
    compile_for(architecture, dtype, layout, fill, (3, 3, 227, 227), 100, read)
    compile_for(architecture, dtype, layout, fill, (1, 65, 13, 13), 1, read)
