"""Tensors in, tensors out: each file holds one kernel and its plain float64 reference."""

from fc7.kernels.merge_topk import empty_topk, merge_topk
from fc7.kernels.spatial_max import spatial_max

__all__ = ["empty_topk", "merge_topk", "spatial_max"]
