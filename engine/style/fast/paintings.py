"""Images of styles: read, named, and small enough to go along with a network."""

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from fc7.engine.errors import OptionError, SourceError
from fc7.engine.style.fast.stylizer import ALL
from fc7.engine.synthesis.picture_files import as_array, digest_of_picture, read_picture

_PICTURE_SIDE, _PICTURE_QUALITY = 192, 80


@dataclass(frozen=True)
class Painting:
    """An image whose style is learnt.

    Attributes:
        name: the file's, without its folder and ending, in letters, digits, `_` and `-`.
        image: (3, H, W) float32 in [0, 1].
        file: that it was read from.
    """

    name: str
    image: Tensor
    file: str = ""

    @property
    def digest(self) -> str:
        """The SHA-256 of its 256 levels, as hex."""
        return digest_of_picture(self.image)

    @property
    def picture(self) -> bytes:
        """A small WebP file of it."""
        small = Image.fromarray(as_array(self.image))
        small.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=_PICTURE_QUALITY)
        return buffer.getvalue()


def read_paintings(files: Sequence[str | Path], side: int) -> list[Painting]:
    """Read images of styles.

    Args:
        files: of the images; two of one name become `scream` and `scream-2`.
        side: pixels that the longer side has at most.

    Raises:
        OptionError: there is none, or one cannot be used.
    """
    if not files:
        raise OptionError("which style? name an image of it, or several")
    found: list[Painting] = []
    for file in files:
        try:
            image = read_picture(file)
            if max(image.shape[1:]) > side:
                image = read_picture(file, side)
        except SourceError as error:
            raise OptionError(f"the style {error}; name an image file") from error
        taken = {ALL, *(painting.name for painting in found)}
        names = itertools.chain([_name(file)], (f"{_name(file)}-{n}" for n in itertools.count(2)))
        found.append(Painting(next(name for name in names if name not in taken), image, str(file)))
    return found


def _name(file: str | Path) -> str:
    """Return a word that stands for a file, in a command and as a file's name alike."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(file).stem).strip("_-") or "style"
