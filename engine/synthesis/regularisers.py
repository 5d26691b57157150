"""What keeps an image from becoming noise: penalties, and operations on images and gradients."""

from fc7.engine.synthesis.gradient_operations import (
    BlurGradients,
    CentreBox,
    CentreGaussian,
    ClipNorm,
    DropSmallGradients,
    GradientOperation,
    UnitMean,
    UnitNorm,
)
from fc7.engine.synthesis.image_operations import (
    Blur,
    Clamp,
    Decay,
    ImageOperation,
    ZeroSmallContribution,
    ZeroSmallGradient,
    ZeroSmallNorm,
)
from fc7.engine.synthesis.penalties import L2, CentreBias, LAlpha, Penalty, TotalVariation

__all__ = [
    "L2",
    "Blur",
    "BlurGradients",
    "CentreBias",
    "CentreBox",
    "CentreGaussian",
    "Clamp",
    "ClipNorm",
    "Decay",
    "DropSmallGradients",
    "GradientOperation",
    "ImageOperation",
    "LAlpha",
    "Penalty",
    "TotalVariation",
    "UnitMean",
    "UnitNorm",
    "ZeroSmallContribution",
    "ZeroSmallGradient",
    "ZeroSmallNorm",
]
