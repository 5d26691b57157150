"""The network behind a run: found again from what a job wrote down, and the same for all jobs.

Not among the store's public names, since it needs torch.
"""

from collections.abc import Mapping
from typing import Any

from fc7.engine.errors import FingerprintError, StoreError
from fc7.engine.models import Network, load_model
from fc7.engine.store.fingerprint import differences, software
from fc7.engine.store.run import Run


def fingerprint_of(network: Network, /, **options: Any) -> dict[str, Any]:
    """Return the fingerprint of a job: its network, its options and the device, the software."""
    return {
        "network": network.describe(),
        "options": {**options, "device": network.device.type},
        "software": software(),
    }


def weights_note(network: Network) -> dict[str, Any]:
    """Return where a network's weights were, for the notes of a job; see `network_of`."""
    return {"weights_file": None if network.file is None else str(network.file)}


def network_of(run: Run, device: str = "auto") -> Network:
    """Load the network that a run was made with.

    Raises:
        StoreError: no job of the run had a network, or the network that its description leads to
            has other weights by now.
    """
    for job in run.jobs().values():
        if job.kind == "map" and "network" in job.fingerprint:
            return _load_described(job.fingerprint["network"], job.meta["notes"], device)
    raise StoreError(f"{run.folder} holds no activations; fc7 extract makes them")


def check_network(run: Run, network: Network) -> None:
    """Refuse a second network: `fc7` would mean two things in one run.

    Raises:
        FingerprintError: a job of the run was made with another; names what differs.
    """
    for job in run.jobs().values():
        before = job.fingerprint.get("network")
        if job.kind == "map" and before is not None:
            changed = differences({"network": before}, {"network": network.describe()})
            if changed:
                raise FingerprintError(
                    f"{run.folder} was made with another network ({'; '.join(changed)}); choose "
                    "another --out"
                )


def _load_described(described: Mapping[str, Any], notes: Mapping[str, Any], device: str) -> Network:
    transform = described["transform"]
    weights = notes.get("weights_file") or described["weights"]
    network = load_model(
        described["name"],
        weights=None if weights == "own" else weights,
        seed=described["seed"] or 0,
        device=device,
        precision=described["precision"],
        mean=described["mean"],
        std=described["std"],
        resize=transform["resize"] or 0,
        crop=transform["crop"],
    )
    changed = differences({"network": described}, {"network": network.describe()})
    if changed:
        raise StoreError(f"the run's network is not to be had any more ({'; '.join(changed)})")
    return network
