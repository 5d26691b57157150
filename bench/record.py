"""Keep a benchmark's result with what is needed to repeat it: machine, versions, command."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "numpy",
    "faiss-cpu",
    "faiss-gpu",
    "umap-learn",
    "pynndescent",
    "openTSNE",
    "scikit-learn",
    "captum",
    "foolbox",
    "opencv-python-headless",
    "torch-pruning",
)


def machine() -> dict[str, Any]:
    """The processor, the cores this process may use, the load (1 minute) and the GPU, if any."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Python and those of the packages above that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def recorded_cases(name: str) -> dict[str, Any]:
    """Return a benchmark's results so far, if this machine and software measured them.

    They hold `cases` by name, none at first.
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return {"cases": {}}
    facts = json.loads(path.read_text())
    same = facts["versions"] == versions() and facts["machine"]["cpu"] == machine()["cpu"]
    found: dict[str, Any] = facts["results"] if same else {"cases": {}}
    return found


def record(name: str, results: dict[str, Any], command: str) -> Path:
    """Write results/NAME.json and return its path; `command` is what to type to repeat it."""
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "name": name,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "results": results,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    return path
