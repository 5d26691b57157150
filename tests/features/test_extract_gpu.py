"""Extraction on a GPU: the same values as on a CPU, and the order in which batches are in flight.

The order is tested everywhere, with a fake device; the values where there is a GPU.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fc7.engine.data import Row, Transform, open_source
from fc7.engine.data.batches import as_floats
from fc7.engine.features import extract as module
from fc7.engine.features import plan
from fc7.engine.features.extract import Extract
from fc7.engine.features.workflow import ExtractOptions, extract
from fc7.engine.models import Network


def small_network(device: str) -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 9, 5, stride=2),
        nn.BatchNorm2d(9),
        nn.ReLU(inplace=True),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 13),
    )
    transform = Transform(resize=64, crop=63)
    return Network(model, "small", weights="random", transform=transform, device=device)


LAYERS = ["0", "1", "5", "pixels"]


def job(network: Network, **options: Any) -> Extract:
    return Extract(network, open_source("shapes:11:3"), LAYERS, batch_rows=4, **options)


def test_images_of_any_strides_are_stacked() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(0, 256, (40, 30, 3), dtype=torch.uint8, generator=generator)
    cropped = whole.permute(2, 0, 1)[:, 5:28, 3:20]  # as a decoder's image is, cut to its middle
    turned = whole.permute(2, 1, 0)[:, 2:25, 10:27]
    planar = cropped.flip(1).contiguous()
    batch = [cropped, turned, planar]
    stacked = as_floats(batch, torch.device("cpu"))
    assert stacked.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(stacked, torch.stack(batch).float())


def test_a_batch_is_fetched_while_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[tuple[str, int]] = []

    class Fetch:
        def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
            self.tensors = tensors
            happened.append(("copy queued", int(tensors["first"])))

        def arrays(self) -> dict[str, Any]:
            happened.append(("waited for", int(self.tensors["first"])))
            return {name: tensor.numpy() for name, tensor in self.tensors.items()}

    def forward(batch: list[Tensor]) -> dict[str, Tensor]:
        happened.append(("launched", int(batch[0][0, 0, 0])))
        return {"first": batch[0][0, 0, 0]}

    tested = job(small_network("cpu"))
    monkeypatch.setattr(module, "_Fetch", Fetch)
    monkeypatch.setattr(tested, "_device", torch.device("cuda"))
    monkeypatch.setattr(tested, "forward", forward)
    rows = [Row(n, torch.full((3, 2, 2), n, dtype=torch.uint8), (2, 2), None) for n in range(11)]
    found = list(tested.run(iter(rows)))
    assert [numbers.tolist() for numbers, _ in found] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10],
    ]
    assert [int(arrays["first"]) for _, arrays in found] == [0, 4, 8]
    assert happened == [
        ("launched", 0),
        ("copy queued", 0),
        ("launched", 4),
        ("copy queued", 4),
        ("waited for", 0),
        ("launched", 8),
        ("copy queued", 8),
        ("waited for", 4),
        ("waited for", 8),
    ]


def test_a_plan_waits_for_what_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's forward pass returns at once; its rate is known when the values are there."""
    waited = []

    class Slow:
        def cpu(self) -> None:
            waited.append(self)

    network = small_network("cpu")
    tested = job(network)
    monkeypatch.setattr(tested, "forward", lambda batch: {"a": Slow(), "b": Slow()})
    plan._measure(open_source("shapes:11:3"), network, tested, 4, 1)
    assert len(waited) == 2 * (1 + plan._TIMED_BATCHES)


@pytest.mark.gpu
@pytest.mark.parametrize("maps", [False, True])
def test_a_gpu_finds_what_a_cpu_finds(
    tmp_path: Path, maps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    # Torch lets convolutions use TF32, with 11 bits; what is left without it is rounding.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    options = ExtractOptions(dtype="float32", maps=maps, batch_rows=4, part_rows=6)
    runs = {
        device: extract("shapes:203:3", small_network(device), LAYERS, tmp_path / device, options)
        for device in ("cpu", "cuda")
    }
    for name, owner in runs["cpu"].outputs().items():
        ours, theirs = np.asarray(runs["cuda"][name]), np.asarray(runs["cpu"][name])
        if owner.outputs[name].dtype in ("uint8", "int32"):
            # A pixel may round the other way, and a place may win where two are equal.
            assert (ours != theirs).mean() < 0.02, name
        else:
            assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max(), name
