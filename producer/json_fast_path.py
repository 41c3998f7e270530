"""Parses JSON lines of flat objects into columns of text with Arrow, for `json_encoder`.

In: documents, each one JSON object on a line. Out: a column for each field that is asked for, or None if any document
is unusual: a field that is not asked for, a type other than the first document's, a number with a fraction, text that
is not UTF-8. `json_encoder` then reads the documents one by one. A document that msgspec refuses is always unusual.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

# A NUL ends Arrow's parser. An escape such as \u0041 may spell a field's name in another way.
_ESCAPED_NAME = re.compile(rb'\\u00[0-7][0-9a-fA-F](?:[^"\\]|\\.)*"[ \t\r]*:')
_read = msgspec.json.Decoder(dict[str, str | int | None]).decode


def read_columns(documents: Sequence[bytes], names: Sequence[str]) -> Mapping[str, pa.Array] | None:
    """The columns (string arrays, with null for null) of the fields that occur, by name; None if a document is unusual.

    Integers are their decimal text. A field that no document has is not in the result.
    """
    try:
        first = _read(documents[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
        return None
    block = b"\n".join(documents)
    # A line that starts and ends with a brace has whole objects only. As many rows as lines: one object each.
    if block.count(b"}\n{") != len(documents) - 1 or b"\0" in block:
        return None
    if b"\\u00" in block and _ESCAPED_NAME.search(block):
        return None
    kinds = {name: pa.int64() if isinstance(first.get(name), int) else pa.string() for name in names}
    try:
        table = pa.json.read_json(
            pa.BufferReader(block),
            pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            pa.json.ParseOptions(explicit_schema=pa.schema(kinds), unexpected_field_behavior="error"),
        )
        if table.num_rows != len(documents):
            return None
        # Names are known to be UTF-8, and values are validated here, faster than by decoding the block.
        table.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError):
        # UnicodeDecodeError: Arrow quotes an unknown name in its error.
        return None
    columns = {name: _one_chunk(table[name]) for name in names}
    return {
        name: column if pa.types.is_string(column.type) else pc.cast(column, pa.string())
        for name, column in columns.items()
        if column.null_count < len(documents)
    }


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
