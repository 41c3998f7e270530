"""One value of a record, as it stands in the JSON, read as its column's type: the one place that decides what is what.

Null and absent are the same. A JSON integer or a numeric text is a number; any JSON value is a string, by its JSON
text (an array, a number, a boolean); "" is null for every type but string.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import lru_cache, partial
from typing import Any

import msgspec

from jobs.common.times import parse_time
from jobs.schema import rejections as rejects
from jobs.schema.rejections import Rejection
from jobs.schema.table import ColumnType, DerivedColumn, Parse

_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_DECIMAL = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_BOOLEANS = {"true": True, "false": False}
# Longer than any number of 64 bits: not worth a conversion, whose cost grows with the square of the digits.
_LONGEST_INTEGER = 64
_SURELY_SHALLOW = 100

# A number with a fraction or an exponent keeps its own text (1.50, 1E400): as a float it would become another.
_decode = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode("ascii"))).decode
_encode = msgspec.json.Encoder().encode


def read_object(data: bytes, max_bytes: int) -> dict[str, Any] | Rejection:
    """A record's bytes as field → value, or why they are no JSON object of at most `max_bytes`.

    Of a field that stands twice the last counts. A number with a fraction is a `msgspec.Raw` of its text.
    Nesting that Python's stack does not hold (about 1,000 deep) and integers of over 4,300 digits are not_json.
    """
    if len(data) > max_bytes:
        return Rejection(rejects.TOO_LARGE, value=f"{len(data)} bytes; at most {max_bytes} are allowed")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return Rejection(rejects.NOT_UTF8)
    try:
        found = _decode(data)
        if data.count(b"[") + data.count(b"{") > _SURELY_SHALLOW:
            # What is read here will be written again, from frames a little further down the stack.
            _encode([[[[[[[[[[[[[[[[found]]]]]]]]]]]]]]]])
    except (msgspec.MsgspecError, RecursionError):
        return Rejection(rejects.NOT_JSON)
    return found if isinstance(found, dict) else Rejection(rejects.NOT_AN_OBJECT)


def as_text(value: Any) -> str:
    """A value that is not null, as a string column holds it: a text as it is, anything else as its JSON."""
    return value if isinstance(value, str) else _encode(value).decode()


def is_absent(value: Any) -> bool:
    """Whether a field of this value counts as missing."""
    return value is None or value == ""


def read_value(kind: ColumnType, value: Any) -> Any:
    """A value that is not absent, as its column's type; ValueError where it is of another."""
    return _READERS[kind](value)


def take_apart(parse: Parse, pattern: re.Pattern[str], text: str) -> dict[str, Any]:
    """The columns that a text's groups become; ValueError where the whole of it does not match.

    A group that took no part in the match is null.
    """
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(f"does not match {parse.pattern}")
    return {part.column: _derive(part, group) for part, group in zip(parse.into, found.groups(), strict=True)}


def compiled(parse: Parse) -> re.Pattern[str]:
    """A parse's pattern. ASCII: to Java and Athena too, digits are 0 to 9."""
    return re.compile(parse.pattern, re.ASCII)


def read_date(text: str, form: str) -> date:
    """A date written as `form` says (yyyy, MM, dd); ValueError where it is not, or is no day of the calendar."""
    found = _date_pattern(form).fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not of the form {form}")
    return date(int(found["year"]), int(found["month"]), int(found["day"]))


@lru_cache(maxsize=64)
def _date_pattern(form: str) -> re.Pattern[str]:
    pattern = re.escape(form)
    for letters, group in (("yyyy", r"(?P<year>\d{4})"), ("MM", r"(?P<month>\d{2})"), ("dd", r"(?P<day>\d{2})")):
        pattern = pattern.replace(letters, group)
    return re.compile(pattern, re.ASCII)


def _derive(part: DerivedColumn, text: str | None) -> Any:
    if part.type == "string" or text is None:
        return text
    return read_date(text, part.format) if part.format else read_value(part.type, text)


def _integer(value: Any, bits: int) -> int:
    if isinstance(value, str):
        if len(value) > _LONGEST_INTEGER or not _INTEGER.fullmatch(value):
            raise ValueError
        value = int(value)
    # bool is a kind of int to Python, but not to JSON; 616.0 is no integer to Spark and Athena.
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << bits) <= value < 1 << bits:
        raise ValueError
    return value


def _double(value: Any) -> float:
    if isinstance(value, msgspec.Raw):
        value = bytes(value).decode("ascii")
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


def _date(value: Any) -> date:
    if not isinstance(value, str):
        raise ValueError
    return read_date(value, "yyyy-MM-dd")


def _timestamp(value: Any) -> datetime:
    """A time in UTC; a time without an offset is in UTC."""
    if not isinstance(value, str):
        raise ValueError
    return parse_time(value, default_zone=UTC)


_READERS: dict[str, Callable[[Any], Any]] = {
    "string": as_text,
    "int": partial(_integer, bits=31),
    "long": partial(_integer, bits=63),
    "double": _double,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
}
