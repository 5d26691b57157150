"""From what a person types to the source it means."""

import glob
import os
import re
from pathlib import Path

from fc7.engine.data.decode import MAX_PIXELS
from fc7.engine.data.source import Source
from fc7.engine.errors import SourceError

_KINDS = "a folder, .tar files, .parquet files, a .txt list of paths, or shapes:N:SEED"
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z")


def open_source(spec: str | Path, max_pixels: int = MAX_PIXELS) -> Source:
    """Open a data set.

    Args:
        spec: a folder (`photos/`), one tar or Parquet file or a glob of them (`'data/*.tar'`), a
            text file of paths (`list.txt`), or `shapes:N:SEED`, the built-in images. See the
            modules folder, tar, parquet and paths for the layouts and the order of rows. Of a run
            of images that were made it is `targets:LAYER:UNITS:STARTS`, or
            `facets:LAYER:UNITSxCOUNT`, or `pairs:CONTENT|STYLE`; see the modules targets,
            facet_targets and pairs.
        max_pixels: images with more pixels become bad rows, "too-large".

    Raises:
        SourceError: there is nothing there, or nothing that can be read as images.
        ValueError: max_pixels below 1.
    """
    if max_pixels < 1:
        raise ValueError(f"max_pixels is {max_pixels}; it must be at least 1")
    spec = os.fspath(spec)
    if spec.startswith("shapes:"):
        return _open_shapes(spec, max_pixels)
    if spec.startswith("targets:"):
        from fc7.engine.data.targets import open_targets

        return open_targets(spec)
    if spec.startswith("facets:"):
        from fc7.engine.data.facet_targets import open_facets

        return open_facets(spec)
    if spec.startswith(("pairs:", "mixed:")):
        from fc7.engine.data.pairs import open_pairs

        return open_pairs(spec, max_pixels)
    path = os.path.expanduser(spec)
    if os.path.isdir(path):
        from fc7.engine.data.folder import open_folder

        return open_folder(spec, path, max_pixels)
    # A file whose name has brackets in it is itself before it is a pattern.
    files = [path] if os.path.exists(path) else _matches(spec, path)
    endings = {os.path.splitext(file)[1].lower() for file in files}
    if len(endings) > 1:
        raise SourceError(
            f"{spec!r} matches files of several kinds ({', '.join(sorted(endings))});"
            " narrow the pattern to one"
        )
    return _open_files(spec, files, max_pixels)


def _open_files(spec: str, files: list[str], max_pixels: int) -> Source:
    first = files[0].lower()
    if first.endswith(_PACKED):
        raise SourceError(
            f"{spec!r} is compressed, so its rows cannot be reached one by one; unpack it to a"
            " folder or an uncompressed .tar and pass that"
        )
    if first.endswith(".tar"):
        from fc7.engine.data.tar import open_tars

        return open_tars(spec, files, max_pixels)
    if first.endswith(".parquet"):
        from fc7.engine.data.parquet import open_parquet

        return open_parquet(spec, files, max_pixels)
    if first.endswith(".txt") and len(files) == 1:
        from fc7.engine.data.paths import open_paths

        return open_paths(spec, files[0], max_pixels)
    raise SourceError(f"do not know how to read {spec!r} as data; pass {_KINDS}")


def _matches(spec: str, pattern: str) -> list[str]:
    """Expand a glob, in code-point order: shard-10 comes before shard-9."""
    if not glob.has_magic(pattern):
        raise SourceError(f"there is no {spec!r}; pass {_KINDS}")
    files = sorted(glob.glob(pattern, recursive=True))
    if not files:
        raise SourceError(f"no file matches {spec!r}; check the folder and the ending")
    return files


def _open_shapes(spec: str, max_pixels: int) -> Source:
    found = re.fullmatch(r"shapes:([0-9]{1,18}):([0-9]{1,18})", spec)
    if found is None or int(found[1]) == 0:
        raise SourceError(
            f"{spec!r} is not shapes:N:SEED; write for example shapes:10000:0 for 10,000 images"
        )
    from fc7.engine.data.shapes import ShapesSource

    source: Source = ShapesSource(int(found[1]), int(found[2]))
    source.max_pixels = max_pixels
    return source
