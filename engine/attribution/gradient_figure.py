"""One image file in, its map of gradients out, as a picture: image, map and the two together.

found = saliency_of_image("cat.jpg", network)
save_sheet(figure(found), Path("map.png"))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc7.engine.attribution.colours import hexadecimal, table
from fc7.engine.attribution.gradient_jobs import (
    GuidedOptions,
    SaliencyOptions,
    guided_job,
    saliency_job,
)
from fc7.engine.attribution.gradient_pictures import drawn, over_image, peak_of
from fc7.engine.attribution.pixel_maps import PixelMaps
from fc7.engine.data import MAX_PIXELS
from fc7.engine.drawing import sheet as sheets
from fc7.engine.drawing.photograph import open_photograph
from fc7.engine.drawing.sheet import Scale, Sheet
from fc7.engine.models import Network
from fc7.engine.models.targets import class_name
from fc7.engine.words import number, share


@dataclass(frozen=True)
class MappedImage:
    """A map of gradients and what to know of it.

    Attributes:
        key: the image's name.
        picture: uint8 (h, w, 3), what the network sees, perhaps at a higher resolution.
        size: height and width of what the network sees, in pixels.
        maps: (H, W) or (3, H, W) float32.
        columns: the numbers beside it; see `fc7.engine.attribution.makers`.
        asked: how it was made, as the job says.
        target: name of the class that is asked about; None of a layer's unit.
        predicted: name of the class that the network predicts; likewise.
    """

    key: str
    picture: NDArray[np.uint8]
    size: tuple[int, int]
    maps: NDArray[np.float32]
    columns: dict[str, float]
    asked: dict[str, Any]
    target: str | None
    predicted: str | None


def saliency_of_image(
    file: str | Path,
    network: Network,
    options: SaliencyOptions | None = None,
    max_pixels: int = MAX_PIXELS,
) -> MappedImage:
    """Make the saliency map of one image file.

    Raises:
        SourceError: the file cannot be used.
        OptionError: an option is out of range, or the class is none of the network's.
    """
    photograph = open_photograph(file, network, max_pixels)
    job = saliency_job(network, photograph.source, options or SaliencyOptions())
    return _made(photograph.name, photograph.picture, photograph.seen, job, network)


def guided_of_image(
    file: str | Path,
    network: Network,
    options: GuidedOptions | None = None,
    max_pixels: int = MAX_PIXELS,
) -> MappedImage:
    """Make the guided gradient of one image file; errors as for `saliency_of_image`."""
    photograph = open_photograph(file, network, max_pixels)
    job = guided_job(network, photograph.source, options or GuidedOptions())
    return _made(photograph.name, photograph.picture, photograph.seen, job, network)


def _made(
    key: str, picture: NDArray[np.uint8], seen: Any, job: PixelMaps, network: Network
) -> MappedImage:
    maps, columns = job.forward(np.zeros(1, np.int64), [seen])
    numbers = {name: float(column[0]) for name, column in columns.items()}
    names = {
        name: class_name(network, int(numbers[name])) if name in numbers else None
        for name in ("target", "predicted")
    }
    return MappedImage(
        key, picture, network.input_size, maps[0].cpu().numpy(), numbers, job.asked, **names
    )


def figure(found: MappedImage) -> Sheet:
    """Lay out image, map and overlay; of a map with one number a pixel its scale too."""
    photograph = sheets.enlarged(found.picture, found.size)
    over = Image.fromarray(over_image(np.asarray(photograph), found.maps))
    few = max(found.size) <= sheets.PANEL // 2
    way = Image.Resampling.NEAREST if few else Image.Resampling.BILINEAR
    panel = Image.fromarray(drawn(found.maps)).resize(photograph.size, way)
    title, value, says = _head(found)
    return Sheet(
        title,
        value,
        says,
        panels=[(photograph, found.key), (panel, what(found.asked)), (over, "the two together")],
        foot=how(found.asked),
        scale=None if found.maps.ndim == 3 else _scale(found.maps),
    )


def what(asked: Mapping[str, Any]) -> str:
    """Say in a few words what a map shows."""
    if "method" in asked:
        return {
            "saliency": "largest gradient of the logit by a pixel",
            "gradient": "gradient of the logit, in its own colours",
            "gradient-x-input": "gradient x input",
            "smoothgrad": "SmoothGrad",
            "integrated-gradients": "integrated gradients",
            "cam": "class activation map",
        }[asked["method"]]
    name = {"guided": "guided", "plain": "plain", "deconv": "deconvnet's"}[asked["rule"]]
    return f"{name} gradient, in its own colours"


def how(asked: Mapping[str, Any]) -> str:
    """Say how a map was made."""
    said = {
        "saliency": "absolute, the largest of a pixel's three colours",
        "gradient": "grey is zero",
        "gradient-x-input": "a pixel's share in the logit, its colours added up",
        "smoothgrad": f"mean of {asked.get('samples')} noisy copies, absolute, the largest colour",
        "integrated-gradients": f"a pixel's share in the logit, over {asked.get('steps')} steps",
        "cam": "each place's share in the logit",
    }
    text = said[asked["method"]] if "method" in asked else "grey is zero"
    if "baseline" in asked:
        text += f", measured from {hexadecimal(asked['baseline'])}"
    return f"{text}; the scale ends where 99 % of the map lies below"


def unit_name(asked: Mapping[str, Any]) -> str:
    """Return a unit as people write it: conv5 17, or conv5 17 at (5, 8)."""
    unit = asked["unit"]
    if isinstance(unit, list):
        return f"{asked['layer']} {unit[0]} at ({unit[1]}, {unit[2]})"
    return f"{asked['layer']} {unit}"


def _head(found: MappedImage) -> tuple[str, str, str]:
    if found.target is None:
        value = number(found.columns["value"])
        return unit_name(found.asked), value, "what the unit answers, and what speaks for it"
    says = "the predicted class"
    if found.predicted != found.target:
        says = f"was asked for; the predicted class is {found.predicted}"
    return found.target, share(found.columns["probability"]), says


def _scale(maps: NDArray[np.float32]) -> Scale:
    """Return the scale from the largest value, at the top, to 0 or to as far below it."""
    peak = peak_of(maps)
    colours = table()[::-1]
    if (maps >= 0).all():
        return Scale(colours[: len(colours) // 2 + 1], [(0, f"{number(peak)}"), (1, "0")])
    ticks = [(0.0, f"+{number(peak)}"), (0.5, "0"), (1.0, f"-{number(peak)}")]
    words = [(0.25, "speaks\nfor it"), (0.75, "speaks\nagainst it")]
    return Scale(colours, ticks, words)
