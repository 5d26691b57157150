"""Principal components of vectors that need not fit in memory.

Two ways, both in a few passes over blocks. Narrow vectors: the covariance itself, solved exactly.
Wide ones: randomized subspace iteration (Halko, Martinsson and Tropp 2011, "Finding structure with
randomness", algorithms 4.4 and 5.3) on the covariance, which is never formed: each pass multiplies
it by a thin matrix (D, dimensions + 16), and the last one solves the small problem that is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fc7.indexing import arrays, scan
from fc7.indexing.arrays import ArrayLike, Float32, Float64, as_tensor
from fc7.indexing.errors import IndexingError

OVERSAMPLING = 16
# Three products with the covariance: as accurate as two power iterations on the data.
PASSES = 3
# The covariance costs N D^2, the iteration about 8 N D (dimensions + 16): below this ratio of
# widths the exact way is also the cheaper one. Past the limit its eigenvectors take too long.
EXACT_RATIO = 8
EXACT_WIDTH = 4096
DEFAULT_MEMORY_BYTES = 256 << 20


@dataclass(frozen=True)
class Pca:
    """Principal components of a data set of N rows.

    mean (D,), components (d, D) of unit length and mutually orthogonal, explained_variance (d,)
    along each, largest first, with N - 1 as the divisor, explained_variance_ratio (d,) of the
    total variance: all float32. The largest loading (in magnitude) of a component is positive.
    """

    mean: Float32
    components: Float32
    explained_variance: Float32
    explained_variance_ratio: Float32

    def transform(self, vectors: ArrayLike, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> Float32:
        """Coordinates along the components, (N, D) -> (N, d) float32, read in blocks."""
        n, d = arrays.check_vectors(vectors)
        if d != len(self.mean):
            raise IndexingError(
                f"vectors have {d} dimensions; these components take {len(self.mean)}"
            )
        out = np.empty((n, len(self.components)), np.float32)
        basis = torch.from_numpy(self.components.T.copy())
        with scan.full_float32():
            for start, stop in arrays.spans(n, arrays.rows_in(memory_bytes // 2, 4 * d)):
                centred = as_tensor(arrays.read(vectors, start, stop) - self.mean)
                torch.mm(centred, basis, out=torch.from_numpy(out[start:stop]))
        return out


def pca(
    vectors: ArrayLike,
    dimensions: int,
    seed: int = 0,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> Pca:
    """Find the first principal components of (N, D) vectors, float16 or float32.

    Exact where D <= 8 (dimensions + 16), D <= 4,096 and D <= N; randomized otherwise, in five
    passes over the vectors. memory_bytes bounds the blocks; the thin matrices, about
    8 D (dimensions + 16) bytes each, or the covariance, 8 D^2, come on top.

    Raises IndexingError unless 1 <= dimensions <= min(N - 1, D), and for rows with NaN or infinite
    values, which it names.
    """
    n, d = arrays.check_vectors(vectors)
    if not 1 <= dimensions <= min(n - 1, d):
        raise IndexingError(
            f"{dimensions} components asked of {n} rows x {d} dimensions: "
            f"ask for 1 to {max(1, min(n - 1, d))}"
        )
    blocks = _Blocks(vectors, arrays.rows_in(memory_bytes // 2, 4 * d))
    width = min(d, dimensions + OVERSAMPLING)
    with scan.full_float32():
        if is_exact(n, d, dimensions):
            values, basis = torch.linalg.eigh(blocks.covariance_times(None))
        else:
            generator = torch.Generator().manual_seed(seed)
            basis = torch.randn(d, width, generator=generator, dtype=torch.float64)
            for _ in range(PASSES):
                basis, _ = torch.linalg.qr(blocks.covariance_times(basis))
            values, rotation = torch.linalg.eigh(blocks.covariance_within(basis))
            basis = basis @ rotation
    values = values.flip(0)[:dimensions].clamp(min=0)
    components = basis.flip(1)[:, :dimensions].T
    largest = components.abs().argmax(dim=1, keepdim=True)
    components = components * torch.where(components.gather(1, largest) < 0, -1.0, 1.0)
    variance = values.numpy()
    # All rows equal: there is nothing to explain, and nothing is explained.
    ratio = variance / blocks.variance if blocks.variance > 0 else np.zeros_like(variance)
    return Pca(
        mean=blocks.mean.astype(np.float32),
        components=np.ascontiguousarray(components.numpy(), dtype=np.float32),
        explained_variance=variance.astype(np.float32),
        explained_variance_ratio=ratio.astype(np.float32),
    )


def is_exact(n: int, d: int, dimensions: int) -> bool:
    """Whether `pca` solves the whole covariance for these sizes."""
    return d <= min(EXACT_RATIO * (dimensions + OVERSAMPLING), EXACT_WIDTH, n)


class _Blocks:
    """The rows, centred, block by block; `mean` (D,) and total `variance` in float64."""

    def __init__(self, vectors: ArrayLike, rows: int) -> None:
        self._vectors, self._rows = vectors, rows
        self._n, self._d = vectors.shape
        total: Float64 = np.zeros(self._d)
        for start, stop in arrays.spans(self._n, rows):
            block = arrays.read(vectors, start, stop)
            arrays.check_finite(block, start)
            total += block.sum(axis=0, dtype=np.float64)
        self.mean = total / self._n
        self._shift = torch.from_numpy(self.mean.astype(np.float32))
        # One buffer for all blocks: fresh memory costs as much as the arithmetic on it.
        self._buffer = torch.empty(min(rows, self._n), self._d)
        self.variance = 0.0

    def _centred(self, start: int, stop: int) -> torch.Tensor:
        block = as_tensor(arrays.read(self._vectors, start, stop))
        return torch.sub(block, self._shift, out=self._buffer[: stop - start])

    def covariance_times(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """The covariance (D, D) times a matrix (D, w), or itself for None: float64.

        Products of one block run in float32, sums over blocks in float64.
        """
        width = self._d if matrix is None else matrix.shape[1]
        out = torch.zeros(self._d, width, dtype=torch.float64)
        thin = None if matrix is None else matrix.float()
        variance = 0.0
        for start, stop in arrays.spans(self._n, self._rows):
            block = self._centred(start, stop)
            variance += float(torch.linalg.vector_norm(block, dim=1).double().square().sum())
            out += block.T @ (block if thin is None else block @ thin)
        self.variance = variance / (self._n - 1)
        return out / (self._n - 1)

    def covariance_within(self, basis: torch.Tensor) -> torch.Tensor:
        """The covariance (w, w) along the columns of a basis (D, w): float64."""
        out = torch.zeros(basis.shape[1], basis.shape[1], dtype=torch.float64)
        for start, stop in arrays.spans(self._n, self._rows):
            along = (self._centred(start, stop) @ basis.float()).double()
            out += along.T @ along
        return out / (self._n - 1)
