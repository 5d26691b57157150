"""Rows that are files: shared by folders and lists of paths.

Paths are kept as the bytes that the operating system knows, in one Arrow column, since a file
name on Linux need not be text. The keys are the same buffer seen as text wherever it is text.
"""

import errno
import os
import stat

import numpy as np
import pyarrow as pa
import torch

from fc7.engine.data.decode import MAX_PIXELS
from fc7.engine.data.source import TableSource
from fc7.engine.errors import BadImage, BadStatus, SourceError

_STATUS: dict[int, BadStatus] = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ENAMETOOLONG: "missing",
    errno.ELOOP: "missing",
}

MAX_FILE_BYTES = 1 << 30
"""Files above 1 GiB are not images that anybody meant to list; reading one could end the run."""


class FilesSource(TableSource):
    """Rows are files, each read whole when asked for.

    The digest looks up the size of every file, so it costs one stat a row.

    Args:
        spec: what the person wrote.
        kind: "folder" or "paths".
        root: the folder that relative paths start from.
        paths: (N,) large_binary, relative to the root or absolute.
        labels: (N,) int32 or None.
        label_names: class names by label number.
        max_pixels: the largest height x width that `decode` accepts.
    """

    def __init__(
        self,
        spec: str,
        kind: str,
        root: str,
        paths: pa.LargeBinaryArray,
        labels: pa.Int32Array | None,
        label_names: tuple[str, ...] | None,
        max_pixels: int,
    ) -> None:
        super().__init__(spec, text_keys(paths), labels, label_names, max_pixels)
        self.kind = kind
        self._root = os.fsencode(root)
        self._paths = paths

    def read(self, row: int) -> bytes:
        """Return the bytes of the file.

        Raises:
            BadImage: "missing", "unreadable" (no permission, no plain file, a failing disk),
                "empty" or "too-large" (above 1 GiB).
            IndexError: no such row.
        """
        self._check(row)
        return read_file(self._path(row))

    def _path(self, row: int) -> bytes:
        return os.path.join(self._root, self._paths[row].as_py())

    def _payload_identity(self, start: int, stop: int) -> bytes:
        sizes = np.empty(stop - start, "<i8")
        for at, row in enumerate(range(start, stop)):
            try:
                sizes[at] = os.stat(self._path(row)).st_size
            except (OSError, ValueError):
                sizes[at] = -1
        return sizes.tobytes()


def one_image(
    file: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> tuple[FilesSource, torch.Tensor]:
    """Return an image file as a source of one row, by its name, and the image, uint8 (3, H, W).

    Whoever named the file is at hand to name another.

    Raises:
        SourceError: it cannot be used.
    """
    folder, name = os.path.split(os.fspath(file))
    names = pa.array([os.fsencode(name)], pa.large_binary())
    source = FilesSource(str(file), "paths", folder, names, None, None, max_pixels)
    try:
        return source, source.decode(source.read(0))
    except BadImage as error:
        raise SourceError(f"{file}: {error.status} ({error})") from error


def text_keys(paths: pa.LargeBinaryArray) -> pa.LargeStringArray:
    """Return paths as text: the same buffer where it is UTF-8, else with bad bytes as \\xNN."""
    try:
        return paths.cast(pa.large_string())
    except pa.ArrowInvalid:
        names = (path.as_py().decode("utf-8", "backslashreplace") for path in paths)
        return pa.array(names, pa.large_string())


def read_file(path: bytes) -> bytes:
    """Read a whole file.

    Raises:
        BadImage: as `FilesSource.read` says.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _O_BINARY)
    except (OSError, ValueError) as error:
        raise _bad_file(path, error) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadImage("unreadable", f"{os.fsdecode(path)!r} is not a plain file")
        if found.st_size > MAX_FILE_BYTES:
            raise BadImage("too-large", f"the file has {found.st_size} bytes")
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            data = file.read()
    except OSError as error:
        raise _bad_file(path, error) from None
    finally:
        os.close(descriptor)
    if not data:
        raise BadImage("empty", "the file has 0 bytes")
    return data


_O_BINARY: int = getattr(os, "O_BINARY", 0)


def _bad_file(path: bytes, error: OSError | ValueError) -> BadImage:
    """Turn the operating system's refusal into a verdict on the row."""
    # A ValueError is a path with a zero byte in it, which no file system has.
    status = (
        _STATUS.get(error.errno or 0, "unreadable") if isinstance(error, OSError) else "missing"
    )
    reason = error.strerror if isinstance(error, OSError) else "no file can have this name"
    return BadImage(status, f"{os.fsdecode(path)!r}: {reason}")
