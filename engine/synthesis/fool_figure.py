"""One image file in, its adversarial twin out, as a picture: both, and what lies between them.

found = fool_file("cat.jpg", network)
save_sheet(figure(found), Path("fooled.png"))
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data import MAX_PIXELS
from fc7.engine.data.tiles import magnified
from fc7.engine.drawing import sheet as sheets
from fc7.engine.drawing.photograph import open_photograph
from fc7.engine.drawing.sheet import Sheet
from fc7.engine.models import Network
from fc7.engine.models.targets import class_name
from fc7.engine.synthesis.fool_job import Fool, FoolOptions, changed
from fc7.engine.words import number, plural, share


@dataclass(frozen=True)
class FooledImage:
    """An adversarial example and what to know of it.

    Attributes:
        key: the image's name.
        size: height and width of what the network sees, in pixels.
        clean: (3, H, W) float32, what the network sees, in [0, 1].
        adversarial: likewise, the changed image.
        columns: numbers by name; see `fc7.engine.synthesis.fool_job`.
        predicted: name of the class that was predicted.
        became: name of the class that is predicted now.
        target: name of the class gone for; untargeted, of the one to be left.
        untargeted: whether it was to be left.
        method: of the attack.
    """

    key: str
    size: tuple[int, int]
    clean: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    columns: dict[str, float]
    predicted: str
    became: str
    target: str
    untargeted: bool
    method: str

    @property
    def success(self) -> bool:
        """Whether the network is fooled."""
        return bool(self.columns["success"])


def fool_file(
    file: str | Path,
    network: Network,
    options: FoolOptions | None = None,
    max_pixels: int = MAX_PIXELS,
) -> FooledImage:
    """Attack one image file.

    Args:
        file: the image.
        network: the network.
        options: how.
        max_pixels: the largest height x width that is decoded.

    Raises:
        SourceError: the file cannot be used.
        OptionError: an option is out of range, or the class is none of the network's.
        QuestionError: nothing flows back to the pixels.
    """
    options = replace(options or FoolOptions(), batch_rows=1)
    photograph = open_photograph(file, network, max_pixels)
    job = Fool(network, photograph.source, options)
    found = next(job.attack([(0, photograph.seen)]))
    columns = {name: float(column[0]) for name, column in found.columns.items()}
    names = {
        name: class_name(network, int(columns[name])) for name in ("predicted", "became", "target")
    }
    return FooledImage(
        photograph.name,
        network.input_size,
        found.clean[0].cpu().numpy(),
        changed(found.clean, found.changes)[0].cpu().numpy(),
        columns,
        untargeted=job.asked["target"] == "untargeted",
        method=options.method,
        **names,
    )


def figure(found: FooledImage) -> Sheet:
    """Lay out the image, the adversarial one and their difference, magnified."""
    difference, factor = magnified(found.adversarial - found.clean)
    pictures = (
        (_pixels(found.clean), f"{found.predicted} {share(found.columns['probability'])}"),
        (_pixels(found.adversarial), f"{found.became} {share(found.columns['certainty'])}"),
        (difference, f"the difference, {number(factor)} times as large"),
    )
    rounded = "it still fools" if found.columns["success_8bit"] else "it fools no longer"
    changes = (
        f"{found.method}: {plural(int(found.columns['evaluations']), 'gradient evaluation')}, "
        f"L2 {number(found.columns['l2'])}, largest change {number(found.columns['linf'])}"
    )
    if found.success:
        changes += f"; rounded to 8 bits, {rounded}"
    return Sheet(
        title=found.became if found.success else found.predicted,
        value=share(found.columns["certainty"]),
        says=_says(found),
        panels=[(sheets.enlarged(pixels, found.size), caption) for pixels, caption in pictures],
        foot=changes,
    )


def _says(found: FooledImage) -> str:
    was = f"{found.key} was {found.predicted}, {share(found.columns['probability'])}"
    if not found.success:
        wanted = "anything else" if found.untargeted else found.target
        return f"{was}; the attack did not make it {wanted}"
    return f"what the network says after the change; {was}"


def _pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return (3, H, W) in [0, 1] as uint8 (H, W, 3)."""
    return np.ascontiguousarray(np.round(image * 255).astype(np.uint8).transpose(1, 2, 0))
