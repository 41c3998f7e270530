"""Parses batches of records: the bytes of each become a row of the contract's typed columns, or a rejection.

A record that fits the contract's types is decoded into a struct natively; the checks are vector operations on columns.
A record with anything unusual (an unknown field, a number for a text, invalid JSON) is read one by one.
`jobs.schema.checks` decides why a record is rejected.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.schema.arrow_values import to_arrow
from jobs.schema.checks import RecordChecks
from jobs.schema.column_checks import mask_of, out_of_bounds, out_of_order, unusable_folders
from jobs.schema.columns import Column, Parse, SourceColumn
from jobs.schema.encoding import gunzip
from jobs.schema.on_fail import FailedValues, OnFailMasks
from jobs.schema.privacy import PrivatePlaces, Salt
from jobs.schema.record_layout import RecordLayout
from jobs.schema.rejections import BAD_PARTITION, FAILED_CHECK, MISSING_FIELD, WITHHELD, WRONG_TYPE, Rejection
from jobs.schema.table import TableContract
from jobs.schema.types import arrow_type
from jobs.schema.value_rules import broken_rules, rule_failures
from jobs.schema.values import as_text, read_object, split_texts


@dataclass(slots=True)
class ParsedRecords:
    """The result for n records.

    columns     n rows of `contract.data_columns`; the row of a rejected record has the fields that could be read
    rejections  index of a record (0 to n - 1): why it is rejected
    rescued     number of good records with fields that the contract does not name
    failed      values that failed a check with `on_fail: null` or `warn`, also those of rejected records
    """

    columns: pa.RecordBatch
    rejections: dict[int, Rejection] = field(default_factory=dict)
    rescued: int = 0
    failed: list[FailedValues] = field(default_factory=list)


class RecordParser:
    """Parses records by a contract. Create one in each process and reuse it; it is immutable and does not pickle.

        parser = RecordParser(load_contract("travel_times.yaml"))
        parsed = parser.parse(pa.array([b'{"City": "Paris", …}', b"not JSON"], pa.binary()))
        parsed.columns.num_rows  # 2, with the columns and types of `parser.schema`
        parsed.rejections        # {1: Rejection("not_json")}

    `schema` has the contract's data columns with their Arrow types, and then the rescued column: a JSON
    object of the fields that the contract does not name, null if there are none.
    """

    def __init__(self, contract: TableContract, salt: Salt | None = None) -> None:
        """`salt`: of `privacy: sha256`; without it these columns are null, for those who need the rejections only."""
        self.contract = contract
        self._salt = salt
        self._hashed = [column.column for column in contract.record_columns if column.privacy == "sha256"]
        self._private = PrivatePlaces(contract.record_columns)
        self.schema = pa.schema([pa.field(name, arrow_type(kind)) for name, kind, _ in contract.data_columns])
        self._checks = RecordChecks(contract)
        self._layout = RecordLayout(contract.record_columns)

    def parse(self, data: pa.BinaryArray) -> ParsedRecords:
        """Parses the bytes of n records, without nulls. A bad record becomes a rejection; it raises no error."""
        rejections: dict[int, Rejection] = {}
        rescued: dict[int, str] = {}
        withheld: dict[str, list[int]] = {}
        unusual: dict[int, list[Any]] = {}
        structs = []
        decode, limit = self._layout.decode, self.contract.max_record_bytes
        records, undecoded = self._texts(data)
        for index, record in enumerate(records):
            if decode is not None and len(record) <= limit:
                try:
                    structs.append(decode(record))
                    continue
                except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                    pass
            structs.append(self._layout.nothing)
            found = read_object(record, limit)
            if isinstance(found, Rejection):
                rejections[index] = found
                continue
            for name in self._private.withhold(found):
                withheld.setdefault(name, []).append(index)
            unusual[index], unknown = self._layout.take_apart(found)
            if unknown:
                rescued[index] = as_text(unknown)
        rejections |= undecoded
        on_fail = OnFailMasks()
        columns, suspects = self._columns(structs, unusual, on_fail)
        for name in self._hashed:
            hashed = self._salt.sha256_of_each(columns[name]) if self._salt else pa.nulls(len(structs), pa.string())
            columns[name] = hashed
        for name, indices in withheld.items():
            on_fail.add(f"{name}.{WITHHELD}", "null", pa.array(np.isin(np.arange(len(structs)), indices)))
        for index in pc.indices_nonzero(suspects).to_pylist():
            if index not in rejections:
                rejections[index] = self._why(data[index].as_py())
        columns[self.contract.rescued_column] = _sparse(rescued, len(structs))
        return ParsedRecords(
            columns=pa.record_batch([columns[name] for name in self.schema.names], schema=self.schema),
            rejections=rejections,
            rescued=sum(1 for index in rescued if index not in rejections),
            failed=on_fail.found,
        )

    def reject(self, data: bytes) -> Rejection | None:
        """Why one record is rejected. None if it becomes a row."""
        return self.parse(pa.array([data], pa.binary())).rejections.get(0)

    def _texts(self, data: pa.BinaryArray) -> tuple[list[bytes], dict[int, Rejection]]:
        """The JSON text of each record, and why some have none: their text is empty."""
        records: list[bytes] = data.to_pylist()
        if self.contract.encoding == "none":
            return records, {}
        found = [gunzip(record, self.contract.max_record_bytes) for record in records]
        undecoded = {index: text for index, text in enumerate(found) if isinstance(text, Rejection)}
        return [text if isinstance(text, bytes) else b"" for text in found], undecoded

    def _why(self, record: bytes) -> Rejection:
        # A suspect record never becomes a row, even if the checks pass it, because its columns may be wrong.
        return self._checks.reject_bytes(record) or Rejection(FAILED_CHECK)

    def _columns(
        self, structs: Sequence[Any], unusual: Mapping[int, list[Any]], on_fail: OnFailMasks
    ) -> tuple[dict[str, pa.Array], pa.Array]:
        """All columns except the rescued one, and a mask of the records that cannot become rows.

        `unusual` has the columns' values of the records whose structs have none.
        """
        columns: dict[str, pa.Array] = {}
        suspects = pa.repeat(pa.scalar(False), len(structs))
        for mask in self._masks(structs, unusual, columns, on_fail):
            suspects = pc.or_(suspects, mask)
        return columns, suspects

    def _masks(
        self,
        structs: Sequence[Any],
        unusual: Mapping[int, list[Any]],
        columns: dict[str, pa.Array],
        on_fail: OnFailMasks,
    ) -> Iterator[pa.Array]:
        """Fills `columns`; yields a mask, without nulls, of the records that fail each check that rejects."""
        for number, column in enumerate(self.contract.record_columns):
            name = column.column
            values = list(map(self._layout.getters[number], structs))
            for index, row in unusual.items():
                values[index] = row[number]
            typed, wrong = to_arrow(values, self._layout.types[number])
            columns[name] = typed
            if column.on_fail != "reject":
                yield from self._tolerant(column, typed, wrong, columns, on_fail)
                continue
            if column.type == "string":
                if column.required or column.default is not None:
                    empty = pc.fill_null(pc.equal(typed, ""), True)
                    if column.required:
                        yield empty
                    else:
                        typed = columns[name] = pc.if_else(empty, column.default, typed)
                if column.parse:
                    parts, unmatched = _split(typed, column.parse, column.longest)
                    columns.update(parts)
                    yield unmatched
                    yield from self._parts(column.parse, columns, on_fail)
            elif column.required and typed.null_count:
                yield pc.is_null(typed)
            if wrong is not None:
                yield wrong
            yield from out_of_bounds(typed, column)
            yield from broken_rules(typed, column)
        for column in self.contract.derived_columns:
            wrong = derive(column, columns, len(structs))
            if wrong is not None:
                yield wrong
        for check in self.contract.checks:
            if check.on_fail == "reject":
                yield from out_of_order(columns, check)
            elif masks := list(out_of_order(columns, check)):
                on_fail.add(f"{check.name}.{FAILED_CHECK}", "warn", functools.reduce(pc.or_, masks))
        for name, kind, _ in self.contract.partition_columns:
            if kind == "string":
                yield self._unusable_folders(name, columns[name])

    def _tolerant(
        self,
        column: SourceColumn,
        typed: pa.Array,
        wrong: pa.Array | None,
        columns: dict[str, pa.Array],
        on_fail: OnFailMasks,
    ) -> Iterator[pa.Array]:
        """`_masks` of one column whose `on_fail` is null or warn."""
        empty = pc.is_null(typed)
        if column.type == "string":
            empty = pc.fill_null(pc.equal(typed, ""), True)
            if column.default is not None:
                typed = pc.if_else(empty, column.default, typed)
        failures = [] if wrong is None else [(WRONG_TYPE, wrong)]
        if column.required:
            absent = empty if wrong is None else pc.and_not(empty, wrong)
            failures.insert(0, (MISSING_FIELD, absent))
        parts: dict[str, pa.Array] = {}
        if column.parse:
            parts, unmatched = _split(typed, column.parse, column.longest)
            failures.append((column.parse.reason, unmatched))
        values, rejected = on_fail.apply(
            column.column, column.on_fail, typed, [*failures, *self._rule_failures(column, typed)]
        )
        yield from rejected
        columns[column.column] = values
        if column.parse:
            gone = pc.is_null(values)
            columns.update({name: pc.if_else(gone, None, part) for name, part in parts.items()})
            yield from self._parts(column.parse, columns, on_fail)

    def _parts(self, parse: Parse, columns: dict[str, pa.Array], on_fail: OnFailMasks) -> Iterator[pa.Array]:
        """`_masks` of the columns of a split text, which are in `columns`."""
        for part in parse.into:
            values = columns[part.column]
            if part.on_fail == "reject":
                yield from broken_rules(values, part)
                continue
            columns[part.column], rejected = on_fail.apply(
                part.column, part.on_fail, values, self._rule_failures(part, values)
            )
            yield from rejected

    def _rule_failures(self, column: Column, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
        """(reason, mask) of the column's bounds, rules and use as a folder."""
        if isinstance(column, SourceColumn):
            for mask in out_of_bounds(values, column):
                yield FAILED_CHECK, mask
        yield from rule_failures(values, column)
        if column.type == "string" and column.column in self.contract.partition_by:
            yield BAD_PARTITION, self._unusable_folders(column.column, values)

    def _unusable_folders(self, name: str, values: pa.Array) -> pa.Array:
        return unusable_folders(name, values, len(self.contract.partition_by))


def derive(column: SourceColumn, columns: dict[str, pa.Array], length: int) -> pa.Array | None:
    """Adds a derived column to `columns`; returns a mask of the values that have no result, None if all have one."""
    transform = column.transformation
    if transform is None or column.from_ is None:
        columns[column.column] = pa.repeat(pa.scalar(column.constant, pa.string()), length)
        return None
    columns[column.column], wrong = transform.to_arrow(columns[column.from_])
    return wrong


def _split(texts: pa.Array, parse: Parse, longest: int | None) -> tuple[dict[str, pa.Array], pa.Array]:
    """The columns of `parse.into`, and a mask of the texts that do not match. Each distinct text is split once.

    An empty text, and one of more than `longest` characters, has no parts and is not in the mask.
    """
    encoded = texts.dictionary_encode()
    distinct = encoded.dictionary
    split = pc.not_equal(distinct, "")
    if longest is not None:
        split = pc.and_(split, pc.less_equal(pc.utf8_length(distinct), longest))
    found = split_texts(parse, pc.if_else(split, distinct, None))
    parts_of = [parts if tried else {} for parts, tried in zip(found, split.to_pylist(), strict=True)]
    columns = {
        part.column: pa.array([(parts or {}).get(part.column) for parts in parts_of], arrow_type(part.type)).take(
            encoded.indices
        )
        for part in parse.into
    }
    return columns, mask_of(encoded, [parts is None for parts in parts_of])


def _sparse(values: dict[int, str], length: int) -> pa.Array:
    """A string column of `length`: null except at the positions of `values`."""
    if not values:
        return pa.nulls(length, pa.string())
    return pa.array([values.get(index) for index in range(length)], pa.string())
