"""Extraction: images in, activations of chosen layers out, one forward pass for all of them.

A vector layer (fc7, avgpool) is stored whole, (N, D). A spatial layer (conv5) is by default
reduced where it is computed to `conv5.max` (N, C) and `conv5.argmax` (N, C), the strongest
position of every channel and its flat place; with `maps` the whole map, `conv5` (N, C, H, W),
joins them. `pixels` (N, 3, 32, 32) uint8 is the input itself, averaged down: what neighbours are
compared with. The network runs no further than the deepest layer asked for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from fc7.engine.data.batches import as_floats, batches, read_ahead
from fc7.engine.data.reader import Row
from fc7.engine.data.source import Source
from fc7.engine.errors import StoreError
from fc7.engine.models import Layer, Network
from fc7.engine.store import Arrays, Output
from fc7.engine.store.job import RowStream
from fc7.engine.store.network import fingerprint_of, weights_note
from fc7.engine.store.vectors import PIXELS
from fc7.kernels import FastLinear, spatial_max

DEFAULT_BATCH_ROWS = 32
DTYPES = ("float16", "float32")
PIXELS_SIDE = 32


class Extract:
    """A map from images to the activations of `layers`.

    Args:
        network: the network, on the device that computes.
        source: where the images come from.
        layers: names of layers, in any order.
        name: the job's name in the run.
        dtype: `float16` or `float32`, of every activation stored.
        maps: store whole maps of spatial layers too.
        batch_rows: images in one forward pass.
        threads: decoding threads.

    Raises:
        LayerError: the network has no such layer.
        StoreError: another dtype, or less than one row in a batch, or one thread.
    """

    def __init__(
        self,
        network: Network,
        source: Source,
        layers: Sequence[str],
        name: str = "extract",
        dtype: str = "float16",
        maps: bool = False,
        batch_rows: int = DEFAULT_BATCH_ROWS,
        threads: int = 2,
    ) -> None:
        if dtype not in DTYPES:
            raise StoreError(f"no dtype {dtype!r}; activations are stored as {', '.join(DTYPES)}")
        if batch_rows < 1 or threads < 1:
            raise StoreError(f"batch_rows is {batch_rows}, threads {threads}; each is 1 or more")
        self.name = name
        self._network, self._source = network, source
        self._layers = {layer: network.layer(layer) for layer in layers if layer != PIXELS}
        # Without the normalisations that fold away, ResNet50 runs about a fifth faster.
        self._folded = network.folded(list(self._layers)) if self._layers else network
        self._pixels = PIXELS in layers
        self._dtype, self._maps = dtype, maps
        self._batch_rows, self._threads = batch_rows, threads
        self._device = next(network.parameters()).device
        self.outputs = [
            output
            for asked, layer in self._layers.items()
            for output in layer_outputs(asked, layer, dtype, maps, self._place(layer))
        ]
        if self._pixels:
            shape = (3, PIXELS_SIDE, PIXELS_SIDE)
            self.outputs.append(Output(PIXELS, shape, "uint8", {"layer": PIXELS}))

    def _place(self, layer: Layer) -> dict[str, Any]:
        """Say where in the network a layer lies, for those who want the deepest but the logits."""
        return {"layers_after": self._network.layers_after(layer.path)}

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, transform, options and software; see `fc7.engine.store.fingerprint`."""
        return fingerprint_of(
            self._network,
            dtype=self._dtype,
            maps=self._maps,
            batch_rows=self._batch_rows,
            batch_norm="folded",
        )

    def notes(self) -> Mapping[str, Any]:
        """Where the weights were, for those who want the same network again."""
        return weights_note(self._network)

    def rows(self, numbers: Iterable[int]) -> RowStream:
        """Decode and transform ahead."""
        return read_ahead(
            self._source, numbers, self._network.transform, self._batch_rows, self._threads
        )

    def run(self, rows: Iterator[Row]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
        """Yield the activations of each batch in turn.

        On a GPU a batch's results are waited for only after the next batch has been launched, so
        that the device always has work.
        """
        launched: tuple[NDArray[np.int64], _Fetch] | None = None
        for batch in batches(rows, self._batch_rows):
            numbers = np.array([row.number for row in batch], dtype=np.int64)
            tensors = self.forward([row.image for row in batch if row.image is not None])
            if self._device.type != "cuda":
                yield numbers, _to_numpy(tensors)
                continue
            fetch = _Fetch(tensors, self._device)
            if launched is not None:
                yield launched[0], launched[1].arrays()
            launched = numbers, fetch
        if launched is not None:
            yield launched[0], launched[1].arrays()

    @torch.inference_mode()
    def forward(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Map uint8 images, each (3, H, W), to every output's tensor (B, ...), on the device."""
        pixels = as_floats(batch, self._device).div_(255)
        taps: dict[str, Any] = {}
        if self._layers:  # not where pixels alone were asked for
            # What it is for, a CPU's linear layers, is not on a GPU; there it only costs time.
            with FastLinear() if self._device.type == "cpu" else nullcontext():
                taps = self._folded.activations(pixels, list(self._layers), reduce=self._reduce)
        tensors: dict[str, Tensor] = {}
        for asked, layer in self._layers.items():
            outputs = layer_outputs(asked, layer, self._dtype, self._maps)
            tensors |= {
                output.name: tensor for output, tensor in zip(outputs, taps[asked], strict=True)
            }
        if self._pixels:
            small = adaptive_avg_pool2d(pixels, PIXELS_SIDE)
            tensors[PIXELS] = small.mul_(255).round_().to(torch.uint8).contiguous()
        return tensors

    def _reduce(self, layer: Layer, activation: Tensor) -> tuple[Tensor, ...]:
        """Reduce or copy in the hook, before an in-place ReLU can write over the activation."""
        if not is_map(layer):
            return (activation.flatten(1).to(torch.float32, copy=True),)
        values, positions = spatial_max(activation)
        reduced = (values.float(), positions)
        if not self._maps:
            return reduced
        return (*reduced, activation.to(getattr(torch, self._dtype), copy=True).contiguous())


def is_map(layer: Layer) -> bool:
    """Say whether a layer has positions to choose from: (C, H, W) with more than one."""
    return layer.is_spatial and layer.shape[1] * layer.shape[2] > 1


def layer_outputs(
    asked: str,
    layer: Layer,
    dtype: str,
    maps: bool,
    place: Mapping[str, Any] | None = None,
) -> list[Output]:
    """Return what extraction stores of a layer, under the name that was asked for."""
    about = {"layer": asked, "path": layer.path, "rectified": layer.rectified, **(place or {})}
    if not is_map(layer):
        width = int(np.prod(layer.shape))
        return [Output(asked, (width,), dtype, about)]
    channels, height, width = layer.shape
    about |= {"height": height, "width": width}
    reduced = [
        Output(f"{asked}.max", (channels,), dtype, about),
        Output(f"{asked}.argmax", (channels,), "int32", about),
    ]
    return [*reduced, Output(asked, (channels, height, width), dtype, about)] if maps else reduced


class _Fetch:
    """Results on their way from a GPU: the copy is queued behind the kernels that make them.

    Asking for the values later, with `.cpu()`, would queue it behind the next batch too: whoever
    asks would wait for that batch, and the device then for whoever asked.

    Args:
        tensors: the results, by name, on the device.
        device: the GPU.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        # Torch chooses pinned memory for what goes to the CPU without blocking.
        self._tensors = {
            name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()
        }
        # One that sleeps: spinning would take a core from the decoding threads.
        self._arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._arrived.record(torch.cuda.current_stream(device))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Wait until the copy is done."""
        self._arrived.synchronize()
        return _to_numpy(self._tensors)


def _to_numpy(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
