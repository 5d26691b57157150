"""Occlusion sensitivity: maps of what an answer depends on, exact and incremental."""

from fc7.engine.attribution.occlusion.grid import to_pixels
from fc7.engine.attribution.occlusion.maps import Occlusion, occlusion_maps

__all__ = ["Occlusion", "occlusion_maps", "to_pixels"]
