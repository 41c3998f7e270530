"""Parses batches of records: the bytes of each become a row of the contract's typed columns, or a rejection.

A record that fits the contract's types is decoded into a struct natively; the checks are vector operations on columns.
A record with anything unusual (an unknown field, a number for a text, invalid JSON) is read one by one.
`jobs.schema.checks` decides why a record is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from jobs.schema.checks import RecordChecks
from jobs.schema.column_checks import (
    mask_of,
    out_of_bounds,
    out_of_order,
    unusable_folders,
    without_zero_fractions,
)
from jobs.schema.rejections import FAILED_CHECK, Rejection
from jobs.schema.table import ColumnType, Parse, TableContract
from jobs.schema.value_rules import broken_rules
from jobs.schema.values import as_text, integer_or_text, is_absent, read_object, read_value, split_texts

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
_INTEGERS = ("int", "long")
# The types that the struct accepts for a field. A record with any other type is read one by one. An integer column
# accepts any type, because msgspec calls `float_hook`, which makes 446.0 an integer, only for fields of any type.
_FAST_TYPES: dict[str, Any] = {
    "int": Any,
    "long": Any,
    "double": float | str | None,
    "boolean": bool | str | None,
}
# The type that is kept as it is; any other becomes text.
_KEPT_TYPES = {"int": int, "long": int, "double": int, "boolean": bool}
_NO_ARROW_VALUE = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)


@dataclass(slots=True)
class ParsedRecords:
    """The result for n records.

    columns     n rows of `contract.data_columns`; the row of a rejected record has the fields that could be read
    rejections  index of a record (0 to n - 1): why it is rejected
    rescued     number of good records with fields that the contract does not name
    """

    columns: pa.RecordBatch
    rejections: dict[int, Rejection] = field(default_factory=dict)
    rescued: int = 0


class RecordParser:
    """Parses records by a contract. Create one in each process and reuse it; it is immutable and does not pickle.

        parser = RecordParser(load_contract("travel_times.yaml"))
        parsed = parser.parse(pa.array([b'{"City": "Paris", …}', b"not JSON"], pa.binary()))
        parsed.columns.num_rows  # 2, with the columns and types of `parser.schema`
        parsed.rejections        # {1: Rejection("not_json")}

    `schema` has the contract's data columns with their Arrow types (ARROW_TYPES), and then the rescued column: a JSON
    object of the fields that the contract does not name, null if there are none.
    """

    def __init__(self, contract: TableContract) -> None:
        self.contract = contract
        self.schema = pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind, _ in contract.data_columns])
        self._checks = RecordChecks(contract)
        # The struct's fields are named by position, because a column may have a Python keyword as its name.
        self._names = names = [f"c{number}" for number in range(len(contract.columns))]
        self._struct = msgspec.defstruct(
            "Record",
            [
                (name, _FAST_TYPES.get(column.type, str | None), None)
                for name, column in zip(names, contract.columns, strict=True)
            ],
            rename={name: column.source for name, column in zip(names, contract.columns, strict=True)},
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decode = msgspec.json.Decoder(self._struct, float_hook=integer_or_text).decode
        self._nothing = self._struct()
        self._field_of = {
            column.source: (name, column.type) for name, column in zip(names, contract.columns, strict=True)
        }

    def parse(self, data: pa.BinaryArray) -> ParsedRecords:
        """Parses the bytes of n records, without nulls. A bad record becomes a rejection; it raises no error."""
        rejections: dict[int, Rejection] = {}
        rescued: dict[int, str] = {}
        structs = []
        decode, limit = self._decode, self.contract.max_record_bytes
        for index, record in enumerate(data.to_pylist()):
            try:
                structs.append(
                    decode(record) if len(record) <= limit else self._read_unusual(index, record, rejections, rescued)
                )
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                structs.append(self._read_unusual(index, record, rejections, rescued))
        columns, suspects = self._columns(structs)
        for index in pc.indices_nonzero(suspects).to_pylist():
            if index not in rejections:
                rejections[index] = self._why(data[index].as_py())
        columns[self.contract.rescued_column] = _sparse(rescued, len(structs))
        return ParsedRecords(
            columns=pa.record_batch([columns[name] for name in self.schema.names], schema=self.schema),
            rejections=rejections,
            rescued=sum(1 for index in rescued if index not in rejections),
        )

    def reject(self, data: bytes) -> Rejection | None:
        """Why one record is rejected. None if it becomes a row."""
        return self.parse(pa.array([data], pa.binary())).rejections.get(0)

    def _why(self, record: bytes) -> Rejection:
        # A suspect record never becomes a row, even if the checks pass it, because its columns may be wrong.
        return self._checks.reject_bytes(record) or Rejection(FAILED_CHECK)

    def _read_unusual(
        self, index: int, record: bytes, rejections: dict[int, Rejection], rescued: dict[int, str]
    ) -> Any:
        """Reads a record that could not be decoded into the struct. Unknown fields go into `rescued`."""
        found = read_object(record, self.contract.max_record_bytes)
        if isinstance(found, Rejection):
            rejections[index] = found
            return self._nothing
        values: dict[str, Any] = {}
        unknown = {}
        for source, value in found.items():
            name, kind = self._field_of.get(source, ("", "string"))
            if not name:
                unknown[source] = value
            elif value is None or type(value) is _KEPT_TYPES.get(kind):
                values[name] = value
            elif kind in _INTEGERS and isinstance(value, msgspec.Raw):
                values[name] = integer_or_text(as_text(value))
            else:
                # A number, a boolean or an array is kept as its JSON text, as a CSV file has it.
                values[name] = as_text(value)
        if unknown:
            rescued[index] = as_text(unknown)
        return self._struct(**values)

    def _columns(self, structs: Sequence[Any]) -> tuple[dict[str, pa.Array], pa.Array]:
        """All columns except the rescued one, and a mask of the records that cannot become rows."""
        columns: dict[str, pa.Array] = {}
        suspects = pa.repeat(pa.scalar(False), len(structs))
        for mask in self._masks(structs, columns):
            suspects = pc.or_(suspects, mask)
        return columns, suspects

    def _masks(self, structs: Sequence[Any], columns: dict[str, pa.Array]) -> Iterator[pa.Array]:
        """Fills `columns`; yields a mask, without nulls, of the records that fail each check."""
        for number, column in enumerate(self.contract.columns):
            name = column.column
            values = list(map(attrgetter(self._names[number]), structs))
            typed = columns[name] = _typed(values, column.type)
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
                    for part in column.parse.into:
                        yield from broken_rules(parts[part.column], part)
            elif typed.null_count:
                yield (
                    pc.is_null(typed)
                    if column.required
                    else pc.and_(pc.is_null(typed), pa.array([not is_absent(value) for value in values], pa.bool_()))
                )
            yield from out_of_bounds(typed, column)
            yield from broken_rules(typed, column)
        for check in self.contract.checks:
            yield from out_of_order(columns, check)
        for name, kind, _ in self.contract.partition_columns:
            if kind == "string":
                yield unusable_folders(name, columns[name], len(self.contract.partition_by))


def _typed(values: list[Any], kind: ColumnType) -> pa.Array:
    """The values as the column's type. A value that is absent or of another type becomes null."""
    # Arrow would convert true to 1.
    if kind in _FAST_TYPES and (kind not in _INTEGERS or bool not in set(map(type, values))):
        try:
            return pa.array(values, ARROW_TYPES[kind])
        except _NO_ARROW_VALUE:
            pass
    try:
        texts = pa.array(values, pa.string())
        if kind == "string":
            return texts
        if kind in _INTEGERS:
            # Numbers in quotes, as the producer sends them. Only plain digits, because a cast also accepts 0x10.
            if not pc.all(pc.ascii_is_decimal(texts)).as_py():
                # pandas writes 446.0, and an empty text for a blank.
                texts = without_zero_fractions(pc.if_else(pc.equal(texts, ""), None, texts))
            if pc.all(pc.ascii_is_decimal(texts)).as_py():
                return texts.cast(ARROW_TYPES[kind])
    except _NO_ARROW_VALUE:
        pass
    return pa.array([_read(kind, value) for value in values], ARROW_TYPES[kind])


def _read(kind: ColumnType, value: Any) -> Any:
    if is_absent(value):
        return None
    try:
        return read_value(kind, value)
    except ValueError:
        return None


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
        part.column: pa.array([(parts or {}).get(part.column) for parts in parts_of], ARROW_TYPES[part.type]).take(
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
