"""One image file in, its mask out, ready to be drawn.

found = segment_file("cat.jpg", network)
save_sheet(figure(found), Path("cut.png"))
save_mask(found.mask, Path("mask.png"))
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fc7.engine.attribution.segmentation.figure import SegmentedImage
from fc7.engine.attribution.segmentation.grabcut import shrunk
from fc7.engine.attribution.segmentation.job import Segment, SegmentOptions
from fc7.engine.attribution.segmentation.masks import encode_mask
from fc7.engine.data import MAX_PIXELS
from fc7.engine.drawing.photograph import open_photograph
from fc7.engine.drawing.sheet import PANEL
from fc7.engine.errors import OptionError
from fc7.engine.models import Network
from fc7.engine.models.targets import class_name
from fc7.engine.store.atomic import publish, temporary_beside


def segment_file(
    file: str | Path,
    network: Network,
    options: SegmentOptions | None = None,
    max_pixels: int = MAX_PIXELS,
) -> SegmentedImage:
    """Make the mask of one image file.

    Args:
        file: the image.
        network: the network.
        options: how.
        max_pixels: the largest height x width that is decoded.

    Raises:
        SourceError: the file cannot be used.
        OptionError: an option is out of range, the class is none of the network's, or OpenCV is
            not installed.
        QuestionError: nothing flows back to the pixels.
    """
    options = options or SegmentOptions()
    photograph = open_photograph(file, network, max_pixels)
    job = Segment(network, photograph.source, options)
    answer = job.forward(np.zeros(1, np.int64), [photograph.seen])
    original = photograph.original
    size = original.shape[-2], original.shape[-1]
    saliency = answer.saliency[0]
    cut = job.cut(original, size, saliency)
    return SegmentedImage(
        photograph.name,
        shrunk(np.ascontiguousarray(original.permute(1, 2, 0).numpy()), 2 * PANEL),
        cut.mask,
        cut.how,
        cut.seeds,
        saliency,
        network.transform.extent(*size),
        options.recipe,
        options.rule,
        target=class_name(network, int(answer.targets[0])),
        probability=float(answer.probability[0]),
        predicted=class_name(network, int(answer.predicted[0])),
    )


def check_mask_name(path: Path) -> None:
    """Raise OptionError where a mask could not be written as it is: PNG alone has single bits."""
    if path.suffix.lower() != ".png":
        raise OptionError(f"{path}: a mask is a PNG file; let its name end with .png")


def save_mask(mask: NDArray[np.bool_], path: Path) -> None:
    """Write a mask as a PNG file of one bit a pixel, white on the object, whole or not at all.

    Raises:
        OptionError: the name does not end with .png.
    """
    check_mask_name(path)
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(encode_mask(mask))
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
