"""Bytes of an image file to a uint8 RGB tensor, or the reason why not."""

import torch

MAX_PIXELS = 100_000_000
"""Images with more pixels than this are refused before they are decoded."""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """Decode an image file to uint8 (3, H, W) in RGB."""
    raise NotImplementedError
