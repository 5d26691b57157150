"""One image file in, its occlusion map out, ready to be drawn.

found = occlude_image("cat.jpg", network)
save_figure(found, Path("map.png"))
"""

from pathlib import Path

import numpy as np

from fc7.engine.attribution.occlusion.figure import OccludedImage
from fc7.engine.attribution.occlusion.job import Occlude, OccludeOptions
from fc7.engine.attribution.occlusion.stored import approximation_words
from fc7.engine.data import MAX_PIXELS
from fc7.engine.drawing.photograph import open_photograph
from fc7.engine.models import Network
from fc7.engine.models.targets import class_name


def occlude_image(
    file: str | Path,
    network: Network,
    options: OccludeOptions | None = None,
    max_pixels: int = MAX_PIXELS,
) -> OccludedImage:
    """Make the occlusion map of one image file.

    Args:
        file: the image.
        network: the network.
        options: how.
        max_pixels: the largest height x width that is decoded.

    Raises:
        SourceError: the file cannot be used.
        OptionError: an option is out of range, or the class is none of the network's.
    """
    options = options or OccludeOptions()
    photograph = open_photograph(file, network, max_pixels)
    job = Occlude(network, photograph.source, options)
    found = job.forward(np.zeros(1, np.int64), [photograph.seen])
    target, predicted = int(found["target"]), int(found["predicted"])
    asked = job.asked
    return OccludedImage(
        photograph.name,
        photograph.picture,
        network.input_size,
        found["drops"][0].cpu().numpy(),
        window=options.window,
        stride=options.stride,
        fill=tuple(asked["fill"]),
        score=options.score,
        target=class_name(network, target),
        probability=float(found["probability"]),
        predicted=class_name(network, predicted),
        approximation=approximation_words(asked["approximation"]),
    )
