"""Which patches of the data set look like this one, or excite this direction most.

A convolutional layer stores maps (N, C, H, W); the C values at one position describe one patch of
the image (its receptive field). Positions are numbered row by row: position = y W + x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fc7.indexing import arrays, scan
from fc7.indexing.arrays import ArrayLike, Float32, Int64, as_tensor
from fc7.indexing.base import Index
from fc7.indexing.errors import IndexingError
from fc7.indexing.index import build_index

DEFAULT_MEMORY_BYTES = 512 << 20


Best = tuple[Int64, Int64, Float32]


@dataclass(frozen=True)
class PatchHits:
    """Patches found, best first: (k,) for one direction, (Q, k) for several queries.

    rows int64: images; positions int64: y W + x; scores float32: inner products, or L2 distances.
    """

    rows: Int64
    positions: Int64
    scores: Float32


class Positions:
    """The maps (N, C, H, W) seen as vectors (N H W, C), image by image, row by row."""

    def __init__(self, maps: ArrayLike) -> None:
        n, channels, height, width = check_maps(maps)
        self._maps, self.per_image = maps, height * width
        self.shape, self.dtype = (n * self.per_image, channels), np.dtype(maps.dtype)

    def __getitem__(self, key: slice) -> npt.NDArray[Any]:
        start, stop, _ = key.indices(self.shape[0])
        first = start // self.per_image
        last = max(first, -(-stop // self.per_image))
        block = np.asarray(self._maps[first:last])
        flat = block.reshape(len(block), self.shape[1], -1).transpose(0, 2, 1)
        rows = flat.reshape(-1, self.shape[1])
        return rows[start - first * self.per_image : stop - first * self.per_image]


def check_maps(maps: ArrayLike) -> tuple[int, int, int, int]:
    """Return (N, C, H, W); raise IndexingError unless the maps are a non-empty 4-D float array."""
    shape = tuple(int(size) for size in maps.shape)
    if len(shape) != 4 or min(shape) == 0:
        raise IndexingError(f"maps have shape {shape}; expected (images, channels, height, width)")
    if np.dtype(maps.dtype).kind != "f":
        raise IndexingError(f"maps have dtype {maps.dtype}; expected float16 or float32")
    return shape[0], shape[1], shape[2], shape[3]


def search_direction(
    maps: ArrayLike, direction: Float32, k: int, memory_bytes: int = DEFAULT_MEMORY_BYTES
) -> PatchHits:
    """Return the k images with the largest inner product anywhere, one patch of each: (k,).

    maps: (N, C, H, W), streamed once. direction: (C,) of any length; the unit vector of a channel
    gives exactly its maximal patches. Exact in float32. The first position of an image wins ties,
    then the lower row. Raises IndexingError for wrong shapes, k > N, and rows with NaN or
    infinite values, which it names.
    """
    n, channels, _, _ = check_maps(maps)
    arrays.check_count(k, n, "images")
    along = np.asarray(direction, dtype=np.float32)
    if along.shape != (channels,) or not np.isfinite(along).all():
        raise IndexingError(
            f"direction has shape {along.shape}; expected ({channels},), all values finite"
        )
    best: Best = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    for start, block in _blocks(maps, memory_bytes):
        with scan.full_float32():
            scores = torch.einsum("c,ncp->np", torch.from_numpy(along), as_tensor(block))
        # argmax gives the first of equals.
        positions = scores.argmax(dim=1)
        highest = scores.gather(1, positions[:, None])[:, 0]
        rows = np.arange(start, start + len(block))
        best = _merge(best, (rows, positions.numpy(), -highest.numpy()), k)
    return PatchHits(best[0], best[1], -best[2])


def similar_patches(
    maps: ArrayLike,
    query: Float32,
    k: int,
    one_per_image: bool = True,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> PatchHits:
    """Return the k patches nearest in L2 to each query, (Q, C) -> (Q, k), exactly.

    With one_per_image each image gives its nearest patch only, so k <= N; without, neighbouring
    positions of one image crowd the list, and k <= N H W. Distances are differences in float32,
    so near-duplicates keep their digits; equal ones stand by row, then position. The maps are
    streamed once for all queries. Raises IndexingError as `search_direction` does.
    """
    n, channels, height, width = check_maps(maps)
    points = _check_query(query, channels)
    if not one_per_image:
        return PatchIndex(maps, "flat", memory_bytes).search(points, k)
    arrays.check_count(k, n, "images")
    empty: Best = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    best = [empty for _ in points]
    x = torch.from_numpy(points)
    for start, block in _blocks(maps, memory_bytes // (1 + len(points) // channels)):
        flat = torch.from_numpy(
            np.ascontiguousarray(block.transpose(0, 2, 1)).reshape(-1, channels)
        )
        distances = torch.cdist(x, flat, compute_mode="donot_use_mm_for_euclid_dist")
        by_image = distances.reshape(len(points), len(block), height * width)
        positions = by_image.argmin(dim=2)
        nearest = by_image.gather(2, positions[:, :, None])[:, :, 0]
        rows = np.arange(start, start + len(block))
        for number in range(len(points)):
            more = (rows, positions[number].numpy(), nearest[number].numpy())
            best[number] = _merge(best[number], more, k)
    return PatchHits(
        np.stack([hits[0] for hits in best]),
        np.stack([hits[1] for hits in best]),
        np.stack([hits[2] for hits in best]),
    )


class PatchIndex:
    """All patches of a layer as an index over positions, for patch-to-patch similarity in L2.

    kind: as in `build_index`; 'flat' is exact and keeps no copy that does not fit memory_bytes.
    Inner products with a direction want `search_direction`: approximate indexes miss most of them.
    """

    def __init__(
        self, maps: ArrayLike, kind: str = "flat", memory_bytes: int = DEFAULT_MEMORY_BYTES
    ) -> None:
        self._positions = Positions(maps)
        self.index: Index = build_index(self._positions, kind, memory_bytes=memory_bytes)

    def search(self, query: Float32, k: int) -> PatchHits:
        """Return the k nearest patches of each query, (Q, C) -> (Q, k); images may repeat."""
        found = self.index.search(_check_query(query, self._positions.shape[1]), k)
        per_image = self._positions.per_image
        return PatchHits(found.ids // per_image, found.ids % per_image, found.distances)


def _check_query(query: Float32, channels: int) -> Float32:
    points = np.ascontiguousarray(query, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] != channels or not len(points):
        raise IndexingError(f"query has shape {points.shape}; expected (queries, {channels})")
    arrays.check_finite(points, 0, "query")
    return points


def _blocks(maps: ArrayLike, memory_bytes: int) -> Iterator[tuple[int, Float32]]:
    """Yield (first row, float32 block (B, C, H W)), every value checked."""
    n, channels, height, width = check_maps(maps)
    step = arrays.rows_in(memory_bytes // 2, 4 * channels * height * width)
    for start, stop in arrays.spans(n, step):
        block = arrays.read(maps, start, stop)
        arrays.check_finite(block.reshape(len(block), -1), start, "maps")
        yield start, block.reshape(len(block), channels, -1)


def _merge(best: Best, more: Best, k: int) -> Best:
    """Keep the k lowest scores of two lists of (rows, positions, scores); lower rows first."""
    rows = np.concatenate([best[0], more[0]])
    positions = np.concatenate([best[1], more[1]])
    scores = np.concatenate([best[2], more[2]])
    order = np.lexsort((positions, rows, scores))[:k]
    return rows[order], positions[order], scores[order]
