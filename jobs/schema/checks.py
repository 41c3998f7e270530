"""The contract's checks on one record, in plain Python: the one place that names why a record is rejected.

The producer and the HTTP API ask here before they send. The stream's parser (`jobs/schema/record_parser.py`) decides
by whole columns which records are suspect, and asks here for the reason, so that a record is filed under the same
code wherever it is met (see `jobs/schema/rejections.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from jobs.schema.partitions import is_usable
from jobs.schema.rejections import BAD_PARTITION, FAILED_CHECK, MISSING_FIELD, VALUE_CHARACTERS, WRONG_TYPE, Rejection
from jobs.schema.table import TableContract
from jobs.schema.values import as_text, compiled, is_absent, read_object, read_value, take_apart


class Checks:
    """A contract's checks, compiled once; make one and ask it about many records."""

    def __init__(self, contract: TableContract) -> None:
        self.contract = contract
        self.columns = tuple((column, compiled(column.parse) if column.parse else None) for column in contract.columns)
        # (column, the source field it comes from) of each text that names a folder.
        self._folders = tuple(
            (name, column.source)
            for column in contract.columns
            for name, kind in [(column.column, column.type)]
            + [(part.column, part.type) for part in (column.parse.into if column.parse else ())]
            if kind == "string" and name in contract.partition_by
        )

    def reject(self, record: Mapping[str, Any]) -> Rejection | None:
        """Why the record (source field → value) cannot become a row; None where it can."""
        return next(self.rejections(record), None)

    def rejections(self, record: Mapping[str, Any]) -> Iterator[Rejection]:
        """Every reason, first the one that the record is filed under.

        A field is complained of once, and the checks are tried only on a record whose fields are all readable.
        """
        faulty = False
        for column, _ in self.columns:
            if column.required and is_absent(record.get(column.source)):
                faulty = True
                yield Rejection(MISSING_FIELD, column.source)

        values: dict[str, Any] = {}
        for column, _ in self.columns:
            given = record.get(column.source)
            try:
                values[column.column] = column.default if is_absent(given) else read_value(column.type, given)
            except ValueError:
                faulty = True
                yield _rejection(WRONG_TYPE, column.source, given)

        for column, pattern in self.columns:
            text = values.get(column.column)
            if column.parse is None or pattern is None or not text:
                continue
            try:
                values.update(take_apart(column.parse, pattern, text))
            except ValueError:
                faulty = True
                yield _rejection(column.parse.reason, column.source, text)

        if not faulty:
            yield from self._failed(record, values)

    def _failed(self, record: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Rejection]:
        for column, _ in self.columns:
            value = values[column.column]
            if value is None or (column.min is None and column.max is None):
                continue
            if (column.min is not None and value < column.min) or (column.max is not None and value > column.max):
                yield _rejection(FAILED_CHECK, column.source, record[column.source])
        yield from self._out_of_order(values)
        for name, source in self._folders:
            value = values.get(name)
            if value and not is_usable(name, value):
                yield _rejection(BAD_PARTITION, source, value)

    def _out_of_order(self, values: Mapping[str, Any]) -> Iterator[Rejection]:
        for check in self.contract.checks:
            found = [value for name in check.ascending if (value := values.get(name)) is not None]
            if any(low > high for low, high in itertools.pairwise(found)):
                yield _rejection(FAILED_CHECK, check.name, ", ".join(map(str, found)))

    def reject_bytes(self, data: bytes) -> Rejection | None:
        """Why the bytes of a record on the stream cannot become a row; None where they can."""
        record = read_object(data, self.contract.max_record_bytes)
        return record if isinstance(record, Rejection) else self.reject(record)


@lru_cache(maxsize=16)
def checks_of(contract: TableContract) -> Checks:
    """The contract's compiled checks, kept for the next call."""
    return Checks(contract)


def reject(contract: TableContract, record: Mapping[str, Any]) -> Rejection | None:
    """Why the record cannot become a row under the contract; None where it can. For many, make a `Checks`."""
    return checks_of(contract).reject(record)


def reject_bytes(contract: TableContract, data: bytes) -> Rejection | None:
    """`reject` of a record's bytes as they stand on the stream: size, UTF-8 and JSON first."""
    return checks_of(contract).reject_bytes(data)


def _rejection(reason: str, field: str, value: Any) -> Rejection:
    return Rejection(reason, field, as_text(value)[:VALUE_CHARACTERS])
