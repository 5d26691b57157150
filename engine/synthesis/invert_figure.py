"""One image file in, what is left of it behind one layer after the other out, as a picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data import MAX_PIXELS
from fc7.engine.drawing.photograph import open_photograph
from fc7.engine.drawing.sheet import Sheet, enlarged
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.synthesis.invert_job import Invert, InvertJobOptions
from fc7.engine.words import share


@dataclass(frozen=True)
class Found:
    """What one layer keeps of an image.

    Attributes:
        layer: its name.
        picture: uint8 (H, W, 3).
        error: of the features, as a share.
        pixel_error: of the pixels, likewise.
    """

    layer: str
    picture: NDArray[np.uint8]
    error: float
    pixel_error: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {"layer": self.layer, "error": self.error, "pixel_error": self.pixel_error}


def invert_image(
    file: str | Path,
    network: Network,
    layers: list[str],
    options: InvertJobOptions | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Sheet, list[Found]]:
    """Find one image file again from each of some layers, and lay it out beside what was found.

    Raises:
        SourceError: the file cannot be used.
        LayerError: there is no such layer.
        OptionError: an option is out of range, or no layer is named.
    """
    if not layers:
        raise OptionError("from which layer? name one, such as conv5")
    options = options or InvertJobOptions()
    photograph = open_photograph(file, network, max_pixels)
    jobs = [Invert(network, photograph.source, layer, options) for layer in layers]
    found = []
    for job, layer in zip(jobs, layers, strict=True):
        inverted, levels = job.forward([photograph.seen])
        found.append(
            Found(
                network.layer(layer).name,
                np.ascontiguousarray(levels[0].permute(1, 2, 0).cpu().numpy()),
                float(inverted.errors[0]),
                float(inverted.pixel_errors[0]),
            )
        )
    seen = np.ascontiguousarray(photograph.seen.permute(1, 2, 0).numpy())
    panels = [(enlarged(seen, network.input_size), "what the network sees")]
    panels += [
        (
            enlarged(one.picture, network.input_size),
            f"{one.layer}: features {share(one.error)} off, pixels {share(one.pixel_error)}",
        )
        for one in found
    ]
    return (
        Sheet(
            photograph.name,
            network.name,
            "images to which a layer answers as it does to this one",
            panels,
            f"{options.evaluations} evaluations by {options.optimiser}, best of "
            f"{options.starts}; distances are relative",
        ),
        found,
    )
