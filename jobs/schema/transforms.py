"""Derived columns: the transforms that make a column's value from another column's.

Each transform computes one value in plain Python, which decides, and a whole column with Arrow. `truncate` and `bucket`
have Iceberg's results (https://iceberg.apache.org/spec/#partition-transforms). `date`, `hour`, `month` and `year` have
values to filter by, where Iceberg has ordinals since 1970: 2026-11-23, 10, "2026-11" and 2026. Null stays null.
"""

from __future__ import annotations

import difflib
import re
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.schema.murmur3 import murmur3_32
from jobs.schema.times import local_time, time_zone, to_local
from jobs.schema.types import INTEGER_BITS, arrow_type, data_type

CONSTANT = "constant"
# The types that each transform takes, and the type of its result; None: the same type.
_TRANSFORMS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "date": (("timestamp",), "date"),
    "hour": (("timestamp",), "int"),
    "month": (("timestamp", "date"), "string"),
    "year": (("timestamp", "date"), "int"),
    "truncate": (("int", "long", "decimal", "string", "binary"), None),
    "bucket": (("int", "long", "decimal", "date", "timestamp", "string", "binary"), "int"),
    "lower": (("string",), "string"),
}
NAMES = "date, hour, month, year, truncate[N], bucket[N] and lower"
# Those that read a clock.
OF_TIMES = frozenset({"date", "hour", "month", "year"})
# Those whose result can name a folder, whatever the value.
SAFE_FOLDERS = OF_TIMES | {"bucket"}
_WITH_NUMBER = frozenset({"truncate", "bucket"})
_NOTATION = re.compile(r"([a-z]+)(?:\[([0-9]{1,10})\])?")
_ELSEWHERE = {"day": "date", "days": "date", "hours": "hour", "months": "month", "years": "year", "lowercase": "lower"}
_EPOCH_DAY = date(1970, 1, 1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Transformed(NamedTuple):
    """A derived column, and a mask, without nulls, of the values that have no result; None: all have one."""

    values: pa.Array
    wrong: pa.Array | None


class Transform:
    """A transform of values of one type. Make it with `transform_of`.

    name     its name, without the number in brackets
    source   the type that it takes
    result   the type of its results
    """

    def __init__(self, name: str, number: int, source: str, zone: str | None) -> None:
        self.name, self.source = name, source
        self.result = _TRANSFORMS[name][1] or source
        self._number = number
        self._zone = time_zone(zone) if zone else None
        self._kind = data_type(source).kind
        self._apply: Callable[[Any], Any] = getattr(self, f"_{name}")

    def apply(self, value: Any) -> Any:
        """The result for a value that is not null. Raises ValueError if the result is not of the type `result`."""
        return self._apply(value)

    def to_arrow(self, values: pa.Array) -> Transformed:
        """The results for a column."""
        if self.name == "truncate" and self._kind in ("string", "binary"):
            cut = pc.utf8_slice_codeunits if self._kind == "string" else pc.binary_slice
            return Transformed(cut(values, 0, self._number), None)
        if self.name == "truncate" and self._kind in INTEGER_BITS:
            return self._truncated_integers(values)
        if self.name in OF_TIMES and self._kind == "timestamp":
            local = to_local(values, self._zone)
            if local is not None:
                return Transformed(self._of_clock(local), None)
        return _of_distinct(values, self.apply, arrow_type(self.result))

    def _of_clock(self, local: pa.Array) -> pa.Array:
        if self.name == "date":
            return local.cast(pa.date32(), safe=False)
        if self.name == "month":
            months = pc.add(pc.multiply(pc.year(local), 12), pc.subtract(pc.month(local), 1))
            return _of_distinct(months, lambda month: f"{month // 12:04}-{month % 12 + 1:02}", pa.string()).values
        return (pc.year if self.name == "year" else pc.hour)(local).cast(pa.int32())

    def _truncated_integers(self, values: pa.Array) -> Transformed:
        numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        truncated = numbers - np.mod(numbers, self._number)
        # Below the smallest 64-bit number, the difference wraps to a large one.
        wrong = (truncated > numbers) | (truncated < -(1 << INTEGER_BITS[self._kind]))
        null = pc.is_null(values).to_numpy(zero_copy_only=False) | wrong
        found = pa.array(truncated.astype(values.type.to_pandas_dtype()), values.type, mask=null)
        return Transformed(found, pa.array(wrong) if wrong.any() else None)

    def _local(self, value: Any) -> Any:
        return local_time(value, self._zone) if isinstance(value, datetime) else value

    def _date(self, value: datetime) -> date:
        return date(*self._local(value).timetuple()[:3])

    def _hour(self, value: datetime) -> int:
        return int(self._local(value).hour)

    def _month(self, value: Any) -> str:
        local = self._local(value)
        return f"{local.year:04}-{local.month:02}"

    def _year(self, value: Any) -> int:
        return int(self._local(value).year)

    def _lower(self, value: str) -> str:
        return value.lower()

    def _truncate(self, value: Any) -> Any:
        if isinstance(value, str | bytes):
            return value[: self._number]
        if isinstance(value, Decimal):
            kind = data_type(self.source)
            units = _unscaled(value)
            units -= units % self._number
            if abs(units) >= 10**kind.precision:
                raise ValueError(f"{value} has no multiple of {self._number} below it in {self.source}")
            return Decimal((int(units < 0), tuple(map(int, str(abs(units)))), -kind.scale))
        found = value - value % self._number
        if found < -(1 << INTEGER_BITS[self._kind]):
            raise ValueError(f"{value} has no multiple of {self._number} below it in {self.source}")
        return found

    def _bucket(self, value: Any) -> int:
        return (murmur3_32(_hashed(value)) & 0x7FFFFFFF) % self._number


def _hashed(value: Any) -> bytes:
    """The bytes that Iceberg hashes of a value."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Decimal):
        units = _unscaled(value)
        # The fewest bytes that hold the number in two's complement.
        return units.to_bytes((units if units >= 0 else ~units).bit_length() // 8 + 1, "big", signed=True)
    if isinstance(value, datetime):
        found = value - _EPOCH
        value = (found.days * 86_400 + found.seconds) * 1_000_000 + found.microseconds
    elif isinstance(value, date):
        value = (value - _EPOCH_DAY).days
    return struct.pack("<q", value)


def _unscaled(value: Decimal) -> int:
    sign, digits, _ = value.as_tuple()
    number = int("".join(map(str, digits)))
    return -number if sign else number


def _of_distinct(values: pa.Array, apply: Callable[[Any], Any], kind: pa.DataType) -> Transformed:
    """Each distinct value is computed once."""
    encoded = values.dictionary_encode()
    found, wrong = [], []
    for value in encoded.dictionary.to_pylist():
        try:
            found.append(apply(value))
            wrong.append(False)
        except ValueError:
            found.append(None)
            wrong.append(True)
    mask = pc.fill_null(pa.array(wrong, pa.bool_()).take(encoded.indices), False) if any(wrong) else None
    return Transformed(pa.array(found, kind).take(encoded.indices), mask)


@lru_cache(maxsize=1024)
def transform_of(notation: str, source: str, zone: str | None = None) -> Transform:
    """The transform of a notation, such as `bucket[16]`, for values of the type `source`.

    >>> transform_of("truncate[10]", "long").apply(-1)
    -10

    `zone` is the time zone of the clock that date, hour, month and year read; None: UTC. Raises ValueError that says
    what is wrong.
    """
    found = _NOTATION.fullmatch(notation)
    name, number = (found[1], int(found[2] or 0)) if found else ("", 0)
    if found is None or name not in _TRANSFORMS:
        word = re.split(r"\W", notation)[0].lower()
        near = _ELSEWHERE.get(word) or next(iter(difflib.get_close_matches(word, _TRANSFORMS, 1)), None)
        raise ValueError(
            f"unknown transform {notation!r}; {f'did you mean {near}? ' if near else ''}transforms are {NAMES}"
        )
    if (name in _WITH_NUMBER) != (found[2] is not None):
        wants = f"write {name}[16]" if name in _WITH_NUMBER else f"write {name}"
        raise ValueError(f"transform {notation!r}: {wants}")
    if name in _WITH_NUMBER and not 1 <= number < 1 << 31:
        raise ValueError(f"transform {notation!r}: the number is 1 to {(1 << 31) - 1}")
    taken = _TRANSFORMS[name][0]
    if data_type(source).kind not in taken:
        raise ValueError(f"transform {name} takes {', '.join(taken)}, not {source}")
    if zone is not None and (name not in OF_TIMES or source != "timestamp"):
        raise ValueError(f"timezone is for date, hour, month and year of a timestamp, not for {name} of {source}")
    return Transform(name, number, source, zone)


def with_source_types(columns: Sequence[Any], metadata: dict[str, str]) -> list[Any]:
    """The entries of a contract's columns; a derived one gets the type of its source, and its own type.

    A derived column is below its source, which may itself be derived. A time zone is the source's by default. What is
    wrong in an entry is left for the model to name.
    """
    types: dict[str, Any] = {}
    zones: dict[str, Any] = {}
    found = []
    for entry in columns:
        if isinstance(entry, dict):
            if isinstance(entry.get("from"), str):
                entry = _derived(entry, types, zones)
            elif entry.get(CONSTANT) is not None:
                found.append({"type": "string", **entry})
                continue
            types[str(entry.get("column"))] = entry.get("type") or metadata.get(str(entry.get("metadata")))
            zones[str(entry.get("column"))] = entry.get("timezone")
            for part in _parts(entry):
                types[str(part.get("column"))] = part.get("type")
                zones[str(part.get("column"))] = part.get("timezone")
        found.append(entry)
    return found


def _derived(entry: dict[str, Any], types: dict[str, Any], zones: dict[str, Any]) -> dict[str, Any]:
    source = types.get(entry["from"])
    entry = entry | {"from_type": source}
    notation = entry.get("transform")
    if source == "timestamp" and notation in OF_TIMES and zones.get(entry["from"]):
        entry = {"timezone": zones[entry["from"]]} | entry
    try:
        return {"type": transform_of(notation, str(data_type(source))).result, **entry}
    except (TypeError, ValueError, AttributeError):
        return {"type": "string", **entry}


def _parts(entry: dict[str, Any]) -> list[dict[str, Any]]:
    parse = entry.get("parse")
    parts = parse.get("into") if isinstance(parse, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list | tuple) else []
