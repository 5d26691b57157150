"""Vectors in, neighbours and coordinates out.

Exact graphs of all neighbours, indexes, PCA, UMAP, t-SNE, patches of convolutional maps, and the
memory and time each will take. Everything takes array-likes and reads them in blocks. Names load
on first use: importing this package imports neither torch nor FAISS.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fc7.indexing.errors import IndexingError

if TYPE_CHECKING:
    from fc7.indexing.base import Index
    from fc7.indexing.clusters import Clusters, kmeans, silhouette
    from fc7.indexing.exact import Neighbors
    from fc7.indexing.faiss_backend import backend
    from fc7.indexing.index import build_index, open_index
    from fc7.indexing.memory import (
        Cost,
        index_cost,
        neighbors_cost,
        pca_cost,
        tsne_cost,
        umap_cost,
    )
    from fc7.indexing.neighbors import all_neighbors
    from fc7.indexing.patches import PatchHits, PatchIndex, search_direction, similar_patches
    from fc7.indexing.plan import IndexPlan, choose_index
    from fc7.indexing.principal import Pca, pca
    from fc7.indexing.tsne_layout import tsne
    from fc7.indexing.umap_layout import umap

# No module bears the name of a function: importing it would hide the function.
_HOMES = {
    "Clusters": "clusters",
    "Cost": "memory",
    "Index": "base",
    "IndexPlan": "plan",
    "Neighbors": "exact",
    "PatchHits": "patches",
    "PatchIndex": "patches",
    "Pca": "principal",
    "all_neighbors": "neighbors",
    "backend": "faiss_backend",
    "build_index": "index",
    "choose_index": "plan",
    "index_cost": "memory",
    "kmeans": "clusters",
    "neighbors_cost": "memory",
    "open_index": "index",
    "pca": "principal",
    "pca_cost": "memory",
    "search_direction": "patches",
    "silhouette": "clusters",
    "similar_patches": "patches",
    "tsne": "tsne_layout",
    "tsne_cost": "memory",
    "umap": "umap_layout",
    "umap_cost": "memory",
}

__all__ = [
    "Clusters",
    "Cost",
    "Index",
    "IndexPlan",
    "IndexingError",
    "Neighbors",
    "PatchHits",
    "PatchIndex",
    "Pca",
    "all_neighbors",
    "backend",
    "build_index",
    "choose_index",
    "index_cost",
    "kmeans",
    "neighbors_cost",
    "open_index",
    "pca",
    "pca_cost",
    "search_direction",
    "silhouette",
    "similar_patches",
    "tsne",
    "tsne_cost",
    "umap",
    "umap_cost",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
