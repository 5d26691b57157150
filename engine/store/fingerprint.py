"""What makes two runs of a job the same job, and words for what differs.

A fingerprint is a JSON object (weights, transform, options, batch size, source, software). Its
digest is kept in every commit record, so that parts of different jobs can never be mixed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("fc7", "torch", "torchvision", "numpy", "pillow")


def software() -> dict[str, str]:
    """Return the versions that can change a stored value, read without importing a package."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def digest(fingerprint: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the fingerprint's canonical JSON, in hexadecimal."""
    text = json.dumps(fingerprint, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name every entry that differs, as `network.weights: 'default' then, 'random' now`."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{name}: {_short(before.get(name))} then, {_short(after.get(name))} now"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]}..."
