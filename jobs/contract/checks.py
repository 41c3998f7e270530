"""The contract's checks on one record, in plain Python: the twin of the Spark transform.

The producer and the HTTP API ask here before they send; what passes here becomes a row, what does not is
rejected under the code that the stream's quarantine would file it under (see `jobs/contract/rejects.py`).

How a value is read: null is the same as absent; a JSON integer or a numeric string is a number; any JSON value
is a string (an array or object by its JSON text, as Spark's `from_json` does); "" is null for every type but string.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import msgspec

from jobs.contract.rejects import (
    FAILED_CHECK,
    MISSING_FIELD,
    NOT_AN_OBJECT,
    NOT_JSON,
    NOT_UTF8,
    TOO_LARGE,
    VALUE_CHARACTERS,
    WRONG_TYPE,
    Rejection,
)
from jobs.contract.table import DerivedColumn, Parse, SourceColumn, TableContract

_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_DECIMAL = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_BITS = {"int": 31, "long": 63}
_BOOLEANS = {"true": True, "false": False}


class Checks:
    """A contract's checks, compiled once; make one and ask it about many records."""

    def __init__(self, contract: TableContract) -> None:
        self.contract = contract
        self._columns = tuple(
            # ASCII, because Java's \d and \w, which Spark matches with, are ASCII too.
            (column, re.compile(column.parse.pattern, re.ASCII) if column.parse else None)
            for column in contract.columns
        )

    def reject(self, record: Mapping[str, Any]) -> Rejection | None:
        """Why the record (source field → value) cannot become a row; None where it can."""
        return next(self.rejections(record), None)

    def rejections(self, record: Mapping[str, Any]) -> Iterator[Rejection]:
        """Every reason, first the one that the record is filed under.

        A field is complained of once, and the checks are tried only on a record whose fields are all readable.
        """
        faulty = False
        for column, _ in self._columns:
            if column.required and record.get(column.source) in (None, ""):
                faulty = True
                yield Rejection(MISSING_FIELD, column.source)

        values: dict[str, Any] = {}
        for column, _ in self._columns:
            given = record.get(column.source)
            try:
                values[column.column] = _read(column, given)
            except ValueError:
                faulty = True
                yield _rejection(WRONG_TYPE, column.source, given)

        for column, pattern in self._columns:
            text = values.get(column.column)
            if column.parse is None or pattern is None or not text:
                continue
            try:
                values.update(_take_apart(column.parse, pattern, text))
            except ValueError:
                faulty = True
                yield _rejection(column.parse.reason, column.source, text)

        if not faulty:
            yield from self._failed(values)

    def _failed(self, values: Mapping[str, Any]) -> Iterator[Rejection]:
        for column, _ in self._columns:
            value = values[column.column]
            if value is None or (column.min is None and column.max is None):
                continue
            if (column.min is not None and value < column.min) or (column.max is not None and value > column.max):
                yield _rejection(FAILED_CHECK, column.source, value)
        yield from self._out_of_order(values)

    def _out_of_order(self, values: Mapping[str, Any]) -> Iterator[Rejection]:
        for check in self.contract.checks:
            found = [value for name in check.ascending if (value := values.get(name)) is not None]
            if any(low > high for low, high in itertools.pairwise(found)):
                yield _rejection(FAILED_CHECK, check.name, ", ".join(map(str, found)))

    def can_be_taken_apart(self, source: str, text: str) -> bool:
        """Whether the value of a field with `parse` matches, and its parts pass the checks that need no other field."""
        for column, pattern in self._columns:
            if column.source == source and column.parse and pattern and text:
                try:
                    parts = _take_apart(column.parse, pattern, text)
                except ValueError:
                    return False
                return next(self._out_of_order(parts), None) is None
        return True

    def reject_bytes(self, data: bytes) -> Rejection | None:
        """Why the bytes of a record on the stream cannot become a row; None where they can."""
        if len(data) > self.contract.max_record_bytes:
            limit = self.contract.max_record_bytes
            return Rejection(TOO_LARGE, value=f"{len(data)} bytes; at most {limit} are allowed")
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return Rejection(NOT_UTF8)
        try:
            record = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            return Rejection(NOT_JSON)
        if not isinstance(record, dict):
            return Rejection(NOT_AN_OBJECT)
        return self.reject(record)


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
    text = value if isinstance(value, str) else _text(value)
    return Rejection(reason, field, text[:VALUE_CHARACTERS])


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _read(column: SourceColumn, value: Any) -> Any:
    """The value as its column's type, None where it is absent; ValueError where it is of another type."""
    if column.type == "string":
        return (value if isinstance(value, str) else _text(value)) if value not in (None, "") else column.default
    if value is None or value == "":
        return None
    return _READERS[column.type](value)


def _integer(bits: int) -> Callable[[Any], int]:
    low, high = -(2**bits), 2**bits - 1

    def read(value: Any) -> int:
        # bool is a kind of int to Python, but not to JSON; 616.0 is no integer to Spark.
        if isinstance(value, str):
            if not _INTEGER.fullmatch(value) or len(value) > 1000:
                raise ValueError
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError
        return value

    return read


def _double(value: Any) -> float:
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise ValueError
    elif not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError from error
    if not math.isfinite(number):
        raise ValueError
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = _BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else None
    if known is None:
        raise ValueError
    return known


def _day(value: Any) -> date:
    if not isinstance(value, str):
        raise ValueError
    return read_date(value, "yyyy-MM-dd")


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError
    return datetime.fromisoformat(value.strip())


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": _integer(_BITS["int"]),
    "long": _integer(_BITS["long"]),
    "double": _double,
    "boolean": _boolean,
    "date": _day,
    "timestamp": _moment,
}


def _take_apart(parse: Parse, pattern: re.Pattern[str], text: str) -> dict[str, Any]:
    """The columns that a text's groups become; ValueError where the whole of it does not match."""
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(f"does not match {parse.pattern}")
    return {part.column: _derive(part, group) for part, group in zip(parse.into, found.groups(), strict=True)}


def _derive(part: DerivedColumn, text: str | None) -> Any:
    """A group of a pattern as its column's type; a group that took no part in the match is null."""
    if part.type == "string" or text is None:
        return text
    if part.type == "date":
        return read_date(text, part.format or "")
    return _READERS[part.type](text)


@lru_cache(maxsize=64)
def _date_pattern(form: str) -> re.Pattern[str]:
    pattern = re.escape(form)
    for letters, group in (("yyyy", r"(?P<year>\d{4})"), ("MM", r"(?P<month>\d{2})"), ("dd", r"(?P<day>\d{2})")):
        pattern = pattern.replace(letters, group)
    return re.compile(pattern, re.ASCII)


def read_date(text: str, form: str) -> date:
    """A date written as `form` says (yyyy, MM, dd); ValueError where it is not, or is no day of the calendar."""
    found = _date_pattern(form).fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not of the form {form}")
    return date(int(found["year"]), int(found["month"]), int(found["day"]))
