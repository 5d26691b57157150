"""Files and folders that exist whole or not at all.

Everything is first written under a hidden temporary name that holds a uuid, flushed to the disk,
renamed, and the folder that holds the name is flushed too (a rename alone can be lost on a crash).
"""

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fc7.engine.errors import StoreError

_BLOCK_BYTES = 1 << 20


def temporary_beside(path: Path) -> Path:
    """Return a fresh hidden name in the folder of `path`: `.NAME.UUID.tmp`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def flush_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file(path: Path) -> None:
    """Make the bytes of `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Flush `temporary`, give it its final name, and make the name durable."""
    flush_file(temporary)
    os.replace(temporary, path)
    flush_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: other processes, and other threads, wait for it.

    The lock goes with the process that holds it, however that ends. Not reentrant.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON at `path`, whole or not at all; one writer of a path at a time."""
    remove_stale(path.parent, path.name)
    temporary = temporary_beside(path)
    try:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise StoreError when `path` does not hold one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} is not a JSON object")
    return value


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of `path` when the block succeeds.

    An older folder at `path` is removed only after its successor is complete on the disk. One
    process makes a path at a time.
    """
    remove_stale(path.parent, path.name)
    temporary = temporary_beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            flush_folder(file) if file.is_dir() else flush_file(file)
        flush_folder(temporary)
        retired = temporary_beside(path)
        if path.exists():
            os.rename(path, retired)
        os.rename(temporary, path)
        flush_folder(path.parent)
        shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_stale(folder: Path, final_name: str) -> None:
    """Remove what an interrupted writer of `folder / final_name` left behind.

    A file that its writer, in this process or another, holds locked is left alone.
    """
    for leftover in folder.glob(f".{final_name}.*.tmp"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif not _is_locked(leftover):
            leftover.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
