"""Labels as people write them, made into numbers: shared by the kinds of source."""

import pyarrow as pa
import pyarrow.compute as pc

from fc7.engine.errors import SourceError

_INT32 = 2**31


def labels_from_text(
    spec: str, text: pa.LargeStringArray
) -> tuple[pa.Int32Array, tuple[str, ...] | None]:
    """Number labels given as text: (N,) large_string -> (N,) int32 and the class names, if any.

    If every label is a whole number, the numbers are the labels and there are no names. Otherwise
    each distinct text is a class, numbered in code-point order. Null and "" are unknown labels.

    Raises:
        SourceError: a number that does not fit in 32 bits.
    """
    text = pc.if_else(pc.equal(text, ""), None, text)
    distinct = text.unique().drop_null()
    if pc.all(pc.match_substring_regex(distinct, r"^-?[0-9]{1,18}$")).as_py() is not False:
        return labels_from_numbers(spec, text.cast(pa.int64())), None
    names = distinct.take(pc.sort_indices(distinct))
    labels = pc.index_in(text, value_set=names, skip_nulls=True).cast(pa.int32())
    return labels, tuple(names.to_pylist())


def labels_from_numbers(spec: str, numbers: pa.Array) -> pa.Int32Array:
    """Narrow labels to int32; a negative one, as test sets have it, becomes null: unknown.

    Raises:
        SourceError: a number that does not fit in 32 bits.
    """
    highest = pc.max(numbers).as_py()
    if highest is not None and highest >= _INT32:
        raise SourceError(f"label {highest} in {spec!r} is too large; labels go up to {_INT32 - 1}")
    return pc.if_else(pc.less(numbers, 0), None, numbers).cast(pa.int32())
