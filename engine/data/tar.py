"""Tar shards in the WebDataset layout: `key.jpg` beside `key.cls` or `key.json`.

Every member with an image's extension is a row, in the order of the shards, then of the members
within each. Its label is the whole number in the member of the same name that ends in .cls, or
`label` (or `cls`) in the one that ends in .json; nothing else in the tar matters. A key is the
member's name, and with several shards the shard's path, "/" and the member's name.

The archives are read once for their headers, when they are opened: about 8 microseconds a member
and a seek over its content. From then on a row is one pread.
"""

import json
import os
import threading
from array import array
from collections import OrderedDict
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fc7.engine.data.files import text_keys
from fc7.engine.data.folder import is_image_name
from fc7.engine.data.labels import labels_from_numbers
from fc7.engine.data.source import TableSource
from fc7.engine.data.tar_index import Member, tar_members
from fc7.engine.errors import BadImage, SourceError

_OPEN_SHARDS_PER_THREAD = 4
_LABEL_BYTES = 1 << 20
_NAMES_PER_CHUNK = 65_536


class TarSource(TableSource):
    """Rows are members of uncompressed tar archives, reached by offset.

    Args:
        spec: what the person wrote.
        shards: paths of the archives.
        keys: (N,) large_string.
        labels: (N,) int32.
        shard: (N,) int32, the archive of each row.
        offset: (N,) int64, where its content begins, or -1 where it has none of its own (a link).
        size: (N,) int64 bytes.
        max_pixels: the largest height x width that `decode` accepts.
    """

    kind = "tar"

    def __init__(
        self,
        spec: str,
        shards: list[str],
        keys: pa.LargeStringArray,
        labels: pa.Int32Array,
        shard: np.ndarray,
        offset: np.ndarray,
        size: np.ndarray,
        max_pixels: int,
    ) -> None:
        super().__init__(spec, keys, labels, None, max_pixels)
        self._shards = shards
        self._shard, self._offset, self._size = shard, offset, size
        self._files = _OpenFiles()

    def read(self, row: int) -> bytes:
        """Return the content of the member.

        Raises:
            BadImage: "missing" (the shard is gone), "unreadable" (no permission, a failing disk,
                a member that is a link), "truncated" (the shard has become shorter), "empty".
            IndexError: no such row.
        """
        self._check(row)
        offset, size = int(self._offset[row]), int(self._size[row])
        if offset < 0:
            raise BadImage("unreadable", "the member is a link, without content of its own")
        if size == 0:
            raise BadImage("empty", "the member has 0 bytes")
        shard = self._shards[self._shard[row]]
        try:
            data = _pread(self._files.descriptor(shard), size, offset)
        except FileNotFoundError as error:
            raise BadImage("missing", f"{shard!r}: {error.strerror}") from None
        except OSError as error:
            raise BadImage("unreadable", f"{shard!r}: {error.strerror}") from None
        if len(data) < size:
            raise BadImage("truncated", f"{shard!r} has become shorter since it was opened")
        return data

    def _payload_identity(self, start: int, stop: int) -> bytes:
        columns = (self._shard, self._offset, self._size)
        return b"".join(column[start:stop].astype("<i8").tobytes() for column in columns)


def open_tars(spec: str, shards: list[str], max_pixels: int) -> TarSource:
    """Index the archives.

    Raises:
        SourceError: one cannot be read, is no tar, is compressed or cut short; a label is no
            whole number; or there is no image in any.
    """
    columns = _Columns()
    prefixes = _prefixes(shards)
    for number, (path, prefix) in enumerate(zip(shards, prefixes, strict=True)):
        try:
            with open(path, "rb") as file:
                _index_shard(columns, number, prefix, path, file)
        except OSError as error:
            raise SourceError(
                f"cannot read {path!r}: {error.strerror}; make it readable or leave it out"
            ) from None
    if not columns.size:
        raise SourceError(f"no images among the members of {spec!r}; they need names like a.jpg")
    labels = pa.chunked_array(columns.labels).combine_chunks()
    return TarSource(
        spec,
        shards,
        text_keys(columns.name.whole()),
        labels_from_numbers(spec, labels),
        np.frombuffer(columns.shard, np.int32),
        np.frombuffer(columns.offset, np.int64),
        np.frombuffer(columns.size, np.int64),
        max_pixels,
    )


class _Packed:
    """A column of names as it grows: Python objects for the last few thousand only."""

    def __init__(self) -> None:
        self._loose: list[bytes] = []
        self._packed: list[pa.LargeBinaryArray] = []

    def append(self, name: bytes) -> None:
        self._loose.append(name)
        if len(self._loose) == _NAMES_PER_CHUNK:
            self._pack()

    def whole(self) -> pa.LargeBinaryArray:
        self._pack()
        return pa.chunked_array(self._packed).combine_chunks()

    def _pack(self) -> None:
        self._packed.append(pa.array(self._loose, pa.large_binary()))
        self._loose = []


class _Columns:
    """The index of all archives as it grows, a column for each thing known of a row."""

    def __init__(self) -> None:
        self.name = _Packed()
        self.shard, self.offset, self.size = array("i"), array("q"), array("q")
        self.labels: list[pa.Int64Array] = []


def _index_shard(columns: _Columns, shard: int, prefix: bytes, path: str, file: BinaryIO) -> None:
    """Add the images of one archive, each with its label wherever in the archive that stands."""
    image_stems, label_stems, labels = _Packed(), _Packed(), array("q")
    for member in tar_members(file, path):
        name = member.name.rpartition(b"/")[2]
        if is_image_name(name):
            columns.name.append(prefix + member.name)
            columns.shard.append(shard)
            columns.offset.append(member.offset)
            columns.size.append(member.size)
            image_stems.append(_stem(member.name))
        elif name.endswith((b".cls", b".json")) and member.offset >= 0:
            label = _read_label(file.fileno(), member, path)
            if label is not None:
                label_stems.append(_stem(member.name))
                labels.append(label)
    place = pc.index_in(image_stems.whole(), value_set=label_stems.whole())
    columns.labels.append(pa.array(np.frombuffer(labels, np.int64)).take(place))


def _stem(name: bytes) -> bytes:
    """Return the WebDataset key: the path up to the first dot of its last part."""
    folder, slash, last = name.rpartition(b"/")
    return folder + slash + last.split(b".", 1)[0]


def _read_label(descriptor: int, member: Member, path: str) -> int | None:
    """Read a label out of a .cls or .json member; None for a JSON without a whole number."""
    text = _pread(descriptor, min(member.size, _LABEL_BYTES), member.offset)
    if member.name.endswith(b".cls"):
        try:
            return _in_64_bits(int(text))
        except ValueError:
            raise SourceError(
                f"{os.fsdecode(member.name)!r} in {path!r} says {text[:40]!r}, which is no whole"
                " number; number the classes from 0"
            ) from None
    try:
        fields = json.loads(text)
        value = fields.get("label", fields.get("cls")) if isinstance(fields, dict) else None
        return _in_64_bits(value) if type(value) is int else None
    except (ValueError, RecursionError):
        return None  # notes of another kind


def _in_64_bits(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise ValueError(value)
    return value


def _prefixes(shards: list[str]) -> list[bytes]:
    """Return what precedes a member's name in its key: nothing, or the shard's path and "/"."""
    if len(shards) == 1:
        return [b""]
    parent = os.path.commonpath([os.path.dirname(os.path.abspath(shard)) for shard in shards])
    return [
        os.fsencode(os.path.relpath(shard, parent).replace(os.sep, "/")) + b"/" for shard in shards
    ]


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    """Read exactly that many bytes, or fewer where the file ends."""
    data = os.pread(descriptor, size, offset)
    while 0 < len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


class _OpenFiles(threading.local):
    """A few open archives for each thread, so that no thread closes what another reads."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()

    def descriptor(self, path: str) -> int:
        found = self._open.get(path)
        if found is None:
            if len(self._open) == _OPEN_SHARDS_PER_THREAD:
                self._open.popitem(last=False)
            found = self._open[path] = _Descriptor(os.open(path, os.O_RDONLY))
        self._open.move_to_end(path)
        return found.number


class _Descriptor:
    """Closes itself when nobody holds it: with its thread, its source, or its place in the row."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)
