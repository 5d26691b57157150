"""Guided gradients of maximal patches: what in each patch its channel answers to.

For every channel its strongest images, and for each of them the guided gradient of the neuron at
the patch's place, cut out to what that neuron sees (Springenberg et al., 2015, figures 3 and 4).
A stage that goes on after a stop: it reads the maximal patches that a run holds, and makes in one
folder

    channels   (C,) int64
    rows       (C, K) int64, the images, strongest first; -1 where there are fewer
    pictures   (C, K, tile, tile, 3) uint8, see `in_own_colours`
    peaks      (C, K) float32, the largest absolute gradient in each
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fc7.engine.attribution.backprop import Backprop
from fc7.engine.attribution.gradient_jobs import check_rule
from fc7.engine.attribution.gradient_pictures import in_own_colours
from fc7.engine.attribution.units import Units
from fc7.engine.data import Source, read_rows
from fc7.engine.data.batches import as_floats
from fc7.engine.data.tiles import BLANK, fit_tile
from fc7.engine.errors import OptionError
from fc7.engine.models import Network, receptive_field
from fc7.engine.store import Progress, Report, Run
from fc7.engine.store.checkpoints import Checkpoints
from fc7.engine.store.patches import patches_job, read_patches
from fc7.kernels.guided_relu import Rule

DEFAULT_TILE = 96
TOGETHER = 16
CHECKPOINT_SECONDS = 60.0
"""How much work a stop may cost."""

Pair = tuple[int, int]
"""Which channel of those asked for, and which of its patches."""


def guided_patches_job(layer: str) -> str:
    """Return the name of the job that holds the guided gradients of a layer's patches."""
    return f"guided-patches-{layer}"


class GuidedPatches:
    """The stage.

    Args:
        run: the run, with the layer's maximal patches.
        source: its images.
        network: its network.
        layer: the layer's name in the run.
        channels: which channels; all of them if None.
        top: patches of each.
        rule: of the ReLUs.
        tile: side of a picture in pixels.
        report: called after each batch.

    Raises:
        StoreError: the run has no maximal patches of that layer.
        OptionError: a channel or a number is out of range.
    """

    def __init__(
        self,
        run: Run,
        source: Source,
        network: Network,
        layer: str,
        channels: Sequence[int] | None = None,
        top: int = 9,
        rule: Rule = "guided",
        tile: int = DEFAULT_TILE,
        report: Report | None = None,
    ) -> None:
        check_rule(rule)
        patches = read_patches(run, layer)
        count = len(patches.rows)
        chosen = range(count) if channels is None else channels
        for channel in chosen:
            if not 0 <= channel < count:
                raise OptionError(f"no channel {channel} in {layer}; it has 0 to {count - 1}")
        if not 1 <= top <= patches.k or tile < 1:
            raise OptionError(
                f"top is {top} and tile {tile}; {run.folder} holds {patches.k} patches a channel "
                "(fc7 patches -k finds more), and a tile is 1 pixel or more"
            )
        self.name = guided_patches_job(layer)
        self._channels = np.array(chosen, dtype=np.int64)
        self._rows = np.asarray(patches.rows[self._channels, :top])
        self._positions = np.asarray(patches.positions[self._channels, :top])
        self._source, self._network, self._layer = source, network, layer
        self._rule: Rule = rule
        self._tile, self._report = tile, report
        self._patches = run.job(patches_job(layer)).digest

    def fingerprint(self) -> Mapping[str, Any]:
        """The network, the patches, and what is made of them."""
        return {
            "network": self._network.describe(),
            "patches": self._patches,
            "layer": self._layer,
            "channels": self._channels.tolist(),
            "top": self._rows.shape[1],
            "rule": self._rule,
            "tile": self._tile,
        }

    def resume(self, folder: Path, checkpoints: Checkpoints) -> Mapping[str, Any]:
        """Fill the folder, from where the newest checkpoint stands."""
        shape = self._rows.shape
        np.save(folder / "channels.npy", self._channels)
        np.save(folder / "rows.npy", self._rows)
        before = checkpoints.latest()
        if before is None:
            start, peaks = 0, np.zeros(shape, dtype=np.float32)
            pictures = np.lib.format.open_memmap(
                folder / "pictures.npy", "w+", np.uint8, (*shape, self._tile, self._tile, 3)
            )
            pictures[:] = BLANK
        else:
            shutil.copy(before / "pictures.npy", folder)
            pictures = np.lib.format.open_memmap(folder / "pictures.npy", "r+")
            peaks, start = np.load(before / "peaks.npy"), int(np.load(before / "done.npy"))
        kept = time.monotonic()
        for done, pairs, gradients in self._gradients(start):
            for pair, gradient in zip(pairs, gradients, strict=True):
                peaks[pair] = gradient.abs().amax() if gradient.numel() else 0
                if gradient.numel():
                    picture = torch.from_numpy(in_own_colours(gradient.numpy()))
                    pictures[pair] = fit_tile(picture.permute(2, 0, 1), self._tile)
            if time.monotonic() - kept >= CHECKPOINT_SECONDS:
                pictures.flush()
                with checkpoints.write() as checkpoint:
                    shutil.copy(folder / "pictures.npy", checkpoint)
                    np.save(checkpoint / "peaks.npy", peaks)
                    np.save(checkpoint / "done.npy", done)
                kept = time.monotonic()
            if self._report:
                self._report(Progress(self.name, done, int((self._rows >= 0).sum())))
        pictures.flush()
        np.save(folder / "peaks.npy", peaks)
        return {"channels": shape[0], "top": shape[1], "layer": self._layer, "rule": self._rule}

    def _gradients(self, done: int) -> Iterator[tuple[int, list[Pair], list[Tensor]]]:
        """Yield how many patches are dealt with so far, some of them, and their gradients.

        These are (3, h, w) float32 each. The first `done` patches are left out.
        """
        backprop = Backprop(self._network, self._rule, self._layer)
        assert backprop.layer is not None
        boxes = receptive_field(self._network, self._layer).boxes()
        shape, spatial = backprop.layer.shape, backprop.layer.is_spatial
        for pairs, found in self._batches(done):
            done += len(pairs)
            # What cannot be read any more stays grey.
            seen = [(pair, image) for pair, image in zip(pairs, found, strict=True)
                    if image is not None]  # fmt: skip
            if not seen:
                continue
            pixels = as_floats([image for _, image in seen], self._network.device).div_(255)
            numbers = [self._unit(pair, shape, spatial) for pair, _ in seen]
            units = Units(backprop.layer, torch.tensor(numbers), len(numbers))
            maps = backprop(pixels, units.of(slice(None))).maps.cpu()
            cut = []
            for gradient, (pair, _) in zip(maps, seen, strict=True):
                top, left, bottom, right = boxes[self._positions[pair] if spatial else 0].tolist()
                cut.append(gradient[:, top:bottom, left:right])
            yield done, [pair for pair, _ in seen], cut

    def _unit(self, pair: Pair, shape: tuple[int, ...], spatial: bool) -> list[int] | int:
        channel = int(self._channels[pair[0]])
        if not spatial:
            return channel
        return [channel, *divmod(int(self._positions[pair]), shape[2])]

    def _batches(self, done: int) -> Iterator[tuple[list[Pair], list[Tensor | None]]]:
        """Yield patches and what the network sees of their images, each of which is decoded once.

        They come in the order of rows, always in the same batches.
        """
        pairs: list[Pair] = [(c, rank) for c, rank in np.argwhere(self._rows >= 0).tolist()]
        order = sorted(pairs, key=lambda pair: (self._rows[pair], *pair))[done:]
        numbers = list(dict.fromkeys(int(self._rows[pair]) for pair in order))
        transform = self._network.transform
        images = read_rows(self._source, numbers, transform, threads=2, lookahead=32)
        row = next(images, None)
        for first in range(0, len(order), TOGETHER):
            batch = order[first : first + TOGETHER]
            found: list[Tensor | None] = []
            for pair in batch:
                while row is not None and row.number != self._rows[pair]:
                    row = next(images, None)
                assert row is not None
                found.append(row.image)
            yield batch, found
