"""guided_relu's kernels as machine code, and guided_relu within a compiled graph."""

import re
import shutil
from collections import Counter

import pytest
import torch
from offline import ARCHITECTURES, Compiled, compiling_for

from fc7.kernels import backend
from fc7.kernels.guided_relu import guided_relu
from fc7.kernels.guided_relu_triton import backward_triton, relu_triton

SIZE = 1 << 20
FLOATING = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def compile_for(
    architecture: int, dtype: torch.dtype, size: int = SIZE, guided: bool = True
) -> tuple[Compiled, Compiled]:
    """Return the forward and the backward kernel."""
    x = torch.empty(size, dtype=dtype, device="meta")
    mask = torch.empty((size + 7) // 8, dtype=torch.uint8, device="meta")
    with compiling_for(architecture) as compiled:
        relu_triton(x, torch.empty_like(x), mask)
        backward_triton(x, mask, torch.empty_like(x), guided)
    forward, backward = compiled
    forward.check()
    backward.check()
    return forward, backward


def accesses(kernel: Compiled) -> Counter[str]:
    return Counter(re.findall(r"\b(?:LDG|STG|LDS|STS)\.[\w.]+", kernel.sass))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", FLOATING[:3])
def test_moves_sixteen_bytes_a_thread(dtype: torch.dtype, architecture: int) -> None:
    for kernel in compile_for(architecture, dtype):
        found = accesses(kernel)
        # Four a thread in the branch of whole programs, and as many in that of the last one.
        assert found["LDG.E.128"] == found["STG.E.128"] == 8
        # Only bytes of the mask go through shared memory: x, y, g and gx do not.
        assert not {"LDS.64", "LDS.128"} & found.keys()
        assert kernel.shared <= 2048
        assert kernel.usage["REG"] <= 64


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_odd_size_costs_only_the_last_program(dtype: torch.dtype, architecture: int) -> None:
    for kernel in compile_for(architecture, dtype, SIZE + 1):
        found = accesses(kernel)
        assert found["LDG.E.128"] == found["STG.E.128"] == 4
        assert kernel.usage["REG"] <= 128


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [SIZE, 2**31 + 16])
def test_addresses_are_64_bits_wide(size: int, architecture: int) -> None:
    # A program of 2048 elements begins at program * 2048: the product is 64 bits wide.
    for kernel in compile_for(architecture, torch.float32, size):
        program = re.search(r"\b(U?R\d+), SR_CTAID\.X", kernel.sass)
        assert program
        product = rf"\bU?IMAD\.WIDE\.U32 U?R\d+, {program[1]}(\.reuse)?, 0x800, U?RZ"
        assert re.search(product, kernel.sass)


@pytest.mark.variants
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("size", [1, SIZE, SIZE + 1, SIZE + 8, 2**31 + 16])
@pytest.mark.parametrize("dtype", FLOATING)
def test_every_variant(dtype: torch.dtype, size: int, guided: bool, architecture: int) -> None:
    for kernel in compile_for(architecture, dtype, size, guided):
        found = accesses(kernel)
        # Of size 1, Triton makes a constant: there are no whole programs.
        wide = 0 if size == 1 else 8 if size % 16 == 0 else 4
        assert found["LDG.E.128"] == found["STG.E.128"] == wide


def test_in_a_graph_compiled_by_inductor() -> None:
    if backend.INTERPRETED or not shutil.which("g++"):
        pytest.skip("needs a C++ compiler, and not Triton's interpreter")
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def network(x: torch.Tensor) -> torch.Tensor:
        return guided_relu(torch.conv2d(x, weight) * 2).transpose(1, 3) + 1

    torch._dynamo.reset()
    x = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    compiled = torch.compile(network, fullgraph=True)
    expected, actual = network(x), compiled(x)
    torch.testing.assert_close(actual, expected)
    g = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    gradients = [torch.autograd.grad(y, x, g)[0] for y in (actual, expected)]
    torch.testing.assert_close(*gradients)
