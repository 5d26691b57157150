"""Compile a kernel for a GPU that is not there, exactly as its launcher would.

Triton is told that a GPU of the wanted architecture is active, and that every launch is a warm-up:
the launcher specialises on the tensors it is given (on the device `meta`, which have shapes,
strides and an aligned address but no memory), compiles, and runs nothing.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from fc7.kernels import backend

ARCHITECTURES = (80, 90)
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}  # bytes a block may use


@dataclass(frozen=True)
class Compiled:
    """One kernel as machine code.

    Attributes:
        name: the kernel's name.
        architecture: 80 or 90.
        shared: bytes of shared memory a block.
        cubin: the machine code.
    """

    name: str
    architecture: int
    shared: int
    cubin: bytes

    @cached_property
    def usage(self) -> dict[str, int]:
        """REG, STACK, LOCAL and the like, as cuobjdump reports them."""
        from triton import knobs

        text = self._inspect(knobs.nvidia.cuobjdump.path, "-res-usage")
        return {key: int(value) for key, value in re.findall(r"\b([A-Z]+):(\d+)", text)}

    @cached_property
    def sass(self) -> str:
        """The machine code in words."""
        from triton import knobs

        return self._inspect(knobs.nvidia.nvdisasm.path, "-c")

    def check(self) -> None:
        """Assert what must hold for every kernel: no local memory, no spills, and it fits."""
        where = f"{self.name} for sm_{self.architecture}"
        usage = self.usage
        assert usage["STACK"] == 0, f"{where}: {usage['STACK']} bytes of stack"
        assert usage["LOCAL"] == 0, f"{where}: {usage['LOCAL']} bytes of local memory"
        assert not re.search(r"\b(LDL|STL)\b", self.sass), f"{where} spills"
        limit = SHARED_LIMIT[self.architecture]
        assert self.shared <= limit, f"{where}: {self.shared} bytes of shared memory"

    def _inspect(self, tool: str, option: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernel.cubin"
            path.write_bytes(self.cubin)
            run = subprocess.run([tool, option, str(path)], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout


class _AbsentGPU:
    """What Triton asks a driver before it compiles."""

    def __init__(self, architecture: int) -> None:
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")


@contextmanager
def compiling_for(architecture: int) -> Iterator[list[Compiled]]:
    """Within it, launches compile for the architecture and join the list; nothing runs."""
    if not backend.HAS_TRITON or backend.INTERPRETED:
        pytest.skip("needs Triton, and not its interpreter")
    from triton.runtime import JITFunction, driver

    compiled: list[Compiled] = []
    launch = JITFunction.run

    def compile_only(self: Any, *arguments: Any, **options: Any) -> Any:
        self.device_caches.clear()
        kernel = launch(self, *arguments, **{**options, "warmup": True})
        compiled.append(
            Compiled(self.fn.__name__, architecture, kernel.metadata.shared, kernel.asm["cubin"])
        )
        return kernel

    before = driver._active  # reading `active` would look for a GPU
    driver.set_active(_AbsentGPU(architecture))
    JITFunction.run = compile_only
    try:
        yield compiled
    finally:
        JITFunction.run = launch
        driver._active = before
