"""A folder of image files, flat or with one folder a class.

Every file below the folder whose extension is in IMAGE_EXTENSIONS is a row; what begins with a
dot is left out, and so is everything else. Rows are in the code-point order of their path
relative to the folder, with "/" between the parts, whatever order the file system has: "10.jpg"
comes before "9.jpg", and "a-b/1.jpg" before "a/1.jpg".

Where at least one image lies in a folder of the first level, the folders of that level are the
classes, numbered in code-point order as torchvision's ImageFolder does, those without an image
included; images beside them have no label. Otherwise the folder is flat and nothing has one.

Symbolic links are followed, to files and to folders, unless a folder leads back into one that it
lies in. A link to nothing is a row all the same, and is reported missing when it is read.
"""

import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from fc7.engine.data.files import FilesSource
from fc7.engine.errors import SourceError

IMAGE_EXTENSIONS = frozenset(
    {
        *(b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".webp", b".gif", b".bmp"),
        *(b".tif", b".tiff", b".ppm", b".pgm", b".pnm", b".jp2", b".avif"),
    }
)
"""File name extensions, in lower case, that are taken for images; upper case is one with it."""

_NAMES_PER_CHUNK = 65_536


def open_folder(spec: str, root: str, max_pixels: int) -> FilesSource:
    """List a folder.

    Raises:
        SourceError: nothing in it looks like an image, or a folder in it cannot be listed.
    """
    chunks = list(_scan(os.fsencode(root)))
    paths = pa.chunked_array(chunks, pa.large_binary())
    if len(paths) == 0:
        raise SourceError(_nothing_found(spec, root))
    # Bytes of UTF-8 sort as their code points do.
    paths = paths.take(pc.sort_indices(paths)).combine_chunks()
    labels, names = _classes(root, paths)
    return FilesSource(spec, "folder", root, paths, labels, names, max_pixels)


def is_image_name(name: bytes) -> bool:
    """Whether a file name is one of an image, by its extension, and not hidden."""
    dot = name.rfind(b".")
    return dot > 0 and name[0] != 0x2E and name[dot:].lower() in IMAGE_EXTENSIONS


def _scan(root: bytes) -> Iterator[pa.LargeBinaryArray]:
    """Yield the relative paths of all images below the root, a few thousand at a time."""
    names: list[bytes] = []
    # Each folder still to be listed, with the identities of those that it lies in.
    folders: list[tuple[bytes, frozenset[tuple[int, int]]]] = [(b"", frozenset())]
    while folders:
        prefix, above = folders.pop()
        try:
            here = os.stat(os.path.join(root, prefix))
            identity = (here.st_dev, here.st_ino)
            if identity in above:
                continue
            with os.scandir(os.path.join(root, prefix)) as entries:
                for entry in entries:
                    if entry.name.startswith(b"."):
                        continue
                    if _is_folder(entry):
                        folders.append((prefix + entry.name + b"/", above | {identity}))
                    elif is_image_name(entry.name) and _is_file_or_dangling(entry):
                        names.append(prefix + entry.name)
                        if len(names) == _NAMES_PER_CHUNK:
                            yield pa.array(names, pa.large_binary())
                            names.clear()
        except OSError as error:
            where = os.fsdecode(os.path.join(root, prefix))
            raise SourceError(
                f"cannot list {where!r}: {error.strerror}; make it readable or move it away"
            ) from None
    yield pa.array(names, pa.large_binary())


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _is_file_or_dangling(entry: "os.DirEntry[bytes]") -> bool:
    """Whether reading the entry is sensible or at least safe: no pipe, socket or device."""
    try:
        return entry.is_file() or entry.is_symlink()
    except OSError:
        return True


def _classes(
    root: str, paths: pa.LargeBinaryArray
) -> tuple[pa.Int32Array | None, tuple[str, ...] | None]:
    """Number the folders of the first level and label the paths with them."""
    parts = pc.split_pattern(paths, b"/", max_splits=1)
    nested = pc.greater(pc.list_value_length(parts), 1)
    first = pc.if_else(nested, pc.list_element(parts, 0), None)
    if first.null_count == len(first):
        return None, None
    with os.scandir(os.fsencode(root)) as entries:
        folders = sorted(
            entry.name for entry in entries if entry.name[0] != 0x2E and _is_folder(entry)
        )
    labels = pc.index_in(first, value_set=pa.array(folders, pa.large_binary()))
    return labels.cast(pa.int32()), tuple(os.fsdecode(name) for name in folders)


def _nothing_found(spec: str, root: str) -> str:
    """Say that the folder holds no image, and what to pass instead where that is plain."""
    with os.scandir(root) as entries:
        endings = {os.path.splitext(entry.name)[1].lower() for entry in entries}
    for ending in (".tar", ".parquet"):
        if ending in endings:
            pattern = os.path.join(root, "*" + ending)
            return f"no images in {spec!r}, but {ending} files; pass {pattern!r} to read those"
    known = " ".join(sorted(os.fsdecode(name) for name in IMAGE_EXTENSIONS))
    return f"no images in {spec!r}; looked at all depths for {known}"
