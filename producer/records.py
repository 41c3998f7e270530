"""Rows → records of the stream: bytes and partition key. From: `csv_rows`. Next: `outbox`.

A chunk of rows is checked column by column, by loops that run in C; a chunk with anything unusual in it is checked
row by row by the contract itself (`jobs.contract.checks`), which decides. The quick way may therefore only accept
what the slow way accepts.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from jobs.contract.checks import Checks
from jobs.contract.rejects import NOT_JSON, NOT_UTF8, TOO_LARGE, Rejection
from jobs.contract.table import TableContract
from jobs.contract.values import as_text, is_absent
from producer.csv_rows import CITY_FIELD
from producer.quick_check import QuickCheck

MALFORMED_ROW = "malformed_row"

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html: 1 to 256 characters.
MAX_KEY_CHARACTERS = 256

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
        self.checks = Checks(contract)
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
        self._checks = Checks(contract) if check else None
        self._limit = min(max_record_bytes, contract.max_record_bytes) if check else max_record_bytes
        self._row_type = _row_type(self._names)
        at = {name: index for index, name in enumerate(self._names)}
        self._key_at = [at.get(name) for name in contract.stream_partition_key]
        self._quick = QuickCheck(contract, at, self._checks) if self._checks else None

    def encode(self, rows: list[list[str]]) -> tuple[list[Record], list[tuple[int, Rejection]]]:
        """The records of the rows that pass, in order, and (index, why) of those that do not. Blank rows vanish."""
        if all(map(self.width.__eq__, map(len, rows))):
            records = self._encode_all(rows)
            if records is not None:
                return records, []
        return self._encode_each(rows)

    def _encode_all(self, rows: list[list[str]]) -> list[Record] | None:
        """The records of all the rows at once; None where one of them needs a closer look."""
        columns: list[Sequence[str]] = list(zip(*rows, strict=True))
        if self._city is not None:
            columns.append((self._city,) * len(rows))
        if self._quick is not None and not self._quick.passes(columns):
            return None
        keys = self._keys(columns, len(rows))
        try:
            data = list(map(_encode, map(self._row_type, *columns)))
        except UnicodeEncodeError:
            return None
        # A character of a key is at most 4 bytes of UTF-8.
        if max(map(len, data), default=0) + 4 * MAX_KEY_CHARACTERS > self._limit:
            return None
        return list(map(Record, data, keys))

    def _keys(self, columns: Sequence[Sequence[str]], count: int) -> list[str]:
        values = [itertools.repeat("", count) if index is None else columns[index] for index in self._key_at]
        keys = list(map("|".join, zip(*values, strict=True)))
        longest = max(map(len, keys), default=1)
        if longest > MAX_KEY_CHARACTERS or "" in keys:
            return [_fit(key) if len(key) > MAX_KEY_CHARACTERS or not key else key for key in keys]
        return keys

    def _encode_each(self, rows: list[list[str]]) -> tuple[list[Record], list[tuple[int, Rejection]]]:
        records: list[Record] = []
        rejected: list[tuple[int, Rejection]] = []
        for index, row in enumerate(rows):
            if row:
                result = self._encode_one(row)
                if isinstance(result, Rejection):
                    rejected.append((index, result))
                else:
                    records.append(result)
        return records, rejected

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
