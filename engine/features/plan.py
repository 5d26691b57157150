"""What a run will cost before it runs: bytes exactly, time from a few rows measured here."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fc7.engine.data import Source
from fc7.engine.errors import BadImage, LayerError, SourceError
from fc7.engine.features.extract import Extract, is_map, layer_outputs
from fc7.engine.features.neighbors import DEFAULT_K
from fc7.engine.features.patches import DEFAULT_K as DEFAULT_TOP
from fc7.engine.models import Network, receptive_field
from fc7.engine.store import DEFAULT_PART_ROWS
from fc7.engine.store.vectors import PIXELS
from fc7.kernels import empty_topk

if TYPE_CHECKING:
    from fc7.indexing import Cost

_DECODED_ROWS = 16
_TIMED_BATCHES = 2


@dataclass(frozen=True)
class Step:
    """One step of the main job: bytes on the disk, bytes in memory beyond the program, seconds."""

    name: str
    disk_bytes: int
    memory_bytes: int
    seconds: float
    note: str


@dataclass(frozen=True)
class Plan:
    """The steps of the main job, in order, and their sum as the last one."""

    steps: list[Step]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {"steps": [dataclasses.asdict(step) for step in self.steps]}


def make_plan(
    source: Source,
    network: Network,
    layers: Sequence[str],
    dtype: str = "float16",
    maps: bool = False,
    batch_rows: int = 32,
    threads: int = 2,
) -> Plan:
    """Predict what `fc7 run` will take: a few rows are decoded, two batches computed.

    Raises:
        SourceError: none of the first rows is good.
        LayerError: the network has no such layer.
    """
    job = Extract(network, source, layers, dtype=dtype, maps=maps, batch_rows=batch_rows)
    decode, forward, batch_bytes = _measure(source, network, job, batch_rows, threads)
    rows = len(source)
    per_row = {output.name: output.bytes_per_row for output in job.outputs}
    on_gpu = network.device.type != "cpu"
    # On a CPU decoding and the network share the cores; beside a GPU the slower one sets the pace.
    seconds_per_row = max(decode, forward) if on_gpu else decode + forward
    steps = [
        Step(
            f"extract {name}",
            rows * count,
            0,
            0.0,
            f"{count} bytes a row",
        )
        for name, count in per_row.items()
    ]
    steps.append(
        Step(
            "decode and forward",
            0,
            batch_bytes,
            rows * seconds_per_row,
            f"{1 / decode:.0f} images/s decoded, {1 / forward:.0f} images/s forward",
        )
    )
    steps += [_patches_step(rows, network, layers), *_vector_steps(rows, network, layers)]
    total = Step(
        "all",
        sum(step.disk_bytes for step in steps),
        max(step.memory_bytes for step in steps),
        sum(step.seconds for step in steps),
        "memory is the largest step's",
    )
    return Plan([*steps, total])


def list_layers(network: Network, every: bool = False) -> list[dict[str, Any]]:
    """Describe each layer as JSON: name, path, kind, shape, receptive field, bytes a row."""
    if every:
        names = [name for name, _ in network.model.named_modules() if name]
        layers = [network.layer(name) for name in names if _has_layer(network, name)]
    else:
        layers = list(network.layers.values())
    listed = []
    for layer in layers:
        field = None
        if layer.is_spatial:
            found = receptive_field(network, layer.name)
            field = {
                "size": found.size,
                "stride": found.stride,
                "offset": found.offset,
                "is_global": found.is_global,
            }
        reduced = layer_outputs(layer.name, layer, "float16", maps=False)
        listed.append(
            {
                "name": layer.name,
                "path": layer.path,
                "kind": layer.kind,
                "shape": list(layer.shape),
                "receptive_field": field,
                "bytes_per_row": sum(output.bytes_per_row for output in reduced),
                "map_bytes_per_row": 2 * int(np.prod(layer.shape)) if is_map(layer) else 0,
            }
        )
    return listed


def _has_layer(network: Network, path: str) -> bool:
    try:
        network.layer(path)
    except LayerError:
        return False
    return True


def _measure(
    source: Source, network: Network, job: Extract, batch_rows: int, threads: int
) -> tuple[float, float, int]:
    """Return seconds a row to decode (over all threads) and to compute, and bytes of a batch."""
    images, decoding = [], []
    for row in range(min(_DECODED_ROWS, len(source))):
        started = time.perf_counter()
        try:
            images.append(network.transform(source.decode(source.read(row))))
        except BadImage as error:
            reason = str(error)
        decoding.append(time.perf_counter() - started)
    decode = statistics.median(decoding) / threads  # the first one also imports the decoders
    if not images:
        raise SourceError(f"none of the first {_DECODED_ROWS} rows is good ({reason})")
    batch = [images[number % len(images)] for number in range(batch_rows)]
    seconds = []
    for _ in range(1 + _TIMED_BATCHES):  # the first one warms up
        started = time.perf_counter()
        for tensor in job.forward(batch).values():
            tensor.cpu()  # a GPU has only been told so far
        seconds.append(time.perf_counter() - started)
    # Activations of two layers are alive at a time, and the pixels wait twice over as floats.
    widest = max((int(np.prod(layer.shape)) for layer in network.layers.values()), default=0)
    batch_bytes = batch_rows * 4 * (2 * widest + 2 * 3 * int(np.prod(network.input_size)))
    return decode, min(seconds[1:]) / batch_rows, batch_bytes


def _patches_step(rows: int, network: Network, layers: Sequence[str]) -> Step:
    channels = [network.layer(name).shape[0] for name in layers if name != PIXELS]
    values, ids = empty_topk(1, DEFAULT_TOP)
    state = values.element_size() * values.numel() + ids.element_size() * ids.numel()
    parts = -(-rows // DEFAULT_PART_ROWS)
    return Step(
        "maximal patches",
        parts * sum(channels) * state,
        2 * sum(channels) * state,
        0.0,
        f"{sum(channels)} channels, found during extraction",
    )


def _vector_steps(rows: int, network: Network, layers: Sequence[str]) -> list[Step]:
    asked = [network.layer(name) for name in layers if name != PIXELS]
    vectors = [layer for layer in asked if not is_map(layer)]
    if not vectors or rows < 2:
        return []
    from fc7.indexing import neighbors_cost, pca_cost, tsne_cost, umap_cost

    width = int(np.prod(vectors[-1].shape))
    k = min(DEFAULT_K, rows - 1)
    layer = vectors[-1].name
    return [
        _indexing_step("neighbour graph", neighbors_cost(rows, width, k), f"{k} of each row"),
        _indexing_step("pca", pca_cost(rows, width, 2), f"of {layer}"),
        _indexing_step("umap", umap_cost(rows, width), f"of {layer}, on the graph"),
        _indexing_step("tsne", tsne_cost(rows, width), f"of {layer}, on the graph"),
    ]


def _indexing_step(name: str, cost: "Cost", note: str) -> Step:
    return Step(name, cost.disk_bytes, cost.memory_bytes, cost.seconds, note)
