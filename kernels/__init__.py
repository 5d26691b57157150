"""Tensors in, tensors out: each file holds one kernel and its plain float64 reference."""

from fc7.kernels.linear import FastLinear, linear
from fc7.kernels.merge_topk import empty_topk, merge_topk
from fc7.kernels.spatial_max import spatial_max

__all__ = ["FastLinear", "empty_topk", "linear", "merge_topk", "spatial_max"]
