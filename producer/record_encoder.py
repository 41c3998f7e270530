"""Encodes CSV rows and posted JSON as records of the stream: bytes and a partition key.

In: a `RowChunk` of `csv_reader`, or one posted object. Out: `PutRecordsEntry` objects for `send_queue`, and a
`Rejection` for each row that cannot be sent. Chunks are checked (`TextColumnChecks`) and encoded column by column in
native loops. A row that may be bad is checked again by `RecordChecks`, which decides.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib

from jobs.schema.checks import RecordChecks
from jobs.schema.column_checks import TextColumnChecks
from jobs.schema.decoded_types import can_name_a_field
from jobs.schema.rejections import NOT_JSON, NOT_UTF8, TOO_LARGE, Rejection
from jobs.schema.table import TableContract
from jobs.schema.values import as_text, is_absent, value_at
from producer.csv_reader import RowChunk, column_values

MALFORMED_ROW = "malformed_row"

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html: 1 to 256 characters.
MAX_KEY_CHARACTERS = 256

_GZIP = 31  # zlib's window bits for a gzip header and trailer
_GZIP_LEVEL = 1
_QUOTE_COMMA = '",'
_encode = msgspec.json.Encoder().encode


class PutRecordsEntry(msgspec.Struct, gc=False, frozen=True):
    """An entry of PutRecords with AWS's field names. msgspec encodes `Data` as base64, as the API requires."""

    Data: bytes
    PartitionKey: str


def size_of(records: Sequence[PutRecordsEntry]) -> int:
    """The size in bytes that AWS's limits count: the data before base64, plus the partition keys."""
    data = sum(len(record.Data) for record in records)
    return data + sum(len(record.PartitionKey.encode()) for record in records)


def partition_key(values: Sequence[str]) -> str:
    """The values joined with "|", as in "Paris|9|5". A key that is longer than AWS allows is replaced by its hash."""
    joined = "|".join(values)
    return _valid_key(joined) if len(joined) > MAX_KEY_CHARACTERS or not joined else joined


def _valid_key(joined: str) -> str:
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest() if joined else "|"


def compressed(record: PutRecordsEntry, limit: int) -> PutRecordsEntry | Rejection:
    """The record with gzip data, for `encoding: gzip`; a Rejection if it then has more than `limit` bytes.

    The data is one gzip member without a time, so that the same record has the same bytes.
    """
    data = bytes(isal_zlib.compress(record.Data, _GZIP_LEVEL, _GZIP))
    return check_size(limit, PutRecordsEntry(data, record.PartitionKey))


class RecordEncoder:
    """Checks and encodes posted objects, one at a time."""

    def __init__(self, contract: TableContract, max_record_bytes: int) -> None:
        self.checks = RecordChecks(contract)
        self._key_locations = contract.key_locations
        self._stream_limit, self._is_gzip = max_record_bytes, contract.encoding == "gzip"
        self._limit = contract.max_record_bytes if self._is_gzip else min(max_record_bytes, contract.max_record_bytes)

    def rejections(self, record: Mapping[str, Any]) -> list[Rejection]:
        """Every reason why the contract rejects the object. The first one is the one that counts."""
        return list(self.checks.rejections(record))

    def encode(self, record: Mapping[str, Any]) -> PutRecordsEntry | Rejection:
        """Encodes the object; a Rejection if it is too large for the stream or nested too deeply. Does not check it."""
        try:
            data = _encode(record)
        except RecursionError:
            return Rejection(NOT_JSON)
        values = ("" if is_absent(value := value_at(record, at)) else as_text(value) for at in self._key_locations)
        encoded = check_size(self._limit, PutRecordsEntry(data, partition_key(list(values))))
        if self._is_gzip and isinstance(encoded, PutRecordsEntry):
            return compressed(encoded, self._stream_limit)
        return encoded


def check_size(limit: int, record: PutRecordsEntry) -> PutRecordsEntry | Rejection:
    """The record, or a Rejection if its data and key have more than `limit` bytes."""
    size = len(record.Data) + len(record.PartitionKey.encode())
    if size > limit:
        return Rejection(TOO_LARGE, value=f"{size} bytes with the partition key; at most {limit} are allowed")
    return record


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """The records and rejections of a chunk's rows.

    `data` and `keys` have an entry for every row. `overrides` replaces some of them, by the row's index in the chunk:
    with another record, a rejection, or None for a blank line.
    """

    data: pa.Array | list[bytes]
    keys: pa.Array | list[str]
    overrides: Mapping[int, PutRecordsEntry | Rejection | None]

    def part(self, start: int, stop: int) -> tuple[list[PutRecordsEntry], list[tuple[int, Rejection]]]:
        """The records of rows `start` up to, not including, `stop`, and (index in the chunk, reason) of the rejected.

        Rows 0 to 499 are `part(0, 500)`. A blank line is in neither list.
        """
        # Creates one request's records at a time, so that they are still in the processor's cache when they are sent.
        records: list[Any] = list(
            map(PutRecordsEntry, _values(self.data, start, stop), _values(self.keys, start, stop))
        )
        rejected: list[tuple[int, Rejection]] = []
        end = start + len(records)
        overridden = [index for index in range(start, end) if index in self.overrides] if self.overrides else []
        for index in overridden:
            records[index - start] = override = self.overrides[index]
            if isinstance(override, Rejection):
                rejected.append((index, override))
        if overridden:
            records = [record for record in records if isinstance(record, PutRecordsEntry)]
        return records, rejected

    def compressed(self, limit: int) -> EncodedChunk:
        """The chunk with gzip data in every record. One that then has more than `limit` bytes is rejected."""
        data, keys = (_values(values, 0, len(values)) for values in (self.data, self.keys))
        overrides = dict(self.overrides)
        for index, (text, key) in enumerate(zip(data, keys, strict=True)):
            record = overrides.get(index) if index in overrides else PutRecordsEntry(text, key)
            if isinstance(record, PutRecordsEntry):
                record = compressed(record, limit)
            if index in overrides or isinstance(record, Rejection):
                overrides[index] = record
            elif record is not None:
                data[index] = record.Data
        return EncodedChunk(data, keys, overrides)

    def record(self, index: int) -> PutRecordsEntry | Rejection | None:
        """What row `index` of the chunk became; None for a blank line."""
        if index in self.overrides:
            return self.overrides[index]
        records, _ = self.part(index, index + 1)
        return records[0]


def _values(values: pa.Array | list[Any], start: int, stop: int) -> list[Any]:
    return values[start:stop] if isinstance(values, list) else column_values(values[start:stop])


class RowEncoder:
    """Checks and encodes the rows of one file.

    `header` and `fields` are the file's; a column of the header wins over a field of that name. `max_record_bytes`
    limits data and partition key together. `check=False` skips the contract; rows with the wrong number of cells, that
    are not UTF-8 or that are too large are still rejected, because they cannot be sent.
    """

    def __init__(
        self,
        contract: TableContract,
        header: Sequence[str],
        fields: Mapping[str, str],
        max_record_bytes: int,
        check: bool = True,
    ) -> None:
        self.width = len(header)
        self._fields = {name: value for name, value in fields.items() if name not in header}
        self._constants = tuple(self._fields.values())
        self._names = (*header, *self._fields)
        self._checks = RecordChecks(contract) if check else None
        self._limit = min(max_record_bytes, contract.max_record_bytes) if check else max_record_bytes
        self._row_type = row_type(self._names)
        at = {name: index for index, name in enumerate(self._names)}
        self._key_at = [at.get(str(place[0])) if len(place) == 1 else None for place in contract.key_locations]
        self._column_checks = TextColumnChecks(self._checks, at) if self._checks else None

    def encode(self, chunk: RowChunk) -> EncodedChunk:
        """Checks and encodes the chunk's rows."""
        try:
            return self._encode_columns(chunk) if chunk.columns is not None else self._encode_rows(chunk.rows)
        except UnicodeEncodeError:
            # A value or a field of the file is not UTF-8.
            return self._encode_one_by_one(chunk.rows)

    def _encode_columns(self, chunk: RowChunk) -> EncodedChunk:
        columns = self._with_fields(chunk.columns or [], chunk.count)
        data = pc.binary_join_element_wise(*self._json(columns[: self.width])).cast(pa.binary())
        # A character of the key is at most 4 bytes of UTF-8.
        large = pc.greater(pc.binary_length(data), self._limit - 4 * MAX_KEY_CHARACTERS)
        overrides = {index: self.encode_row(chunk.cells(index)) for index in self._rows_to_check(columns, large)}
        return EncodedChunk(data, self._keys(columns, chunk.count), overrides)

    def _encode_rows(self, rows: list[list[str]]) -> EncodedChunk:
        if not rows or any(len(row) != self.width for row in rows):
            return self._encode_one_by_one(rows)
        cells = list(zip(*rows, strict=True))
        columns = self._with_fields([pa.array(column, pa.string()) for column in cells], len(rows))
        data = list(map(_encode, map(self._row_type, *cells, *map(itertools.repeat, self._constants))))
        large = pa.array([len(one) + 4 * MAX_KEY_CHARACTERS > self._limit for one in data], pa.bool_())
        overrides = {index: self.encode_row(rows[index]) for index in self._rows_to_check(columns, large)}
        return EncodedChunk(data, self._keys(columns, len(rows)), overrides)

    def _encode_one_by_one(self, rows: list[list[str]]) -> EncodedChunk:
        """For rows that cannot form columns."""
        nothing: list[Any] = [None] * len(rows)
        overrides = {index: self.encode_row(row) if row else None for index, row in enumerate(rows)}
        return EncodedChunk(nothing, nothing, overrides)

    def _with_fields(self, columns: Sequence[pa.Array], count: int) -> list[pa.Array]:
        return [*columns, *(pa.repeat(pa.scalar(value, pa.string()), count) for value in self._constants)]

    def _json(self, columns: Sequence[pa.Array]) -> list[Any]:
        """The parts of each row's JSON, to be joined: names, values that need no escape, and the empty separator."""
        parts: list[Any] = []
        for name, column in zip(self._names, columns, strict=False):
            parts += [f'{"{" if not parts else _QUOTE_COMMA}{_encode(name).decode()}:"', column]
        fields = "".join(f",{_encode(name).decode()}:{_encode(value).decode()}" for name, value in self._fields.items())
        return [*parts, f'"{fields}}}', ""]

    def _keys(self, columns: Sequence[pa.Array], count: int) -> pa.Array | list[str]:
        values = ["" if index is None else columns[index] for index in self._key_at]
        if all(isinstance(value, str) for value in values):
            return [partition_key(values)] * count
        keys = pc.binary_join_element_wise(*values, "|")
        length = pc.utf8_length(keys)
        if pc.min(length).as_py() > 0 and pc.max(length).as_py() <= MAX_KEY_CHARACTERS:
            return keys
        return [_valid_key(key) if len(key) > MAX_KEY_CHARACTERS or not key else key for key in column_values(keys)]

    def _rows_to_check(self, columns: Sequence[pa.Array], large: pa.Array) -> list[int]:
        """The rows that may be too large or that the contract may reject."""
        suspects = None if self._column_checks is None else self._column_checks.suspects(columns)
        return np.flatnonzero(large if suspects is None else pc.or_(large, suspects)).tolist()

    def encode_row(self, row: list[str]) -> PutRecordsEntry | Rejection:
        """Checks and encodes one row by the contract itself."""
        if len(row) != self.width:
            return Rejection(MALFORMED_ROW, value=f"{len(row)} fields; the header has {self.width}")
        values = [*row, *self._constants]
        try:
            data = _encode(self._row_type(*values))
        except UnicodeEncodeError:
            return Rejection(NOT_UTF8)
        key = partition_key(["" if index is None else values[index] for index in self._key_at])
        record = check_size(self._limit, PutRecordsEntry(data, key))
        if isinstance(record, Rejection):
            return record
        if self._checks is not None:
            rejection = self._checks.reject(dict(zip(self._names, values, strict=True)))
            if rejection is not None:
                return rejection
        return record


def row_type(names: Sequence[str]) -> Callable[..., Any]:
    """A struct that encodes as an object with the file's column names, five times as fast as a dict.

    A dict if a name has characters that a struct cannot have.
    """
    if not all(map(can_name_a_field, names)):
        return lambda *values: dict(zip(names, values, strict=True))
    fields = [(f"f{index}", str) for index in range(len(names))]
    rename = {field: name for (field, _), name in zip(fields, names, strict=True)}
    return msgspec.defstruct("Row", fields, rename=rename, gc=False)
