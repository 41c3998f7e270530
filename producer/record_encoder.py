"""Rows → records of the stream: bytes and partition key. From: `csv_rows`. Next: `queue`.

Rows are checked and written column by column, by loops that run in C; a row with anything unusual in it is checked
by the contract itself (`jobs.schema.checks`), which decides. The quick way may therefore only accept what the slow
way accepts.
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

from jobs.schema.checks import RecordChecks
from jobs.schema.column_checks import TextColumnChecks
from jobs.schema.rejections import NOT_JSON, NOT_UTF8, TOO_LARGE, Rejection
from jobs.schema.table import TableContract
from jobs.schema.values import as_text, is_absent
from producer.csv_reader import CITY_FIELD, Chunk, texts

MALFORMED_ROW = "malformed_row"

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html: 1 to 256 characters.
MAX_KEY_CHARACTERS = 256

_QUOTE_COMMA = '",'
_encode = msgspec.json.Encoder().encode


class Record(msgspec.Struct, gc=False, frozen=True):
    """An entry of PutRecords under AWS's own names; msgspec writes `Data` as base64, as the API wants it."""

    Data: bytes
    PartitionKey: str


def size_of(records: Sequence[Record]) -> int:
    """What the records count against AWS's limits, in bytes: data before base64, and partition keys."""
    data = sum(len(record.Data) for record in records)
    return data + sum(len(record.PartitionKey.encode()) for record in records)


def partition_key(values: Sequence[str]) -> str:
    """The values joined with "|"; hashed where that is longer than AWS allows, so equal values keep equal keys."""
    joined = "|".join(values)
    return _fit(joined) if len(joined) > MAX_KEY_CHARACTERS or not joined else joined


def _fit(joined: str) -> str:
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest() if joined else "|"


class RecordEncoder:
    """Turns one record (field → value), as posted, into a `Record`; the contract is asked first."""

    def __init__(self, contract: TableContract, max_record_bytes: int) -> None:
        self.checks = RecordChecks(contract)
        self._key_fields = contract.stream_partition_key
        self._limit = min(max_record_bytes, contract.max_record_bytes)

    def rejections(self, record: Mapping[str, Any]) -> list[Rejection]:
        """Every reason why the record cannot become a row, the one it is filed under first."""
        return list(self.checks.rejections(record))

    def encode(self, record: Mapping[str, Any]) -> Record | Rejection:
        """The record as it goes to the stream; a Rejection where it is too large, or nested too deep, for it."""
        try:
            data = _encode(record)
        except RecursionError:
            return Rejection(NOT_JSON)
        values = ("" if is_absent(value := record.get(name)) else as_text(value) for name in self._key_fields)
        return _within(self._limit, Record(data, partition_key(list(values))))


def _within(limit: int, record: Record) -> Record | Rejection:
    size = len(record.Data) + len(record.PartitionKey.encode())
    if size > limit:
        return Rejection(TOO_LARGE, value=f"{size} bytes with the partition key; at most {limit} are allowed")
    return record


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of a chunk's rows.

    `data` and `keys` hold every row's record, as Arrow arrays or as lists; `odd` has, by the row's place, what
    stands there instead: another record, why there is none, or None for a blank row.
    """

    data: pa.Array | list[bytes]
    keys: pa.Array | list[str]
    odd: Mapping[int, Record | Rejection | None]

    def part(self, start: int, stop: int) -> tuple[list[Record], list[tuple[int, Rejection]]]:
        """The records of these rows, in order, and (index, why) of those that were rejected."""
        # Made here, a request's worth at a time, so that they are still in the processor's cache when they are sent.
        records: list[Any] = list(map(Record, _texts(self.data, start, stop), _texts(self.keys, start, stop)))
        rejected: list[tuple[int, Rejection]] = []
        places = [index for index in range(start, start + len(records)) if index in self.odd] if self.odd else []
        for index in places:
            records[index - start] = found = self.odd[index]
            if isinstance(found, Rejection):
                rejected.append((index, found))
        if places:
            records = [record for record in records if isinstance(record, Record)]
        return records, rejected


def _texts(values: pa.Array | list[Any], start: int, stop: int) -> list[Any]:
    return values[start:stop] if isinstance(values, list) else texts(values[start:stop])


class RowEncoder:
    """Turns the rows of one file into `Record`s, and says which are rejected and why.

    `header` and `city` are the file's; `max_record_bytes` is the stream's limit of data and key together. With
    `check=False` the contract is not asked: rows that are no rows of the file, not UTF-8 or too large for the
    stream are rejected all the same, because they cannot be sent.
    """

    def __init__(
        self,
        contract: TableContract,
        header: Sequence[str],
        city: str | None,
        max_record_bytes: int,
        check: bool = True,
    ) -> None:
        self.width = len(header)
        self._city = city if CITY_FIELD not in header else None
        self._names = (*header, CITY_FIELD) if self._city is not None else tuple(header)
        self._checks = RecordChecks(contract) if check else None
        self._limit = min(max_record_bytes, contract.max_record_bytes) if check else max_record_bytes
        self._row_type = _row_type(self._names)
        at = {name: index for index, name in enumerate(self._names)}
        self._key_at = [at.get(name) for name in contract.stream_partition_key]
        self._column_checks = TextColumnChecks(self._checks, at) if self._checks else None

    def encode(self, chunk: Chunk) -> Encoded:
        """What becomes of each of the chunk's rows."""
        try:
            return self._encode_columns(chunk) if chunk.columns is not None else self._encode_rows(chunk.rows)
        except UnicodeEncodeError:
            # A text is not UTF-8. Where it is the city's, none of the rows can be sent.
            return self._one_by_one(chunk.rows)

    def _encode_columns(self, chunk: Chunk) -> Encoded:
        columns = self._with_city(chunk.columns or [], chunk.count)
        data = pc.binary_join_element_wise(*self._json(columns[: self.width])).cast(pa.binary())
        # A character of a key is at most 4 bytes of UTF-8.
        large = pc.greater(pc.binary_length(data), self._limit - 4 * MAX_KEY_CHARACTERS)
        odd = {index: self._encode_one(chunk.cells(index)) for index in self._doubtful(columns, large)}
        return Encoded(data, self._keys(columns, chunk.count), odd)

    def _encode_rows(self, rows: list[list[str]]) -> Encoded:
        if not rows or any(len(row) != self.width for row in rows):
            return self._one_by_one(rows)
        cells = list(zip(*rows, strict=True))
        columns = self._with_city([pa.array(column, pa.string()) for column in cells], len(rows))
        city = [] if self._city is None else [itertools.repeat(self._city)]
        data = list(map(_encode, map(self._row_type, *cells, *city)))
        large = pa.array([len(one) + 4 * MAX_KEY_CHARACTERS > self._limit for one in data], pa.bool_())
        odd = {index: self._encode_one(rows[index]) for index in self._doubtful(columns, large)}
        return Encoded(data, self._keys(columns, len(rows)), odd)

    def _one_by_one(self, rows: list[list[str]]) -> Encoded:
        """For rows that make no columns."""
        nothing: list[Any] = [None] * len(rows)
        return Encoded(
            nothing, nothing, {index: self._encode_one(row) if row else None for index, row in enumerate(rows)}
        )

    def _with_city(self, columns: Sequence[pa.Array], count: int) -> list[pa.Array]:
        return [*columns, *([] if self._city is None else [pa.repeat(pa.scalar(self._city, pa.string()), count)])]

    def _json(self, columns: Sequence[pa.Array]) -> list[Any]:
        """What to join for each row's JSON: names, texts that need no escape, and the separator, which is empty."""
        parts: list[Any] = []
        for name, column in zip(self._names, columns, strict=False):
            parts += [f'{"{" if not parts else _QUOTE_COMMA}{_encode(name).decode()}:"', column]
        city = "" if self._city is None else f',"{CITY_FIELD}":{_encode(self._city).decode()}'
        return [*parts, f'"{city}}}', ""]

    def _keys(self, columns: Sequence[pa.Array], count: int) -> pa.Array | list[str]:
        values = ["" if index is None else columns[index] for index in self._key_at]
        if all(isinstance(value, str) for value in values):
            return [partition_key(values)] * count
        keys = pc.binary_join_element_wise(*values, "|")
        length = pc.utf8_length(keys)
        if pc.min(length).as_py() > 0 and pc.max(length).as_py() <= MAX_KEY_CHARACTERS:
            return keys
        return [_fit(key) if len(key) > MAX_KEY_CHARACTERS or not key else key for key in texts(keys)]

    def _doubtful(self, columns: Sequence[pa.Array], large: pa.Array) -> list[int]:
        """The rows that the contract itself has to look at, and those that may be too large."""
        suspects = None if self._column_checks is None else self._column_checks.suspects(columns)
        return np.flatnonzero(large if suspects is None else pc.or_(large, suspects)).tolist()

    def _encode_one(self, row: list[str]) -> Record | Rejection:
        if len(row) != self.width:
            return Rejection(MALFORMED_ROW, value=f"{len(row)} fields where the header has {self.width}")
        values = row if self._city is None else [*row, self._city]
        try:
            data = _encode(self._row_type(*values))
        except UnicodeEncodeError:
            return Rejection(NOT_UTF8)
        key = partition_key(["" if index is None else values[index] for index in self._key_at])
        sized = _within(self._limit, Record(data, key))
        if isinstance(sized, Rejection):
            return sized
        if self._checks is not None:
            rejection = self._checks.reject(dict(zip(self._names, values, strict=True)))
            if rejection is not None:
                return rejection
        return sized


def _row_type(names: Sequence[str]) -> Callable[..., msgspec.Struct]:
    """A struct whose JSON is one object with the file's own column names: five times a dict's speed."""
    fields = [(f"f{index}", str) for index in range(len(names))]
    rename = {field: name for (field, _), name in zip(fields, names, strict=True)}
    return msgspec.defstruct("Row", fields, rename=rename, gc=False)
