"""Record bytes → the contract's typed columns, or a rejection each: one reading for stream, batch, producer and API.

Works on Arrow batches: a record that is as the contract says is decoded in one call of C into a struct, and every
check after that is one vector operation a column. Only records that are odd in some way (an unknown field, a
number for a text, not JSON at all) are looked at one by one, and only `jobs.schema.checks` says why one is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from jobs.schema import rejections as rejects
from jobs.schema.checks import Checks
from jobs.schema.partitions import is_usable
from jobs.schema.rejections import Rejection
from jobs.schema.table import Check, ColumnType, Parse, SourceColumn, TableContract
from jobs.schema.values import as_text, is_absent, read_object, read_value, take_apart

# What the struct's fields accept at full speed; anything else takes the slow way and is judged there.
_FAST_TYPES: dict[str, Any] = {
    "int": int | str | None,
    "long": int | str | None,
    "double": float | str | None,
    "boolean": bool | str | None,
}
# What a field holds as it is, so that Arrow does not take true for 1; everything else becomes text.
_AS_IT_IS = {"int": int, "long": int, "double": int, "boolean": bool}
_NO_ARROW_VALUE = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)


class RecordParser:
    """Reads records by a contract. Make one and keep it; it does not change and it does not pickle."""

    def __init__(self, contract: TableContract) -> None:
        self.contract = contract
        self.schema = pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind, _ in contract.data_columns])
        self._checks = Checks(contract)
        # Fields are named by position: a column may be called what Python keeps for itself, such as `from`.
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
        self._decode = msgspec.json.Decoder(self._struct).decode
        self._nothing = self._struct()
        self._field_of = {
            column.source: (name, column.type) for name, column in zip(names, contract.columns, strict=True)
        }

    def parse(self, data: pa.BinaryArray) -> Parsed:
        """Reads `data`: n records' bytes, none null. Raises nothing for bad records: they become rejections."""
        rejections: dict[int, Rejection] = {}
        rescued: dict[int, str] = {}
        structs = []
        decode, limit = self._decode, self.contract.max_record_bytes
        for index, record in enumerate(data.to_pylist()):
            try:
                structs.append(
                    decode(record) if len(record) <= limit else self._odd(index, record, rejections, rescued)
                )
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                structs.append(self._odd(index, record, rejections, rescued))
        columns, suspects = self._columns(structs)
        for index in pc.indices_nonzero(suspects).to_pylist():
            if index not in rejections:
                rejections[index] = self._why(data[index].as_py())
        columns[self.contract.rescued_column] = _sparse(rescued, len(structs))
        return Parsed(
            columns=pa.record_batch([columns[name] for name in self.schema.names], schema=self.schema),
            rejections=rejections,
            rescued=sum(1 for index in rescued if index not in rejections),
        )

    def reject(self, data: bytes) -> Rejection | None:
        """Why one record would be rejected; None for one that becomes a row."""
        return self.parse(pa.array([data], pa.binary())).rejections.get(0)

    def _why(self, record: bytes) -> Rejection:
        # A record that its columns call suspect is never a row, even if the checks found nothing wrong with it.
        return self._checks.reject_bytes(record) or Rejection(rejects.FAILED_CHECK)

    def _odd(self, index: int, record: bytes, rejections: dict[int, Rejection], rescued: dict[int, str]) -> Any:
        """Reads a record that the struct could not take: its struct, with unknown fields put into `rescued`."""
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
            elif value is None or type(value) is _AS_IT_IS.get(kind):
                values[name] = value
            else:
                # A number, a boolean, a ring given as an array: kept as its JSON text, as a CSV would hold it.
                values[name] = as_text(value)
        if unknown:
            rescued[index] = as_text(unknown)
        return self._struct(**values)

    def _columns(self, structs: Sequence[Any]) -> tuple[dict[str, pa.Array], pa.Array]:
        """Every column but the rescued one, and a mask of the records that cannot be rows."""
        columns: dict[str, pa.Array] = {}
        suspects = pa.repeat(pa.scalar(False), len(structs))
        for mask in self._masks(structs, columns):
            suspects = pc.or_(suspects, mask)
        return columns, suspects

    def _masks(self, structs: Sequence[Any], columns: dict[str, pa.Array]) -> Iterator[pa.Array]:
        """Fills `columns`, and yields a mask without nulls for each thing that can be wrong."""
        for number, (column, pattern) in enumerate(self._checks.columns):
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
                if column.parse and pattern:
                    parts, unmatched = _cut(typed, column.parse, pattern)
                    columns.update(parts)
                    yield unmatched
            elif typed.null_count:
                yield (
                    pc.is_null(typed)
                    if column.required
                    else pc.and_(pc.is_null(typed), pa.array([not is_absent(value) for value in values], pa.bool_()))
                )
            yield from _out_of_bounds(typed, column)
        for check in self.contract.checks:
            yield from _out_of_order(columns, check)
        for name, kind, _ in self.contract.partition_columns:
            if kind == "string":
                yield _unusable(name, columns[name])


def _typed(values: list[Any], kind: ColumnType) -> pa.Array:
    """Values as the column's type; null where a value is absent or of another type."""
    if kind in _FAST_TYPES:
        try:
            return pa.array(values, ARROW_TYPES[kind])
        except _NO_ARROW_VALUE:
            pass
    try:
        texts = pa.array(values, pa.string())
        if kind == "string":
            return texts
        # Numbers in quotes, as the producer sends them: plain digits alone, for a cast reads 0x10 as well.
        if kind in ("int", "long") and pc.all(pc.ascii_is_decimal(texts)).as_py():
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


def _cut(texts: pa.Array, parse: Parse, pattern: re.Pattern[str]) -> tuple[dict[str, pa.Array], pa.Array]:
    """The columns of `parse.into` and a mask of the texts that do not match; each distinct text is cut once."""
    encoded = texts.dictionary_encode()
    cut: list[dict[str, Any] | None] = []
    for text in encoded.dictionary.to_pylist():
        try:
            cut.append(take_apart(parse, pattern, text) if text else {})
        except ValueError:
            cut.append(None)
    columns = {
        part.column: pa.array([(parts or {}).get(part.column) for parts in cut], ARROW_TYPES[part.type]).take(
            encoded.indices
        )
        for part in parse.into
    }
    return columns, _of_distinct(encoded, [parts is None for parts in cut])


def _out_of_bounds(typed: pa.Array, column: SourceColumn) -> Iterator[pa.Array]:
    if column.min is not None:
        yield pc.fill_null(pc.less(typed, column.min), False)
    if column.max is not None:
        yield pc.fill_null(pc.greater(typed, column.max), False)


def _out_of_order(columns: Mapping[str, pa.Array], check: Check) -> Iterator[pa.Array]:
    """A null value is passed over: the next one is held against the last that is there."""
    last = columns[check.ascending[0]]
    for name in check.ascending[1:]:
        yield pc.fill_null(pc.greater(last, columns[name]), False)
        last = pc.coalesce(columns[name], last)


def _unusable(name: str, values: pa.Array) -> pa.Array:
    """A mask of the values that cannot name a partition's folder."""
    encoded = values.dictionary_encode()
    return _of_distinct(encoded, [not is_usable(name, value) for value in encoded.dictionary.to_pylist()])


def _of_distinct(encoded: pa.DictionaryArray, flags: list[bool]) -> pa.Array:
    """A flag of each distinct value as a mask over all of them; null is false."""
    return pc.fill_null(pa.array(flags, pa.bool_()).take(encoded.indices), False)


def _sparse(values: dict[int, str], length: int) -> pa.Array:
    """A string column of `length` that is null but at the positions of `values`."""
    if not values:
        return pa.nulls(length, pa.string())
    return pa.array([values.get(index) for index in range(length)], pa.string())


# What the transform hands to the sink: a batch of records, read by the contract.

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


@dataclass(slots=True)
class Parsed:
    """A batch of n records, read.

    `columns`: n rows of `contract.data_columns`; a rejected record's row holds what could be read of it.
    `rejections`: position in the batch → why that record is no row.
    `rescued`: how many records hold fields that the contract does not name.
    """

    columns: pa.RecordBatch
    rejections: dict[int, Rejection] = field(default_factory=dict)
    rescued: int = 0
