"""Parquet files with images in them, in Hugging Face's layout.

The images are a column called `image` or `img`, of encoded files: bytes, or a struct with a field
`bytes`. Labels are a column `label`: whole numbers (a negative one is unknown), whose names are
taken from the ClassLabel in the files' `huggingface` metadata or from a text column `label_name`,
or else text, numbered in code-point order. A key is the struct's `path` if every row has one and
no two are the same, else the file's name, "#" and the row's place in that file. Rows are in the
order of the files, then of the rows within each.

Parquet is read a row group at a time. The last few groups stay in memory, shared by all threads,
so that reading in order decodes each group once.
"""

import os
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fc7.engine.data.group_cache import GroupCache
from fc7.engine.data.parquet_columns import ImageColumn, find_image_column, read_labels
from fc7.engine.data.source import TableSource
from fc7.engine.errors import BadImage, SourceError


class ParquetSource(TableSource):
    """Rows are rows of Parquet files.

    Args:
        spec: what the person wrote.
        files: paths.
        leaf: the images' path within the schema, such as "image.bytes".
        groups: (G, 4) int64: file, row group within it, first row, bytes of the images.
        keys: (N,) large_string.
        labels: (N,) int32 or None.
        label_names: class names by label number.
        max_pixels: the largest height x width that `decode` accepts.
    """

    kind = "parquet"

    def __init__(
        self,
        spec: str,
        files: list[str],
        leaf: str,
        groups: np.ndarray,
        keys: pa.LargeStringArray,
        labels: pa.Int32Array | None,
        label_names: tuple[str, ...] | None,
        max_pixels: int,
    ) -> None:
        super().__init__(spec, keys, labels, label_names, max_pixels)
        self._files, self._leaf, self._groups = files, leaf, groups
        self._first_rows = np.ascontiguousarray(groups[:, 2])
        self._cache = GroupCache(self._load)

    def read(self, row: int) -> bytes:
        """Return the image's bytes.

        Raises:
            BadImage: "missing" (the row holds none, or the file is gone), "unreadable" (no
                permission, a damaged row group), "empty".
            IndexError: no such row.
        """
        self._check(row)
        group = int(np.searchsorted(self._first_rows, row, "right")) - 1
        path = self._files[self._groups[group, 0]]
        try:
            images = self._cache.get(group)
        except FileNotFoundError:
            raise BadImage("missing", f"{path!r} is no longer there") from None
        except (OSError, pa.ArrowException) as error:
            raise BadImage("unreadable", f"{path!r}: {_one_line(error)}") from None
        data: bytes | None = images[row - int(self._first_rows[group])].as_py()
        if data is None:
            raise BadImage("missing", "the row holds no image")
        if not data:
            raise BadImage("empty", "the image has 0 bytes")
        return data

    def _load(self, group: int) -> pa.ChunkedArray:
        """Read the images of one row group: (rows,) binary."""
        number, within = int(self._groups[group, 0]), int(self._groups[group, 1])
        with pq.ParquetFile(self._files[number]) as file:
            # Single-threaded: the callers are the threads.
            table = file.read_row_group(within, columns=[self._leaf], use_threads=False)
        column = table.column(0)
        return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column

    def _payload_identity(self, start: int, stop: int) -> bytes:
        # What is known without reading images: the sizes of the row groups that end here.
        ends = np.append(self._first_rows[1:], len(self))
        return self._groups[(start < ends) & (ends <= stop)].astype("<i8").tobytes()


def open_parquet(spec: str, files: list[str], max_pixels: int) -> ParquetSource:
    """Open Parquet files: read their footers, labels and paths, but no images.

    Raises:
        SourceError: one cannot be read or is no Parquet, there is no image column or no row, or
            the files differ in their columns.
    """
    footers = _Footers()
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                footers.add(path, file)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(
                f"cannot read {path!r} as Parquet: {_one_line(error)};"
                " make it readable or leave it out"
            ) from None
    if footers.rows == 0:
        raise SourceError(f"{spec!r} has no rows; pass Parquet files with images in them")
    assert footers.column is not None
    table = pa.concat_tables(footers.tables)
    labels, names = read_labels(spec, table)
    keys = _paths_as_keys(table, footers.column)
    if keys is None:
        keys = _numbered_keys(files, footers.tables)
    groups = np.array(footers.groups, np.int64)
    return ParquetSource(spec, files, footers.column.leaf, groups, keys, labels, names, max_pixels)


@dataclass
class _Footers:
    """What opening the files has told so far; the first file sets the columns of all."""

    column: ImageColumn | None = None
    groups: list[tuple[int, int, int, int]] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0

    def add(self, path: str, file: pq.ParquetFile) -> None:
        column = find_image_column(path, file.schema_arrow)
        if self.column is None:
            self.column = column
        # The metadata of the first file, where the class names are, is kept by its table.
        table = file.read(columns=column.companions, use_threads=False)
        if column != self.column or (self.tables and table.schema != self.tables[0].schema):
            raise SourceError(
                f"{path!r} has other columns than the files before it; pass files of one data set"
            )
        self.tables.append(table)
        number = len(self.tables) - 1
        for group in range(file.metadata.num_row_groups):
            description = file.metadata.row_group(group)
            if description.num_rows:
                size = _leaf_bytes(description, column.leaf)
                self.groups.append((number, group, self.rows, size))
                self.rows += description.num_rows


def _leaf_bytes(description: pq.RowGroupMetaData, leaf: str) -> int:
    """Return the bytes, before compression, of one column of a row group."""
    columns = (description.column(at) for at in range(description.num_columns))
    size: int = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == leaf)
    return size


def _paths_as_keys(table: pa.Table, column: ImageColumn) -> pa.LargeStringArray | None:
    """Return the paths beside the images where they can be keys: all there, all different."""
    if not column.has_path:
        return None
    paths = pc.struct_field(table.column(column.name), "path").cast(pa.large_string())
    if paths.null_count or pc.count_distinct(paths).as_py() < len(paths):
        return None
    return paths.combine_chunks()


def _numbered_keys(files: list[str], tables: list[pa.Table]) -> pa.LargeStringArray:
    parent = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in files])
    text = pa.large_string()
    pieces = []
    for path, table in zip(files, tables, strict=True):
        name = os.path.relpath(path, parent).replace(os.sep, "/")
        # A file name need not be text, but a key must be.
        name = os.fsencode(name).decode("utf-8", "backslashreplace")
        numbers = pa.array(np.arange(table.num_rows)).cast(text)
        pieces.append(
            pc.binary_join_element_wise(pa.scalar(name, text), numbers, pa.scalar("#", text))
        )
    return pa.chunked_array(pieces, pa.large_string()).combine_chunks()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
