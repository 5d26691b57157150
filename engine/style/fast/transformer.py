"""The network that turns an image into one with a style, in one pass.

Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution"
(ECCV 2016): a 9x9 convolution, two of stride 2, residual blocks, and the way back up, another 9x9.
Where this departs from them: instance normalisation in place of batch normalisation (Ulyanov,
Vedaldi and Lempitsky, 2016); padding by reflection, and nearest neighbours and a convolution in
place of transposed ones, which leave a checkerboard (Dumoulin, Shlens and Kudlur, ICLR 2017); a
sigmoid at the end.

    z = s (x - mean) / sqrt(variance + 1e-5) + b,    by channel, over the places of one image

s and b are all that knows of a style (Dumoulin et al., equation 5): a network of S styles has S
rows of them, and a mixture of styles has the mixture of rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fc7.engine.errors import OptionError

NORMS = ("instance", "batch")
_EPSILON = 1e-5
_MOST_WIDTH, _MOST_BLOCKS = 1024, 64
# What is left of the least side, a quarter, has a neighbour to reflect.
_MULTIPLE, _LEAST = 4, 8


@dataclass(frozen=True)
class Architecture:
    """What a transformer network is made of.

    Attributes:
        width: channels at the image's size; twice as many at half of it, four times at a quarter.
        blocks: residual blocks.
        norm: "instance", or "batch", which knows one style.
        styles: how many.
    """

    width: int = 32
    blocks: int = 5
    norm: str = "instance"
    styles: int = 1

    def check(self) -> None:
        """Raise OptionError where one of them is out of range."""
        for name, value, least, most in (
            ("width", self.width, 1, _MOST_WIDTH),
            ("blocks", self.blocks, 0, _MOST_BLOCKS),
        ):
            if not least <= value <= most:
                raise OptionError(f"{name} is {value}; it is from {least} to {most}")
        if self.norm not in NORMS:
            raise OptionError(f"no norm {self.norm!r}; there are {' and '.join(NORMS)}")
        if self.styles < 1:
            raise OptionError("a network without a style has nothing to do; give an image of one")
        if self.norm == "batch" and self.styles > 1:
            raise OptionError(
                f"batch normalisation knows one style, and there are {self.styles}; take instance"
            )


class Transformer(nn.Module):
    """The network; a fresh one has weights drawn from torch's generator.

    Args:
        architecture: what it is made of.

    Raises:
        OptionError: the architecture is out of range.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        architecture.check()
        self.architecture = architecture
        width = architecture.width
        self.down = nn.ModuleList(
            [
                _Step(architecture, 3, width, 9),
                _Step(architecture, width, 2 * width, 3, stride=2),
                _Step(architecture, 2 * width, 4 * width, 3, stride=2),
            ]
        )
        self.blocks = nn.ModuleList(_Block(architecture) for _ in range(architecture.blocks))
        self.up = nn.ModuleList(
            [
                _Step(architecture, 4 * width, 2 * width, 3),
                _Step(architecture, 2 * width, width, 3),
            ]
        )
        self.last = _padded_convolution(width, 3, 9)

    def forward(self, images: Tensor, mixture: Tensor) -> Tensor:
        """Return images (N, 3, H, W) in [0, 1] in their style, likewise.

        Args:
            images: of any height and width.
            mixture: (N, S), each row's shares of the styles.
        """
        height, width = images.shape[2:]
        x = 2 * _extended(images) - 1
        for step in self.down:
            x = functional.relu(step(x, mixture))
        for block in self.blocks:
            x = block(x, mixture)
        for step in self.up:
            x = functional.relu(step(functional.interpolate(x, scale_factor=2.0), mixture))
        return torch.sigmoid(self.last(x))[:, :, :height, :width]


class InstanceNorm(nn.Module):
    """Instance normalisation by the shares of styles: (N, C, H, W), (N, S) -> (N, C, H, W)."""

    def __init__(self, styles: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(styles, channels))
        self.bias = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, x: Tensor, mixture: Tensor) -> Tensor:
        """Normalise each channel of each image over its places."""
        scale, shift = mixture @ self.weight, mixture @ self.bias
        x = functional.instance_norm(x, eps=_EPSILON)
        return x * scale[:, :, None, None] + shift[:, :, None, None]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation, which leaves the one style's share alone."""

    def forward(self, x: Tensor, mixture: Tensor) -> Tensor:  # type: ignore[override]
        """Normalise each channel over the batch, in training, or by what training has seen."""
        return super().forward(x)


class _Step(nn.Module):
    """A convolution and its normalisation."""

    def __init__(
        self, architecture: Architecture, channels: int, out: int, side: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = _padded_convolution(channels, out, side, stride)
        if architecture.norm == "batch":
            self.norm: nn.Module = BatchNorm(out, eps=_EPSILON)
        else:
            self.norm = InstanceNorm(architecture.styles, out)

    def forward(self, x: Tensor, mixture: Tensor) -> Tensor:
        found: Tensor = self.norm(self.conv(x), mixture)
        return found


class _Block(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), after Gross and Wilber (2016): no ReLU at the end."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width = 4 * architecture.width
        self.first, self.second = (_Step(architecture, width, width, 3) for _ in "ab")

    def forward(self, x: Tensor, mixture: Tensor) -> Tensor:
        found: Tensor = x + self.second(functional.relu(self.first(x, mixture)), mixture)
        return found


def _padded_convolution(channels: int, out: int, side: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, side, stride, side // 2, padding_mode="reflect")


def _extended(images: Tensor) -> Tensor:
    """Return images whose sides are multiples of 4 and at least 8, the last pixels repeated."""
    for axis in (2, 3):
        side = images.shape[axis]
        # Of numbers that an export knows by name only, and ONNX rounds a quotient towards 0.
        whole = torch.sym_max((side + _MULTIPLE - 1) // _MULTIPLE * _MULTIPLE, _LEAST)
        places = torch.arange(whole, device=images.device)
        images = images.index_select(axis, places.clamp(max=side - 1))
    return images
