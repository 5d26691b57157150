"""What each stage will take, told from sizes alone: bytes of memory, bytes on disk, seconds.

Bytes follow from the algorithms and hold within about 20 % (index files within a few percent);
seconds are for planning, from arithmetic at a stated speed and from measured costs per row of
UMAP and t-SNE, and are good within a factor of two or three.
"""

from __future__ import annotations

from dataclasses import dataclass

from fc7.indexing.errors import IndexingError
from fc7.indexing.neighbors import DEFAULT_MEMORY_BYTES
from fc7.indexing.plan import Kind, choose_index, plan_index
from fc7.indexing.principal import DEFAULT_MEMORY_BYTES as PCA_BLOCK_BYTES
from fc7.indexing.principal import OVERSAMPLING, PASSES, is_exact

# float32 operations a second: what a block product reaches on two cores of a server CPU.
CPU_FLOPS = 1e11
# Seconds a row and epoch (UMAP) or iteration (t-SNE), and to start, on one core.
UMAP_SECONDS = 2e-6
UMAP_START_SECONDS = 8.0
TSNE_SECONDS = 4e-6
TSNE_START_SECONDS = 3.0


@dataclass(frozen=True)
class Cost:
    """Working memory at its peak and result on disk, in bytes, and time in seconds."""

    memory_bytes: int
    disk_bytes: int
    seconds: float


def neighbors_cost(
    n: int, d: int, k: int, memory_bytes: int = DEFAULT_MEMORY_BYTES, flops: float = CPU_FLOPS
) -> Cost:
    """Cost of `all_neighbors`: 2 N^2 D operations, the tiles, and the graph of 12 N k bytes."""
    _check(n, d, k)
    tiles = min(memory_bytes * 3 // 4, 8 * n * d)
    return Cost(tiles + 12 * n * k, 12 * n * k, 2 * n * n * d / flops)


def index_cost(
    n: int, d: int, memory_bytes: int, kind: Kind | None = None, flops: float = CPU_FLOPS
) -> Cost:
    """Cost of `build_index`, of the kind that `choose_index` picks when none is given."""
    _check(n, d)
    plan = choose_index(n, d, memory_bytes) if kind is None else plan_index(kind, n, d, "asked for")
    seconds = 2 * n * d / flops
    if plan.lists is not None:
        # k-means for 10 rounds on the sample, then every row finds its list.
        seconds += 2 * d * plan.lists * (10 * min(n, 64 * plan.lists) + n) / flops
    if plan.dimensions is not None:
        seconds += pca_cost(n, d, plan.dimensions, flops).seconds
        seconds += 2 * n * d * plan.dimensions / flops
    return Cost(plan.train_bytes, plan.bytes, seconds)


def pca_cost(n: int, d: int, dimensions: int, flops: float = CPU_FLOPS) -> Cost:
    """Cost of `pca` and of transforming every row."""
    _check(n, d, dimensions)
    width = min(d, dimensions + OVERSAMPLING)
    blocks = min(PCA_BLOCK_BYTES, 8 * n * d)
    result = 4 * n * dimensions
    if is_exact(n, d, dimensions):
        memory, work = 8 * d * d * 3, 2 * n * d * d + 20 * d**3
    else:
        memory, work = 8 * d * width * 3, 2 * n * d * width * (2 * PASSES + 1)
    work += 2 * n * d * dimensions
    return Cost(blocks + memory + result, result + 4 * d * (dimensions + 1), work / flops)


def umap_cost(n: int, d: int, n_neighbors: int = 15, n_epochs: int | None = None) -> Cost:
    """Cost of `umap` on a given graph: about 100 bytes an edge, and two edges a neighbour."""
    _check(n, d, n_neighbors)
    epochs = n_epochs if n_epochs is not None else (500 if n <= 10_000 else 200)
    seconds = UMAP_START_SECONDS + UMAP_SECONDS * n * epochs
    return Cost(_start_bytes(n, d) + 200 * n * n_neighbors, 8 * n, seconds)


def tsne_cost(n: int, d: int, perplexity: float = 30, iterations: int = 500) -> Cost:
    """Cost of `tsne` on a given graph: 3 perplexity neighbours, made symmetric, in float64."""
    _check(n, d, iterations)
    seconds = TSNE_START_SECONDS + TSNE_SECONDS * n * (250 + iterations)
    return Cost(_start_bytes(n, d) + int(100 * n * 3 * perplexity), 8 * n, seconds)


def _start_bytes(n: int, d: int) -> int:
    """Memory of the two principal components that both layouts start from."""
    return pca_cost(n, d, 2).memory_bytes


def _check(*sizes: int) -> None:
    if min(sizes) < 1:
        raise IndexingError(f"sizes {sizes}: all must be positive")
