"""One image file in, its occlusion map out, ready to be drawn.

found = occlude_image("cat.jpg", network)
save_figure(found, Path("map.png"))
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fc7.engine.attribution.occlusion.figure import PANEL, OccludedImage
from fc7.engine.attribution.occlusion.job import Occlude, OccludeOptions
from fc7.engine.attribution.occlusion.stored import approximation_words
from fc7.engine.attribution.targets import class_name
from fc7.engine.data import MAX_PIXELS, Transform
from fc7.engine.data.files import FilesSource
from fc7.engine.errors import BadImage, SourceError
from fc7.engine.models import Network


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
    path = Path(file)
    names = pa.array([bytes(path)], pa.large_binary())
    source = FilesSource(str(file), "paths", "", names, None, None, max_pixels)
    try:
        original = source.decode(source.read(0))
        seen = network.transform(original)
    except BadImage as error:
        raise SourceError(f"{file}: {error.status} ({error})") from error
    job = Occlude(network, source, options)
    found = job.forward(np.zeros(1, np.int64), [seen])
    target, predicted = int(found["target"]), int(found["predicted"])
    asked = job.asked
    return OccludedImage(
        path.name,
        _as_seen(original, network.transform, seen),
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


def _as_seen(original: Tensor, transform: Transform, seen: Tensor) -> NDArray[np.uint8]:
    """Return what the network sees of an image, at the image's own resolution where that is finer.

    Args:
        original: uint8 (3, H, W).
        transform: the network's.
        seen: uint8 (3, h, w), what it makes of the image.

    Returns:
        uint8 (h', w', 3), of the proportions of `seen`.
    """
    height, width = original.shape[-2:]
    rows, columns = seen.shape[-2:]
    top, left, bottom, right = transform.to_original((0, 0, rows, columns), height, width)
    corner = transform.to_original((0, 0, 1, 1), height, width)
    is_padded = corner[2] <= corner[0] or corner[3] <= corner[1]
    scale = PANEL / max(rows, columns)
    finer = (bottom - top) > rows and (right - left) > columns
    if is_padded or not finer or scale <= 1:
        return np.ascontiguousarray(seen.permute(1, 2, 0).numpy())
    whole = Image.fromarray(np.ascontiguousarray(original.permute(1, 2, 0).numpy()))
    shape = round(columns * scale), round(rows * scale)
    box = (left, top, right, bottom)
    return np.array(whole.resize(shape, Image.Resampling.LANCZOS, box=box))
