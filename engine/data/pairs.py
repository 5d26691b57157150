"""Every image of one data set with every image of others: `pairs:photos/|paintings/`.

    row = content * styles + style,    key "tubingen.jpg|starry_night.jpg"

A row's image is its content; whoever pairs asks the source for the style. Or the styles stand
together, `mixed:photos/|night.jpg|scream.jpg`: then a row is a content with all of them, by the key
"tubingen.jpg|night.jpg+scream.jpg". In a spec `|` and `%` of a name are written as in a URL.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from fc7.engine.data.decode import MAX_PIXELS
from fc7.engine.data.files import one_image
from fc7.engine.data.folder import is_image_name
from fc7.engine.data.source import ROW_SCHEMA, Source
from fc7.engine.errors import BadImage, SourceError

_PAIRS, _MIXED = "pairs:", "mixed:"
_MOST_TOGETHER = 64


class PairsSource(Source):
    """Contents by styles. Labels are the contents'.

    Args:
        contents: at least one image.
        styles: at least one source; the images of all of them are the styles, in order.
        together: whether a row has all styles, not one.

    Raises:
        SourceError: there is none, or more than 64 stand together.
    """

    kind = "pairs"

    def __init__(self, contents: Source, styles: Sequence[Source], together: bool = False) -> None:
        self.contents, self.together = contents, together
        self._sources = tuple(styles)
        self._starts = np.cumsum([0, *map(len, styles)])
        if not self.style_count:
            raise SourceError("no style; name an image file, or a folder of them")
        if together and self.style_count > _MOST_TOGETHER:
            raise SourceError(
                f"{self.style_count} styles in one; {_MOST_TOGETHER} at most stand together"
            )
        named = "|".join(_quoted(one.spec) for one in (contents, *styles))
        self.spec = f"{_MIXED if together else _PAIRS}{named}"
        self.label_names = contents.label_names
        self.max_pixels = contents.max_pixels
        self._verdicts: dict[int, BadImage | None] = {}

    @property
    def style_count(self) -> int:
        """How many styles there are."""
        return int(self._starts[-1])

    @property
    def looks(self) -> int:
        """How many rows each content has."""
        return 1 if self.together else self.style_count

    def __len__(self) -> int:
        return len(self.contents) * self.looks

    def styles_of(self, row: int) -> range:
        """Return the numbers of a row's styles; IndexError if there is no such row."""
        self._check(row)
        if self.together:
            return range(self.style_count)
        return range(row % self.looks, row % self.looks + 1)

    def style(self, number: int) -> torch.Tensor:
        """Return a style, uint8 (3, H, W).

        Raises:
            BadImage: it is no whole image; the message names it.
            IndexError: no such style.
        """
        source, row = self._style_row(number)
        try:
            return source.decode(source.read(row))
        except BadImage as error:
            raise BadImage(error.status, f"style {source.key(row)}: {error}") from error

    def style_key(self, number: int) -> str:
        """Return a style's key: of an image named alone its file's name."""
        source, row = self._style_row(number)
        return source.key(row)

    def rows(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Return rows start to stop."""
        start, stop, _ = slice(start, stop).indices(len(self))
        numbers = np.arange(start, max(start, stop))
        if not len(numbers):
            return ROW_SCHEMA.empty_table()
        content = numbers // self.looks
        table = self.contents.rows(int(content[0]), int(content[-1]) + 1)
        own = table.take(pa.array(content - content[0]))
        names = pa.array(self._look_keys, pa.large_string()).take(pa.array(numbers % self.looks))
        joined = pc.binary_join_element_wise(own["key"], names, pa.scalar("|", pa.large_string()))
        return pa.table([joined, own["label"]], schema=ROW_SCHEMA)

    def read(self, row: int) -> bytes:
        """Return the bytes of a row's content.

        Raises:
            BadImage: it cannot be read, or one of the row's styles is no image.
            IndexError: no such row.
        """
        for number in self.styles_of(row):
            bad = self._verdict(number)
            if bad is not None:
                raise BadImage(bad.status, str(bad))
        return self.contents.read(row // self.looks)

    def decode(self, payload: bytes) -> torch.Tensor:
        """Decode a payload of `read`, a content."""
        return self.contents.decode(payload)

    @cached_property
    def _look_keys(self) -> list[str]:
        keys = [self.style_key(number) for number in range(self.style_count)]
        often = Counter(keys)  # of one name in several folders: by its number as well
        keys = [
            key if often[key] == 1 else f"{key} ({number})" for number, key in enumerate(keys, 1)
        ]
        return ["+".join(keys)] if self.together else keys

    def _style_row(self, number: int) -> tuple[Source, int]:
        if not 0 <= number < self.style_count:
            raise IndexError(f"style {number} is outside the {self.style_count} of {self.spec}")
        place = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._sources[place], number - int(self._starts[place])

    def _verdict(self, number: int) -> BadImage | None:
        """Return why a style is bad, or None; found out once."""
        if number not in self._verdicts:
            try:
                self.style(number)
                self._verdicts[number] = None
            except BadImage as error:
                self._verdicts[number] = BadImage(error.status, str(error))
        return self._verdicts[number]

    def _payload_identity(self, start: int, stop: int) -> bytes:
        if start:  # said once for all rows
            return b""
        sources = (self.contents, *self._sources)
        return "\0".join([str(self.together), *map(_identity, sources)]).encode()


def _identity(source: Source) -> str:
    """Return what tells a source from others; of one image by itself, its bytes do."""
    if len(source) > 1:
        return source.digest()
    try:
        return hashlib.sha256(source.read(0)).hexdigest() + source.digest()
    except BadImage:
        return source.digest()


def open_pairs(spec: str, max_pixels: int = MAX_PIXELS) -> PairsSource:
    """Open `pairs:CONTENT|STYLE|STYLE`, or `mixed:` likewise.

    Raises:
        SourceError: it is not written so, or one of them cannot be opened.
    """
    contents, styles, together = names_in(spec)
    return pairs_of(contents, styles, together, max_pixels)


def names_in(spec: str) -> tuple[str, list[str], bool]:
    """Return what names the contents, what names styles, and whether these stand together.

    Raises:
        SourceError: the spec is not written so.
    """
    kind, _, rest = spec.partition(":")
    contents, *styles = map(unquote, rest.split("|"))
    if not (contents and styles and all(styles)):
        raise SourceError(
            f"{spec!r} is not {kind}:CONTENT|STYLE; write for example {kind}:photos/|paintings/"
        )
    return contents, styles, f"{kind}:" == _MIXED


def pairs_of(
    contents: str | Path | Source,
    styles: Sequence[str | Path | Source],
    together: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> PairsSource:
    """Return what pairs contents with styles, each a source, what names one, or an image file.

    Raises:
        SourceError: one of them cannot be opened, or there is no style.
    """
    opened = [_opened(one, max_pixels) for one in (contents, *styles)]
    return PairsSource(opened[0], opened[1:], together)


def _opened(data: str | Path | Source, max_pixels: int) -> Source:
    from fc7.engine.data.open import open_source

    if isinstance(data, Source):
        return data
    path = os.path.expanduser(os.fspath(data))
    if os.path.isdir(path) or not is_image_name(os.fsencode(os.path.basename(path))):
        return open_source(data, max_pixels)
    return one_image(path, max_pixels)[0]


def _quoted(spec: str) -> str:
    return spec.replace("%", "%25").replace("|", "%7C")
