"""Reads the rows of Parquet files as JSON documents, a row group after the other, in constant memory.

In: a file. Out: `JsonChunk`s for `json_encoder`. Decimals are exact numbers, times are ISO 8601 (an instant ends
with Z, a time without a zone has none), binary is base64, nested values are JSON, and NaN and infinities, which JSON
lacks, are the texts "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.common.errors import TerminalError
from jobs.schema.values import as_text
from producer.csv_reader import column_values
from producer.input_files import InputFile
from producer.json_reader import JsonChunk
from producer.record_encoder import row_type

_MAX_ROWS = 1000
_BUFFER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_encode = msgspec.json.Encoder(decimal_format="number").encode


class ParquetReader:
    """An open Parquet file. A context manager that closes it.

    Raises TerminalError if the file cannot be read, has no columns or two of one name, or a column whose type has no
    form in JSON (duration, interval).
    """

    def __init__(self, file: InputFile) -> None:
        self.file = file
        if file.size is None:
            raise TerminalError(f"{file.path}: Parquet is read from a file, not from a pipe; save it first")
        try:
            # Without a buffer each column of a row group would be read whole.
            self._parquet = pq.ParquetFile(file.path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            schema = self._parquet.schema_arrow
        except (OSError, pa.ArrowException) as error:
            raise TerminalError(f"{file.path}: not readable as Parquet: {error}") from error
        self.names: list[str] = schema.names
        faults = [*_faults("", list(schema)), *([] if self.names else ["it has no columns"])]
        if faults:
            self._parquet.close()
            raise TerminalError(f"{file.path}: {'; '.join(faults)}")
        self._row_type = row_type(self.names)

    def __enter__(self) -> ParquetReader:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._parquet.close()

    def chunks(self, skip: int = 0) -> Iterator[JsonChunk]:
        """The file's rows from row `skip` on. Row groups before it are not read."""
        metadata = self._parquet.metadata
        row = 0
        for group in range(metadata.num_row_groups):
            about = metadata.row_group(group)
            if row + about.num_rows <= skip:
                row += about.num_rows
                continue
            most = max(1, min(_MAX_ROWS, about.num_rows * _CHUNK_BYTES // max(1, about.total_byte_size)))
            batches = self._parquet.iter_batches(most, row_groups=[group])
            while (batch := self._next(batches, row)) is not None:
                first = max(row, skip)
                if first < row + batch.num_rows:
                    documents = self._documents(batch.slice(first - row), first)
                    position = (self.file.size or 0) * (first + len(documents)) // metadata.num_rows
                    yield JsonChunk(first, None, position, documents)
                row += batch.num_rows

    def idle(self, seconds: float) -> bool:
        """A file is never idle."""
        return False

    def _next(self, batches: Iterator[pa.RecordBatch], row: int) -> pa.RecordBatch | None:
        try:
            return next(batches, None)
        except (OSError, pa.ArrowException) as error:
            raise TerminalError(
                f"{self.file.path}: not readable from row {row} on (counted from 0): {error}"
            ) from error

    def _documents(self, batch: pa.RecordBatch, first: int) -> list[bytes]:
        columns = []
        for name, column in zip(self.names, batch.columns, strict=True):
            try:
                columns.append(_values(column))
            except (pa.ArrowException, ValueError, OverflowError) as error:
                raise TerminalError(
                    f"{self.file.path}: column {name!r} has no form in JSON in the {batch.num_rows} rows from row "
                    f"{first} on (counted from 0): {error}"
                ) from error
        try:
            return list(map(_encode, map(self._row_type, *columns)))
        except UnicodeEncodeError:
            return [self._document(row) for row in zip(*columns, strict=True)]

    def _document(self, row: Sequence[Any]) -> bytes:
        """The row's document; one with text that is not UTF-8 keeps its bytes, and is rejected for them later."""
        try:
            return _encode(self._row_type(*row))
        except UnicodeEncodeError:
            text = json.dumps(dict(zip(self.names, row, strict=True)), ensure_ascii=False, default=str)
            return text.encode("utf-8", "surrogateescape")


def _faults(where: str, fields: Sequence[pa.Field]) -> Iterator[str]:
    """What is wrong with the names and types of a file's or a struct's fields."""
    names = [field.name for field in fields]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two columns are named {where + name!r}"
    for field in fields:
        kind = field.type
        if pa.types.is_duration(kind) or pa.types.is_interval(kind) or pa.types.is_union(kind):
            yield f"column {where + field.name!r}: {kind} has no form in JSON; cast it before you write the file"
        if kind.num_fields and not pa.types.is_union(kind):
            children = [kind.field(at) for at in range(kind.num_fields)]
            if pa.types.is_map(kind):
                children = [kind.key_field, kind.item_field]
            yield from _faults(f"{where}{field.name}.", children)


def _values(column: pa.Array) -> list[Any]:
    """The column's values, each as msgspec encodes it: text, numbers, lists and dicts; None for null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary_decode())
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType):
        return _values(column.storage)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _texts(column)
    if pa.types.is_floating(kind):
        return _floats(column)
    if pa.types.is_timestamp(kind):
        return _times(column)
    if pa.types.is_time(kind):
        return list(column.cast(pa.string()).to_pylist())
    if pa.types.is_struct(kind):
        names = [kind.field(at).name for at in range(kind.num_fields)]
        rows = zip(*map(_values, column.flatten()), strict=True) if names else [()] * len(column)
        valid = column.is_valid().to_pylist()
        return [dict(zip(names, row, strict=True)) if ok else None for row, ok in zip(rows, valid, strict=True)]
    if pa.types.is_map(kind):
        keys = [key if isinstance(key, str) else as_text(key).strip('"') for key in _values(column.keys)]
        items = _values(column.items)
        return [None if at is None else dict(zip(keys[at], items[at], strict=True)) for at in _slices(column)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        items = _values(column.values)
        return [None if at is None else items[at] for at in _slices(column)]
    if pa.types.is_fixed_size_list(kind):
        return _values(column.cast(pa.list_(kind.value_field)))
    return list(column.to_pylist())


def _texts(column: pa.Array) -> list[Any]:
    try:
        return column_values(column)
    except (UnicodeDecodeError, pa.ArrowException):
        values = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]


def _floats(column: pa.Array) -> list[Any]:
    values = column.to_pylist()
    if pc.all(pc.is_finite(column.cast(pa.float64()))).as_py() is False:
        return [value if value is None or math.isfinite(value) else _NOT_FINITE.get(value, "NaN") for value in values]
    return list(values)


def _times(column: pa.Array) -> list[Any]:
    zone = "Z" if column.type.tz else ""
    utc = column.cast(pa.timestamp(column.type.unit, "UTC")) if zone else column
    texts = pc.strftime(utc, f"%Y-%m-%dT%H:%M:%S{zone}")
    return list(pc.replace_substring_regex(texts, r"\.0+(Z?)$", r"\1").to_pylist())


def _slices(column: pa.Array) -> list[slice | None]:
    """Where each list's items are among the child's values; None for null."""
    ends = itertools.pairwise(column.offsets.to_pylist())
    return [slice(*pair) if ok else None for pair, ok in zip(ends, column.is_valid().to_pylist(), strict=True)]
