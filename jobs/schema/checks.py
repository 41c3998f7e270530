"""The contract's checks on one record, in plain Python. This is the only module that decides whether a record is good.

The producer and the HTTP API check before they send; `RecordParser` checks what is on the stream. The fast checks of
whole columns (`jobs.schema.column_checks`) only select the records to check here, so that a record is rejected for the
same reason everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.schema.columns import Column, SourceColumn
from jobs.schema.encoding import gunzip
from jobs.schema.partitions import is_usable
from jobs.schema.rejections import BAD_PARTITION, FAILED_CHECK, MISSING_FIELD, VALUE_CHARACTERS, WRONG_TYPE, Rejection
from jobs.schema.table import TableContract
from jobs.schema.value_rules import broken_rule
from jobs.schema.values import as_text, is_absent, read_object, reader_of, split_text, value_at


class RecordChecks:
    """The checks of one contract, compiled once for many records. For example:

    >>> checks = RecordChecks(load_contract("travel_times.yaml"))
    >>> str(checks.reject({"Origin Movement ID": "1"}))
    "missing_field 'Destination Movement ID'"
    """

    def __init__(self, contract: TableContract) -> None:
        self.contract = contract
        self._readers = [(column, reader_of(column)) for column in contract.record_columns]
        # (column, its source field) of each column with rules on its values.
        self._ruled = tuple(
            (each, column.field)
            for column in contract.record_columns
            for each in (column, *(column.parse.into if column.parse else ()))
            if each.has_rules and each.on_fail == "reject"
        )
        self._ascending = tuple(check for check in contract.checks if check.on_fail == "reject")
        # (column, its source field) of each text column that is a partition column.
        roots = contract.roots
        fields = {name: root.field for name, root in roots.items()}
        for column in contract.record_columns:
            parts = column.parse.into if column.parse else ()
            fields |= {each.column: column.field for each in (column, *parts)}
        self._folders = tuple(
            (name, fields[name]) for name, kind, _ in contract.partition_columns if kind == "string" and name in fields
        )
        # (column, the column that its value is from, its transform, its source field) of each derived column.
        self._derived = tuple(
            (column.column, column.from_, column.transformation, roots[column.column].field)
            for column in contract.derived_columns
            if column.from_ is not None and column.transformation is not None
        )

    def reject(self, record: Mapping[str, Any]) -> Rejection | None:
        """Why the record (a decoded JSON object) cannot become a row. None if it can."""
        return next(self.rejections(record), None)

    def rejections(self, record: Mapping[str, Any]) -> Iterator[Rejection]:
        """Every reason why the record cannot become a row; the first one is the record's reason code.

        A value that fails a check with `on_fail: null` or `warn` is no reason. A field has one reason at most. Bounds,
        order and folders are checked only if every field is readable.
        """
        given = {column.column: value_at(record, column.location) for column in self.contract.record_columns}
        faulty: set[str] = set()
        for column in self.contract.record_columns:
            if column.on_fail != "reject" or column.field in faulty:
                continue
            if column.required and is_absent(given[column.column]):
                faulty.add(column.field)
                yield Rejection(MISSING_FIELD, column.field)

        values: dict[str, Any] = {}
        for column, read in self._readers:
            value = given[column.column]
            try:
                values[column.column] = column.default if is_absent(value) else read(value)
            except (ValueError, RecursionError):
                if column.on_fail == "null":
                    values[column.column] = None
                elif column.field not in faulty:
                    faulty.add(column.field)
                    yield _rejection(WRONG_TYPE, column.field, value)

        for column in self.contract.record_columns:
            text = values.get(column.column)
            if column.on_fail == "null" and self._fails(column, text):
                values[column.column] = text = None
            # A longer text breaks the rule `max_length`, whatever it holds.
            if column.parse is None or not text or len(text) > (column.longest or len(text)):
                continue
            parts = split_text(column.parse, text)
            if parts is not None:
                values.update(parts)
                values.update(
                    dict.fromkeys(
                        part.column
                        for part in column.parse.into
                        if part.on_fail == "null" and self._fails(part, parts[part.column])
                    )
                )
            elif column.on_fail == "null":
                values[column.column] = None
            elif column.on_fail == "reject" and column.field not in faulty:
                faulty.add(column.field)
                yield _rejection(column.parse.reason, column.field, text)

        if not faulty:
            yield from self._failed(given, values)

    def _failed(self, given: Mapping[str, Any], values: dict[str, Any]) -> Iterator[Rejection]:
        broken: set[str] = set()
        for name, base, transform, source in self._derived:
            value = values.get(base)
            try:
                values[name] = None if value is None else transform.apply(value)
            except ValueError:
                if source not in broken:
                    broken.add(source)
                    yield _rejection(FAILED_CHECK, source, str(value))
        for column in self.contract.record_columns:
            value = values[column.column]
            if column.on_fail == "reject" and column.field not in broken and _is_out_of_bounds(column, value):
                broken.add(column.field)
                yield _rejection(FAILED_CHECK, column.field, given[column.column])
        for ruled, source in self._ruled:
            value = values.get(ruled.column)
            reason = broken_rule(ruled, value)
            if reason is not None and source not in broken:
                broken.add(source)
                yield _rejection(reason, source, str(value))
        yield from self._out_of_order(values)
        for name, source in self._folders:
            value = values.get(name)
            if value and source not in broken and not is_usable(name, value, len(self.contract.partition_by)):
                yield _rejection(BAD_PARTITION, source, value)

    def _fails(self, column: Column, value: Any) -> bool:
        """Whether a value of the column's type breaks its bounds or rules, or cannot name a folder."""
        if isinstance(column, SourceColumn) and _is_out_of_bounds(column, value):
            return True
        partitions = self.contract.partition_by
        is_folder = bool(value) and column.type == "string" and column.column in partitions
        return broken_rule(column, value) is not None or (
            is_folder and not is_usable(column.column, value, len(partitions))
        )

    def _out_of_order(self, values: Mapping[str, Any]) -> Iterator[Rejection]:
        for check in self._ascending:
            found = [value for name in check.ascending if (value := values.get(name)) is not None]
            if any(low > high for low, high in itertools.pairwise(found)):
                yield _rejection(FAILED_CHECK, check.name, ", ".join(map(str, found)))

    def reject_bytes(self, data: bytes) -> Rejection | None:
        """Why a record's bytes cannot become a row: encoding, size, UTF-8 and JSON first. None if they can."""
        limit = self.contract.max_record_bytes
        text = gunzip(data, limit) if self.contract.encoding == "gzip" else data
        record = text if isinstance(text, Rejection) else read_object(text, limit)
        return record if isinstance(record, Rejection) else self.reject(record)


def _is_out_of_bounds(column: SourceColumn, value: Any) -> bool:
    if value is None:
        return False
    return (column.min is not None and value < column.min) or (column.max is not None and value > column.max)


def _rejection(reason: str, field: str, value: Any) -> Rejection:
    return Rejection(reason, field, as_text(value)[:VALUE_CHARACTERS])
