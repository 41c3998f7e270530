"""Tries a contract on a sample: what `movement produce` would reject, and what the table would hold.

In: a contract and `SamplePart`s. Out: a `SampleCheck`. The producer's encoders check the records, and then the parser
of the stream, so the answer is the stream's own.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from jobs.catalog.ddl import create_external_table
from jobs.catalog.tables import glue_table, stream_tables
from jobs.schema.columns import SourceColumn
from jobs.schema.on_fail import count_failed
from jobs.schema.partitions import partition_path
from jobs.schema.privacy import Salt
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from jobs.schema.values import read_object, value_at
from movement.contract.sample import SamplePart

# Partitions and unnamed fields beyond this are not counted: a sample that has more shows what is wrong.
_MOST_COUNTED = 10_000


@dataclass
class Rejected:
    """The records that are rejected for one reason: their number, and the first of them."""

    count: int
    where: str
    field: str | None
    value: str | None


@dataclass
class SampleCheck:
    """What a contract makes of a sample.

    rejected     by reason (docs/what-can-go-wrong.md)
    nulls        by column, in table order: accepted records in which it is null
    nulled       values that failed a check with `on_fail: null` in accepted records, by `<column>.<reason>`
    warned       the same with `on_fail: warn`
    unnamed      by field: records that have it although no column names it; it is kept in the rescued column
    partitions   number of partitions of the accepted records; 10,000 means that there may be more
    warnings     one sentence for each thing that is probably a mistake
    """

    rows: int = 0
    accepted: int = 0
    rejected: dict[str, Rejected] = field(default_factory=dict)
    nulls: dict[str, int] = field(default_factory=dict)
    nulled: dict[str, int] = field(default_factory=dict)
    warned: dict[str, int] = field(default_factory=dict)
    unnamed: dict[str, int] = field(default_factory=dict)
    partitions: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def always_null(self) -> list[str]:
        """The columns that have no value in any accepted record."""
        return [name for name, nulls in self.nulls.items() if self.accepted and nulls == self.accepted]


def glue_ddl(contract: TableContract, database: str, lake: str, sink_format: str = "parquet") -> str:
    """CREATE EXTERNAL TABLE of `processed`, as the streaming job registers it."""
    table = next(table for table in stream_tables(contract, sink_format) if table.name == "processed")
    return create_external_table(glue_table(table, lake if "://" in lake else f"file://{lake}"), database)


def check_sample(contract: TableContract, parts: Iterable[SamplePart]) -> SampleCheck:
    """Checks every record of the sample by the contract."""
    check, parser = SampleCheck(), RecordParser(contract, Salt("of no row"))
    sources, partitions = _Sources(contract), set[str]()
    unnamed, nulled, warned = Counter[str](), Counter[str](), Counter[str]()
    names = [name for name in parser.schema.names if name != contract.rescued_column]
    check.nulls = dict.fromkeys(names, 0)
    for part in parts:
        for where, why in part.rejected:
            _reject(check, where, why)
        parsed = parser.parse(pa.array(part.records, pa.binary()))
        good = pa.array([index not in parsed.rejections for index in range(len(part.records))], pa.bool_())
        for index, why in parsed.rejections.items():
            _reject(check, f"record {check.rows + index + 1} of the sample", why)
        nulled.update(count_failed(parsed.failed, parsed.rejections, "null"))
        warned.update(count_failed(parsed.failed, parsed.rejections, "warn"))
        columns = parsed.columns.filter(good)
        check.rows += part.rows
        check.accepted += columns.num_rows
        for name in names:
            check.nulls[name] += columns[name].null_count
        for text in columns[contract.rescued_column].drop_null().to_pylist():
            if len(unnamed) < _MOST_COUNTED:
                unnamed.update(".".join(way) for way in _ways(json.loads(text)))
        if len(partitions) < _MOST_COUNTED:
            partitions |= _partitions(contract, columns)
        sources.see(part)
    check.unnamed = dict(unnamed.most_common())
    check.nulled, check.warned = dict(nulled), dict(warned)
    check.partitions = min(len(partitions), _MOST_COUNTED)
    check.warnings = list(sources.warnings(check))
    return check


def _reject(check: SampleCheck, where: str, why: Rejection) -> None:
    found = check.rejected.setdefault(why.reason, Rejected(0, where, why.field, why.value))
    found.count += 1


def _partitions(contract: TableContract, columns: pa.RecordBatch) -> set[str]:
    names = [name for name in contract.partition_by if name in columns.schema.names]
    rows = pa.table({name: columns[name] for name in names}).group_by(names).aggregate([]).to_pylist() if names else []
    return {partition_path(names, row) for row in rows}


def _ways(record: dict[str, Any], way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to each unnamed field; an array counts as one."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from _ways(value, (*way, name))
        else:
            yield (*way, name)


class _Sources:
    """Which of the contract's places in a record the sample has.

    A literal `source` with a dot is probably meant as a path if no record has a field of that name.
    """

    def __init__(self, contract: TableContract) -> None:
        self._contract = contract
        self._missing = {column.column: column for column in contract.record_columns}
        self._nested: set[str] = set()
        self._fields: dict[str, None] = {}

    def see(self, part: SamplePart) -> None:
        """Notes the fields of the part's records, also of those that are rejected."""
        if part.fields:
            self._note(dict.fromkeys(part.fields, ""))
        for document in part.documents or (() if part.fields else part.records):
            if not self._missing:
                return
            found = read_object(document, self._contract.max_record_bytes)
            if not isinstance(found, Rejection):
                self._note(found)

    def _note(self, record: dict[str, Any]) -> None:
        if len(self._fields) < _MOST_COUNTED:
            self._fields.update(dict.fromkeys(record))
        for name, column in list(self._missing.items()):
            if column.location[0] in record and (column.path is None or value_at(record, column.path) is not None):
                del self._missing[name]
            elif column.source and "." in column.source and _at_dots(record, column.source) is not None:
                self._nested.add(name)

    def warnings(self, check: SampleCheck) -> Iterator[str]:
        """A sentence for each column that finds nothing in any record, and for each that is always null."""
        if not check.rows:
            return
        named = set(self._contract.source_fields)
        for name, column in self._missing.items():
            yield f"columns.{name}: {self._why_nothing(column, named)}"
        for name in check.always_null:
            if name not in self._missing:
                yield f"columns.{name}: null in every accepted record"
        large = check.partitions > max(100, check.accepted // 10)
        if large:
            yield (
                f"partition_by: {check.partitions:,} partitions for {check.accepted:,} records; take columns with "
                "fewer values, such as a date"
            )

    def _why_nothing(self, column: SourceColumn, named: set[str]) -> str:
        if column.column in self._nested:
            return (
                f"no record has a field that is named {column.field!r} literally; did you mean `path: {column.source}`?"
            )
        if column.path is not None:
            return f"no record has a value at the path {column.field!r}"
        nearest = _nearest(str(column.source), [field for field in self._fields if field not in named])
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        return f"no record has the field {column.field!r}{hint}"


def _at_dots(record: dict[str, Any], source: str) -> Any:
    """The value at a dotted path; also for one that has an array's index as a part."""
    parts = tuple(int(part) if part.isascii() and part.isdigit() else part for part in source.split("."))
    found = value_at(record, tuple(source.split(".")))
    return found if found is not None else value_at(record, parts)


def _nearest(name: str, fields: list[str]) -> str | None:
    by_letters = {"".join(filter(str.isalnum, field)).lower(): field for field in fields}
    near = difflib.get_close_matches("".join(filter(str.isalnum, name)).lower(), by_letters, 1, 0.7)
    return by_letters[near[0]] if near else None
