"""Tensors in, tensors out: each file holds one kernel and its plain float64 reference."""

from fc7.kernels.frozen_conv import frozen_conv
from fc7.kernels.guided_relu import guided_relu, guided_relu_
from fc7.kernels.linear import FastLinear, linear
from fc7.kernels.max_pool import max_pool
from fc7.kernels.merge_topk import empty_topk, merge_topk
from fc7.kernels.pixel_lists import Bounds, PixelList, Residual, Slides, pixel_list
from fc7.kernels.spatial_max import spatial_max
from fc7.kernels.strided_conv import strided_conv
from fc7.kernels.window_conv import window_conv
from fc7.kernels.window_max_pool import window_max_pool
from fc7.kernels.winograd_conv import winograd_conv

__all__ = [
    "Bounds",
    "FastLinear",
    "PixelList",
    "Residual",
    "Slides",
    "empty_topk",
    "frozen_conv",
    "guided_relu",
    "guided_relu_",
    "linear",
    "max_pool",
    "merge_topk",
    "pixel_list",
    "spatial_max",
    "strided_conv",
    "window_conv",
    "window_max_pool",
    "winograd_conv",
]
