"""The rows table of a run: one Parquet file, written and rewritten in blocks.

Columns: row (int64), key (large_string), label (int32, null where unknown), status
(`unread`, `ok`, or why the image could not be used) and detail (one line for a bad row, else null).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fc7.engine.store.atomic import publish, remove_stale, temporary_beside

if TYPE_CHECKING:
    from fc7.engine.store.run import SourceLike

_BLOCK_ROWS = 1 << 16


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("row", pa.int64()),
            ("key", pa.large_string()),
            ("label", pa.int32()),
            ("status", pa.string()),
            ("detail", pa.string()),
        ]
    )


def write(path: Path, source: "SourceLike") -> None:
    """Write the table of a source whose images nobody has read yet."""
    import pyarrow as pa
    from pyarrow import parquet

    remove_stale(path.parent, path.name)
    schema, temporary = _schema(), temporary_beside(path)
    try:
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for start in range(0, len(source), _BLOCK_ROWS):
                table = source.rows(start, min(start + _BLOCK_ROWS, len(source)))
                count = table.num_rows
                columns = [
                    pa.array(np.arange(start, start + count)),
                    table.column("key").cast(pa.large_string()),
                    table.column("label").cast(pa.int32()),
                    pa.array(["unread"] * count, pa.string()),
                    pa.nulls(count, pa.string()),
                ]
                writer.write_table(pa.table(columns, schema=schema))
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def set_status(path: Path, bad: Mapping[int, tuple[str, str]]) -> None:
    """Mark the rows in `bad` with (status, detail) and every other row as `ok`."""
    import pyarrow as pa
    from pyarrow import parquet

    remove_stale(path.parent, path.name)
    schema, temporary = _schema(), temporary_beside(path)
    try:
        with (
            parquet.ParquetFile(path) as old,
            parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for batch in old.iter_batches(_BLOCK_ROWS):
                rows = batch.column("row").to_pylist()
                status = pa.array([bad[r][0] if r in bad else "ok" for r in rows], pa.string())
                detail = pa.array([bad[r][1] if r in bad else None for r in rows], pa.string())
                columns = [batch.column(name) for name in ("row", "key", "label")]
                writer.write_table(pa.table([*columns, status, detail], schema=schema))
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> Any:
    """Return the whole table as a pyarrow table."""
    from pyarrow import parquet

    return parquet.read_table(path)


def has_status(path: Path, bad: Iterable[int]) -> bool:
    """Say whether every row has been marked, and those in `bad`, no others, as bad."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    status = parquet.read_table(path, columns=["status"]).column("status")
    if pc.any(pc.equal(status, "unread")).as_py():
        return False
    marked = np.flatnonzero(pc.not_equal(status, "ok").to_numpy())
    return marked.tolist() == sorted(bad)


def labels(path: Path) -> NDArray[np.int64]:
    """Return (N,) int64 labels, -1 where unknown."""
    from pyarrow import parquet

    column = parquet.read_table(path, columns=["label"]).column("label").combine_chunks()
    found: NDArray[np.int64] = column.fill_null(-1).to_numpy(zero_copy_only=False)
    return found.astype(np.int64)


def good(path: Path) -> NDArray[np.bool_]:
    """Return (N,) bool: rows with status `ok`, or not read yet."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    status = parquet.read_table(path, columns=["status"]).column("status")
    is_good = pc.or_(pc.equal(status, "ok"), pc.equal(status, "unread"))
    return np.asarray(is_good.to_numpy(zero_copy_only=False), dtype=np.bool_)
