"""What `fc7.bench.on_gpu` runs, each stage in a process of its own.

    python -m fc7.bench.gpu_stages STAGE RESULT.json --device cuda --seconds 60 ...

A stage keeps what it has found in RESULT.json as it goes, so that little is lost with it.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODELS = ("alexnet", "resnet50")
STAGES = ("environment", "photographs", "kernels", "occlusion", "synthesis", *MODELS)
Save = Callable[[dict[str, Any]], None]


def environment(device: str) -> dict[str, Any]:
    """Return device, driver and versions."""
    import torch

    from fc7.bench.record import machine, versions

    found: dict[str, Any] = {
        "has_cuda": torch.cuda.is_available(),
        "machine": machine(),
        "versions": {**versions(), **_more_versions(), "cuda": torch.version.cuda},
        "device": {"type": torch.device(device).type},
    }
    if found["device"]["type"] == "cuda" and found["has_cuda"]:
        properties = torch.cuda.get_device_properties(device)
        found["device"] |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "driver": _driver(),
            "tf32": {
                "matmul": torch.backends.cuda.matmul.allow_tf32,
                "cudnn": torch.backends.cudnn.allow_tf32,
            },
        }
        found["versions"]["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return found


def _more_versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("fc7", "triton", "pyarrow", "pillow", "pytest"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _driver() -> str | None:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None if done.returncode == 0 else None


def photographs(folder: Path, count: int) -> dict[str, Any]:
    """Make the JPEGs."""
    from fc7.bench.synthetic_jpegs import HEIGHT, WIDTH, make_photographs

    started = time.perf_counter()
    sizes = [path.stat().st_size for path in make_photographs(folder, count)]
    return {
        "count": count,
        "pixels": f"{WIDTH} x {HEIGHT}",
        "mean_bytes": round(statistics.mean(sizes)),
        "seconds": time.perf_counter() - started,
    }


def kernels(
    device: str, quick: bool, seconds: float, before: dict[str, Any], save: Save
) -> dict[str, Any]:
    """Measure every kernel beside its peers; one that answers wrongly is refused.

    Args:
        device: as torch names it.
        quick: few cases and rounds.
        seconds: to end within; each kernel has a share by its number of cases.
        before: what an earlier process found; its kernels are not measured again.
        save: called with the results so far; `measuring` names the kernel whose turn it is.
    """
    import torch

    from fc7.bench.kernel_cases import cases
    from fc7.bench.kernels import measure_kernels

    place, end = torch.device(device), time.monotonic() + seconds
    if place.type == "cpu":
        torch.set_num_threads(2)
    counts = Counter(case.kernel for case in cases(place) if case.quick or not quick)
    found: dict[str, Any] = before or {
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        "kernels": {},
        "left_out": [],
        "roofline": {},
        "seconds": 0.0,
    }
    for name in [name for name in counts if name not in found["kernels"]]:
        save(found | {"measuring": name})
        share = (end - time.monotonic()) * counts[name] / sum(counts.values())
        del counts[name]
        one = measure_kernels(place, quick=quick, only=name, limit_seconds=max(0.0, share))
        found["left_out"] += one.pop("left_out")
        found["seconds"] += one.pop("seconds")
        found["kernels"] |= one.pop("kernels")
        found["roofline"] = merged(found["roofline"], one.pop("roofline"))
        found |= one
        found["passed"] = not any("red" in kernel for kernel in found["kernels"].values())
        save(found)
        if place.type == "cuda":
            torch.cuda.synchronize()  # raises where a kernel has spoilt the process for the others
    return found


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the better rate of two measurements of one roofline."""
    rates = [roofline.get("tflop_per_s", {}) for roofline in (one, other)]
    return {
        "gb_per_s": max(one.get("gb_per_s", 0.0), other["gb_per_s"]),
        "tflop_per_s": {
            precision: max(rate.get(precision, 0.0) for rate in rates)
            for precision in sorted({*rates[0], *rates[1]})
        },
    }


def main(argv: list[str] | None = None) -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("result", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--photographs", type=Path, help="the folder of JPEGs")
    parser.add_argument("--count", type=int, default=4096, help="of JPEGs to make")
    arguments = parser.parse_args(argv)

    def save(found: dict[str, Any]) -> None:
        beside = arguments.result.with_suffix(".new")
        beside.write_text(json.dumps(found))
        beside.replace(arguments.result)

    if arguments.stage == "environment":
        save(environment(arguments.device))
    elif arguments.stage == "photographs":
        save(photographs(arguments.photographs, arguments.count))
    elif arguments.stage == "kernels":
        before = json.loads(arguments.result.read_text()) if arguments.result.exists() else {}
        save(kernels(arguments.device, arguments.quick, arguments.seconds, before, save))
    elif arguments.stage == "occlusion":
        from fc7.bench.gpu_occlusion import occlusion

        save(occlusion(arguments.device, arguments.quick, arguments.seconds, save))
    elif arguments.stage == "synthesis":
        from fc7.bench.gpu_synthesis import synthesis

        save(synthesis(arguments.device, arguments.quick, arguments.seconds, save))
    else:
        from fc7.bench.gpu_extraction import extraction

        folder = arguments.photographs
        options = (arguments.device, arguments.quick, arguments.seconds, folder)
        save(extraction(arguments.stage, *options, save))


if __name__ == "__main__":
    main()
