"""Which columns of a Parquet file are images and labels, and what the labels are called."""

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fc7.engine.data.labels import labels_from_numbers, labels_from_text
from fc7.engine.errors import SourceError

_IMAGE_NAMES = ("image", "img")
_LABEL, _LABEL_NAME = "label", "label_name"


@dataclass(frozen=True)
class ImageColumn:
    """Where the images are and what is read beside them when the file is opened.

    Attributes:
        name: the column.
        leaf: the encoded images within it, as Parquet names paths: "image" or "image.bytes".
        has_path: whether it is a struct with a text field `path`.
        companions: the columns with labels, label names and paths that there are.
    """

    name: str
    leaf: str
    has_path: bool
    companions: list[str]


def find_image_column(path: str, schema: pa.Schema) -> ImageColumn:
    """Find the images by name and type.

    Raises:
        SourceError: there is no such column; names those there are.
    """
    for name in _IMAGE_NAMES:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        companions = [label for label in (_LABEL, _LABEL_NAME) if label in schema.names]
        if _is_bytes(kind):
            return ImageColumn(name, name, False, companions)
        if pa.types.is_struct(kind):
            fields = {kind.field(at).name: kind.field(at).type for at in range(kind.num_fields)}
            has_path = _is_text(fields.get("path", pa.null()))
            if has_path:
                companions.append(f"{name}.path")
            if _is_bytes(fields.get("bytes", pa.null())):
                return ImageColumn(name, f"{name}.bytes", has_path, companions)
    raise SourceError(
        f"{path!r} has no column 'image' or 'img' of encoded files; it has"
        f" {', '.join(f'{field.name} ({field.type})' for field in schema)}"
    )


def read_labels(spec: str, table: pa.Table) -> tuple[pa.Int32Array | None, tuple[str, ...] | None]:
    """Return the labels, (N,) int32 or None, and the class names where they are known."""
    if _LABEL not in table.column_names:
        return None, None
    column = table.column(_LABEL).combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        return labels_from_text(spec, column.cast(pa.large_string()))
    if not pa.types.is_integer(column.type):
        raise SourceError(
            f"column 'label' of {spec!r} is {column.type}; labels are whole numbers or text"
        )
    labels = labels_from_numbers(spec, column)
    names = _class_label_names(table.schema)
    if names is None and _LABEL_NAME in table.column_names:
        names = _paired_names(labels, table.column(_LABEL_NAME).combine_chunks())
    return labels, names


def _class_label_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Return the names of the ClassLabel that the `datasets` library leaves in the metadata."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"][_LABEL]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if isinstance(names, dict):  # {"0": "cat", "1": "dog"} in what older versions wrote
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(str(name) for name in names) if isinstance(names, list) else None


def _paired_names(labels: pa.Int32Array, names: pa.Array) -> tuple[str, ...] | None:
    """Return each number's name if numbers 0 to n - 1 each have exactly one, all the same rows."""
    if not _is_text(names.type):
        return None
    pairs = pa.table({"label": labels, "name": names}).filter(pc.is_valid(labels))
    distinct = pairs.group_by(["label", "name"]).aggregate([]).sort_by("label")
    if distinct["label"].to_pylist() != list(range(distinct.num_rows)):
        return None
    found = distinct["name"].to_pylist()
    return None if None in found else tuple(found)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
