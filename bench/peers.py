"""The environment that the thingsvision peer runs in: `python -m fc7.bench.peers`.

thingsvision 2.7.3 imports TensorFlow and numpy 1 whatever it is asked to do, and pins a torch
that our Python versions and ours never meet in (torchvision 0.15.2). What it computes with torch
runs unchanged on the torch we use, so its environment holds thingsvision, TensorFlow and numpy 1,
and sees torch, torchvision and PIL of the environment that fc7 is in. Both sides then compare on
the same kernels, and a difference is the pipeline's, not the library's.
"""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".peers" / "thingsvision"
# Without dependencies: the rest of what it asks for is not imported on the way to AlexNet.
_BARE = ("thingsvision==2.7.3", "timm==1.0.31", "torchtyping==0.1.5")
_WHOLE = ("tensorflow-cpu==2.15.1", "numpy<2", "typeguard<3", "h5py", "scipy", "requests", "tqdm")
_WHOLE_FOR_TIMM = ("pyyaml", "huggingface_hub", "safetensors")


def thingsvision_python() -> Path | None:
    """Return the interpreter of the peer's environment, or None where it has not been made."""
    python = ENVIRONMENT / "bin" / "python"
    return python if (ENVIRONMENT / "ready").exists() else None


def make_environment(interpreter: str = sys.executable) -> Path:
    """Make the environment and return its interpreter; needs a package index and 1.5 GB.

    Args:
        interpreter: Python of the version that fc7 runs on. TensorFlow 2.15 has wheels for 3.11
            and none for 3.12 and later.

    Raises:
        RuntimeError: this Python has no such TensorFlow.
        subprocess.CalledProcessError: pip failed.
    """
    if sys.version_info[:2] != (3, 11):
        raise RuntimeError(
            "thingsvision 2.7.3 needs TensorFlow below 2.16, which ends at Python 3.11; "
            "set fc7 up with make PYTHON=python3.11 to compare with it"
        )
    subprocess.run([interpreter, "-m", "venv", str(ENVIRONMENT)], check=True)
    python = ENVIRONMENT / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", *_BARE], check=True)
    subprocess.run([*pip, *_WHOLE, *_WHOLE_FOR_TIMM], check=True)
    ours = sysconfig.get_paths()["purelib"]
    theirs = next((ENVIRONMENT / "lib").glob("python*/site-packages"))
    # Behind its own site-packages on the path, so that numpy 1 comes first.
    (theirs / "torch_of_fc7.pth").write_text(f"{ours}\n")
    (ENVIRONMENT / "ready").touch()
    return python


def versions(python: Path) -> dict[str, str]:
    """Return the versions that a peer computes with."""
    names = ["thingsvision", "torch", "torchvision", "numpy", "PIL", "tensorflow"]
    code = (
        "import importlib, json\n"
        f"print(json.dumps({{n: importlib.import_module(n).__version__ for n in {names!r}}}))"
    )
    result = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(result.stdout.strip().split("\n")[-1])
    return found


def thingsvision_command(folder: Path, out: Path, weights: Path, batch: int) -> list[str]:
    """Return the command that runs thingsvision's own loop over a folder."""
    python = thingsvision_python()
    if python is None:
        raise RuntimeError("no environment for thingsvision; make it: python -m fc7.bench.peers")
    script = HERE / "peer_thingsvision.py"
    return [str(word) for word in (python, script, folder, weights, out, "--batch", batch)]


def dataloader_command(
    folder: Path, out: Path, weights: Path, batch: int, workers: int
) -> list[str]:
    """Return the command that runs the DataLoader script over a folder."""
    script = HERE / "peer_dataloader.py"
    words = (sys.executable, script, folder, weights, out, "--batch", batch, "--workers", workers)
    return [str(word) for word in words]


if __name__ == "__main__":
    print(versions(thingsvision_python() or make_environment()))
