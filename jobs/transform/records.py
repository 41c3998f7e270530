"""Record bytes → the contract's typed columns, or a rejection each: one reading for stream, batch, producer and API.

Works on Arrow batches: a record that is as the contract says is decoded in one call of C into a struct, and every
check after that is one vector operation a column. Only records that are odd in some way (an unknown field, a
number for a text, not JSON at all) are looked at one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from jobs.contract import rejects
from jobs.contract.parsed import ARROW_TYPES, Parsed
from jobs.contract.partitions import is_usable
from jobs.contract.rejects import Rejection
from jobs.contract.table import DerivedColumn, Parse, SourceColumn, TableContract

_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_BITS = {"int": 31, "long": 63}
# What the struct's fields accept at full speed; anything else takes the slow way and is judged there.
_FAST_TYPES: dict[str, Any] = {"int": int | str | None, "long": int | str | None, "double": float | str | None}


class RecordParser:
    """Reads records by a contract. Make one and keep it; it does not change and it does not pickle."""

    def __init__(self, contract: TableContract) -> None:
        self.contract = contract
        self.schema = pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind, _ in contract.data_columns])
        self._struct = msgspec.defstruct(
            "Record",
            [(column.column, _FAST_TYPES.get(column.type, str | None), None) for column in contract.columns],
            rename={column.column: column.source for column in contract.columns},
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decode = msgspec.json.Decoder(self._struct).decode
        self._decode_any = msgspec.json.Decoder().decode
        self._encode = msgspec.json.Encoder().encode
        self._nothing = self._struct()
        self._column_of = {column.source: column.column for column in contract.columns}

    def parse(self, data: pa.BinaryArray) -> Parsed:
        """Reads `data`: n records' bytes, none null. Raises nothing for bad records: they become rejections."""
        parsed = Parsed(columns=pa.record_batch([], schema=pa.schema([])))
        rescued: dict[int, str] = {}
        structs = []
        decode, limit = self._decode, self.contract.max_record_bytes
        for index, record in enumerate(data.to_pylist()):
            try:
                structs.append(decode(record) if len(record) <= limit else self._odd(index, record, parsed, rescued))
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                structs.append(self._odd(index, record, parsed, rescued))
        columns = self._columns(structs, parsed)
        columns[self.contract.rescued_column] = _sparse(rescued, len(structs))
        parsed.columns = pa.record_batch([columns[name] for name in self.schema.names], schema=self.schema)
        parsed.rescued = len(rescued)
        return parsed

    def reject(self, data: bytes) -> Rejection | None:
        """Why one record would be rejected; None for one that becomes a row."""
        return self.parse(pa.array([data], pa.binary())).rejections.get(0)

    def _odd(self, index: int, record: bytes, parsed: Parsed, rescued: dict[int, str]) -> Any:
        """Reads a record that the struct could not take: its struct, with unknown fields put into `rescued`."""
        found = self._object(record)
        if isinstance(found, Rejection):
            parsed.rejections[index] = found
            return self._nothing
        values = {}
        unknown = {}
        for name, value in found.items():
            column = self._column_of.get(name)
            if column is None:
                unknown[name] = value
            elif value is None or type(value) is str:
                values[column] = value
            else:
                # A number, a boolean, a ring given as an array: kept as its JSON text, as a CSV would hold it.
                values[column] = self._encode(value).decode()
        if unknown:
            rescued[index] = self._encode(unknown).decode()
        return self._struct(**values)

    def _object(self, record: bytes) -> dict[str, Any] | Rejection:
        if len(record) > self.contract.max_record_bytes:
            return Rejection(rejects.TOO_LARGE)
        try:
            record.decode("utf-8")
        except UnicodeDecodeError:
            return Rejection(rejects.NOT_UTF8)
        try:
            found = self._decode_any(record)
        except (msgspec.MsgspecError, RecursionError):
            return Rejection(rejects.NOT_JSON)
        return found if isinstance(found, dict) else Rejection(rejects.NOT_AN_OBJECT)

    def _columns(self, structs: Sequence[Any], parsed: Parsed) -> dict[str, pa.Array]:
        """Every column but the rescued one, and the rejections in the order of `rejects.REASONS`."""
        columns: dict[str, pa.Array] = {}
        missing: list[Callable[[], None]] = []
        mistyped: list[Callable[[], None]] = []
        unparsable: list[Callable[[], None]] = []
        unchecked: list[Callable[[], None]] = []
        for column in self.contract.columns:
            name = column.column
            values = [getattr(struct, name) for struct in structs]
            absent, typed, wrong = _typed(values, column)
            columns[name] = typed
            complain = partial(_file, parsed, field_name=column.source, values=values)
            if column.required:
                missing.append(partial(complain, rejects.MISSING_FIELD, absent, shown=False))
            if wrong is not None:
                mistyped.append(partial(complain, rejects.WRONG_TYPE, wrong))
            if column.parse:
                parts, unmatched = _cut(typed, column.parse)
                columns.update(parts)
                unparsable.append(partial(complain, column.parse.reason, pc.and_(unmatched, pc.invert(absent))))
            unchecked += [partial(complain, rejects.FAILED_CHECK, mask) for mask in _out_of_bounds(typed, column)]
            if column.type == "string" and name in self.contract.partition_by:
                unchecked.append(partial(complain, rejects.BAD_PARTITION, _unusable(name, typed)))
        for step in (*missing, *mistyped, *unparsable, *unchecked):
            step()
        for check in self.contract.checks:
            members = [columns[name] for name in check.ascending]
            for low, high in pairwise(members):
                disordered = pc.fill_null(pc.greater(low, high), False)
                shown = [list(row) for row in zip(*members, strict=True)] if pc.any(disordered).as_py() else []
                _file(parsed, rejects.FAILED_CHECK, disordered, field_name=check.name, values=shown)
        return columns


def _file(
    parsed: Parsed, reason: str, mask: pa.Array, *, field_name: str, values: Sequence[Any], shown: bool = True
) -> None:
    """Files a rejection for each true position of `mask` that has none yet."""
    if not pc.any(mask).as_py():
        return
    for index in pc.indices_nonzero(mask).to_pylist():
        if index not in parsed.rejections:
            value = values[index] if shown else None
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            cut = None if text is None else str(text)[: rejects.VALUE_CHARACTERS]
            parsed.rejections[index] = Rejection(reason, field_name, cut)


def _typed(values: list[Any], column: SourceColumn) -> tuple[pa.Array, pa.Array, pa.Array | None]:
    """(absent, values as the column's type, wrong): wrong is None where every value is of the type."""
    kind = ARROW_TYPES[column.type]
    if column.type == "string":
        typed = pa.array(values, kind)
        empty = pc.fill_null(pc.equal(typed, ""), True)
        if column.default is not None:
            typed = pc.if_else(empty, column.default, typed)
        return empty, typed, None
    try:
        typed = pa.array(values, kind) if column.type in ("int", "long") else None
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        typed = None
    if typed is not None:
        return pc.is_null(typed), typed, None
    convert = _CONVERTERS[column.type]
    absent = pa.array([value is None or value == "" for value in values], pa.bool_())
    converted = [None if value is None or value == "" else convert(value) for value in values]
    typed = pa.array(converted, kind)
    return absent, typed, pc.and_(pc.is_null(typed), pc.invert(absent))


def _integer(value: int | str, bits: int) -> int | None:
    if isinstance(value, str):
        # Longer than any 64-bit number: not worth a conversion, whose cost grows with the square of the digits.
        if len(value) > 64 or not _INTEGER.fullmatch(value):
            return None
        value = int(value)
    return value if -(1 << bits) <= value < 1 << bits else None


def _double(value: float | str) -> float | None:
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    return float(value)


def _timestamp(value: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _date(value: str) -> date | None:
    try:
        return date.fromisoformat(value) if len(value) == len("yyyy-mm-dd") else None
    except ValueError:
        return None


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "string": str,
    "int": partial(_integer, bits=_BITS["int"]),
    "long": partial(_integer, bits=_BITS["long"]),
    "double": _double,
    "boolean": {"true": True, "false": False}.get,
    "date": _date,
    "timestamp": _timestamp,
}


def _cut(values: pa.Array, parse: Parse) -> tuple[dict[str, pa.Array], pa.Array]:
    """The columns of `parse.into` and a mask of the values that do not match; each distinct value is cut once."""
    encoded = values.dictionary_encode()
    matches = [re.fullmatch(parse.pattern, value, re.DOTALL | re.ASCII) for value in encoded.dictionary.to_pylist()]
    columns: dict[str, pa.Array] = {}
    unmatched = pc.is_null(values)
    for number, part in enumerate(parse.into, start=1):
        distinct = [_part(match.group(number), part) if match else None for match in matches]
        columns[part.column] = pa.array(distinct, ARROW_TYPES[part.type]).take(encoded.indices)
        unmatched = pc.or_(unmatched, pc.is_null(columns[part.column]))
    return columns, unmatched


def _part(text: str | None, part: DerivedColumn) -> Any:
    if text is None:
        return None
    if part.format is None:
        return _CONVERTERS[part.type](text)
    if len(text) != len(part.format):
        return None
    start = {name: part.format.index(name) for name in ("yyyy", "MM", "dd")}
    return _date("-".join(text[at : at + len(name)] for name, at in start.items()))


def _out_of_bounds(typed: pa.Array, column: SourceColumn) -> list[pa.Array]:
    masks = []
    if column.min is not None:
        masks.append(pc.fill_null(pc.less(typed, column.min), False))
    if column.max is not None:
        masks.append(pc.fill_null(pc.greater(typed, column.max), False))
    return masks


def _unusable(name: str, values: pa.Array) -> pa.Array:
    """A mask of the values that cannot name a partition's folder."""
    encoded = values.dictionary_encode()
    distinct = [not is_usable(name, value) for value in encoded.dictionary.to_pylist()]
    return pc.fill_null(pa.array(distinct, pa.bool_()).take(encoded.indices), False)


def _sparse(values: dict[int, str], length: int) -> pa.Array:
    """A string column of `length` that is null but at the positions of `values`."""
    if not values:
        return pa.nulls(length, pa.string())
    return pa.array([values.get(index) for index in range(length)], pa.string())
