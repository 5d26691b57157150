"""Where the members of a tar archive lie, without reading what is in them.

Plain headers (POSIX.1-1988 ustar and the older format, all that most archives consist of) are
taken apart here; everything else, such as long names in the GNU and pax (POSIX.1-2001) formats,
is left to the standard library's tarfile, which is several times slower.
"""

import os
import struct
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from fc7.engine.errors import SourceError

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_SUMMED = struct.Struct("148B8x356B")  # all of a header but its checksum
_WHOLE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


class Member(NamedTuple):
    """One file in the archive.

    Attributes:
        name: its path, as bytes.
        offset: where its content begins, or -1 where it has none of its own: a link or a file
            with holes.
        size: bytes of content.
    """

    name: bytes
    offset: int
    size: int


def tar_members(file: BinaryIO, path: str) -> Iterator[Member]:
    """Yield the files and links of an archive in the order in which they stand in it.

    Args:
        file: the archive, opened for reading; its position is moved about.
        path: its name, for messages.

    Raises:
        SourceError: it is no tar archive, is compressed, is damaged, or ends before its end mark.
    """
    descriptor = file.fileno()
    length = os.fstat(descriptor).st_size
    if os.pread(descriptor, 6, 0).startswith(_COMPRESSED):
        raise SourceError(f"{path!r} is compressed; unpack it to a plain .tar and pass that")
    at = 0
    general: tarfile.TarFile | None = None
    while True:
        header = os.pread(descriptor, _BLOCK, at)
        if header == _ZEROS:
            return
        if len(header) < _BLOCK:
            raise _cut_short(path, length)
        member = _plain_member(header, at) if general is None or not general.pax_headers else None
        if member is not None:
            end = member.offset + -(-member.size // _BLOCK) * _BLOCK
            if end > length:
                raise _cut_short(path, length)
            yield member
            at = end
            continue
        if general is None:
            if at == 0 and not _checksum_is_right(header):
                raise SourceError(f"{path!r} is not a tar archive; check what made it")
            general = _general_reader(file, path)
        info, at = _general_member(general, at, path, length)
        if not info.isdir():
            whole = info.type in _WHOLE_TYPES and not info.issparse()
            name = info.name.encode("utf-8", "surrogateescape")
            yield Member(name, info.offset_data if whole else -1, info.size)


def _plain_member(header: bytes, at: int) -> Member | None:
    """Take apart the header of a plain file, or return None for any other."""
    # Type "0" or NUL is a file; a file whose size has the top bit set is above 8 GiB.
    if header[156] not in b"0\0" or header[124] & 0x80 or not _checksum_is_right(header):
        return None
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    if name.endswith(b"/"):  # how folders were written before they had a type
        return None
    try:
        size = int(header[124:136].strip(b" \0") or b"0", 8)
    except ValueError:
        return None
    return Member(name, at + _BLOCK, size)


def _checksum_is_right(header: bytes) -> bool:
    try:
        stated = int(header[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return bool(stated == 256 + sum(_SUMMED.unpack(header)))


def _general_reader(file: BinaryIO, path: str) -> tarfile.TarFile:
    """Make the TarFile that holds what one header says of all that follow."""
    file.seek(0)
    try:
        return tarfile.TarFile(fileobj=file, mode="r", encoding="utf-8")
    except (tarfile.TarError, ValueError, OSError) as error:
        raise _damaged(path, 0, error) from None


def _general_member(
    archive: tarfile.TarFile, at: int, path: str, length: int
) -> tuple[tarfile.TarInfo, int]:
    """Have tarfile read the member whose header is at that place: it, and where the next is."""
    file = cast(BinaryIO, archive.fileobj)
    file.seek(at)
    try:
        # Not archive.next(), which would keep an object for every member it has seen.
        info = tarfile.TarInfo.fromtarfile(archive)
    except (tarfile.TarError, ValueError, OSError) as error:
        if file.tell() >= length:
            raise _cut_short(path, length) from None
        raise _damaged(path, at, error) from None
    after: int = archive.offset
    if after > length:
        raise _cut_short(path, length)
    if after <= at:
        raise _damaged(path, at, "a size below zero")
    return info, after


def _cut_short(path: str, length: int) -> SourceError:
    return SourceError(
        f"{path!r} ends after {length} bytes without a tar's end mark: it was cut short, or its"
        " writer never finished; copy or write it again"
    )


def _damaged(path: str, at: int, error: object) -> SourceError:
    return SourceError(f"{path!r} is damaged at byte {at}: {error}; copy or write it again")
