"""A text file that names one image file a line.

    cats/0001.jpg
    cats/0002.jpg<TAB>cat

Relative paths start from the folder of the text file. What follows a tab is the row's label: a
number if all of them are numbers, else a class name. Rows are in the order of the lines, the path
as written is the key, and empty lines are not rows. A file that is not there is a bad row, found
when it is read: a list of millions opens without looking at them.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from fc7.engine.data.files import FilesSource, text_keys
from fc7.engine.data.labels import labels_from_text
from fc7.engine.errors import SourceError

_BYTES_PER_CHUNK = 1 << 24


def open_paths(spec: str, list_path: str, max_pixels: int) -> FilesSource:
    """Open a text file of paths.

    Raises:
        SourceError: it cannot be read or names nothing.
    """
    paths: list[pa.LargeBinaryArray] = []
    labels: list[pa.LargeBinaryArray] = []
    try:
        with open(list_path, "rb") as file:
            for lines in _lines(file):
                parts = pc.list_slice(
                    pc.split_pattern(lines, b"\t", max_splits=1), 0, 2, return_fixed_size_list=True
                )
                paths.append(pc.list_element(parts, 0))
                labels.append(pc.list_element(parts, 1))  # null where the line has no tab
    except OSError as error:
        raise SourceError(
            f"cannot read the path list {spec!r}: {error.strerror}; make it readable"
        ) from None
    if not paths:
        raise SourceError(f"the path list {spec!r} names no file; write one path a line")
    text = pc.utf8_trim_whitespace(text_keys(_whole(labels)))
    numbers, names = labels_from_text(spec, text)
    root = os.path.dirname(os.path.abspath(list_path))
    return FilesSource(spec, "paths", root, _whole(paths), numbers, names, max_pixels)


def _lines(file: BinaryIO) -> Iterator[pa.LargeBinaryArray]:
    """Yield the lines that are not empty, some megabytes of them at a time."""
    rest = b""
    first = True
    while True:
        block = file.read(_BYTES_PER_CHUNK)
        if first and block.startswith(b"\xef\xbb\xbf"):  # the mark some editors put first
            block = block[3:]
        first = False
        cut = block.rfind(b"\n") + 1
        if block and cut == 0:
            rest += block
            continue
        whole = (rest + block[:cut]).replace(b"\r\n", b"\n") if block else rest.rstrip(b"\r")
        lines = pc.split_pattern(pa.array([whole], pa.large_binary()), b"\n").flatten()
        lines = lines.filter(pc.greater(pc.binary_length(lines), 0))
        if len(lines):
            yield lines
        if not block:
            return
        rest = block[cut:]


def _whole(chunks: list[pa.LargeBinaryArray]) -> pa.LargeBinaryArray:
    return pa.chunked_array(chunks, pa.large_binary()).combine_chunks()
