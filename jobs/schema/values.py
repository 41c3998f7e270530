"""Reads one JSON value of a record as its column's type.

Null and absent are the same. A number is a JSON number or a numeric text. An integer may be written with a fraction or
an exponent: 446.0 and 4.46e2 are 446, and 446.5 is not an integer. Any JSON value can be a string: an array, a number
or a boolean becomes its JSON text. "" is null for every type except string. A decimal is exact: a number with more
digits after the point than its scale is refused, not rounded. The fields, items and values of a nested type follow the
same rules; a text that holds JSON may be an array, an object or json, as in a CSV file.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any

import msgspec
import pyarrow as pa

from jobs.schema.booleans import boolean_words
from jobs.schema.columns import Column, ColumnType, DerivedColumn, Parse, Path
from jobs.schema.numbers import DECIMAL, MAX_CHARACTERS, checked_number, integer_of_text, unwrapped_number
from jobs.schema.rejections import KPL_AGGREGATE, NOT_AN_OBJECT, NOT_JSON, NOT_UTF8, TOO_LARGE, Rejection
from jobs.schema.text_groups import groups_of
from jobs.schema.times import time_format
from jobs.schema.types import INTEGER_BITS, DataType, data_type

_SURELY_SHALLOW = 100
_WITHHELD = re.compile(
    rf"#withheld:({'|'.join((TOO_LARGE, KPL_AGGREGATE, NOT_UTF8, NOT_JSON, NOT_AN_OBJECT))}):[0-9]{{1,12}}".encode()
)
# Of a text whose parts are kept for its next record.
_MAX_KEPT_CHARACTERS = 256

# https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md. These bytes are never UTF-8.
_KPL_MAGIC = b"\xf3\x89\x9a\xc2"
# The first bytes of gzip (RFC 1952); never the start of UTF-8.
GZIP_MAGIC = b"\x1f\x8b"
_KPL_REMEDY = (
    "several records in one, written by the Kinesis Producer Library: set source.deaggregate: true to split it. "
    "If that is set, the aggregate is damaged"
)
_GZIP_REMEDY = "begins like gzip: records of gzip need `encoding: gzip` in the contract"

# A number with a fraction or an exponent keeps its text (1.50, 1E400), which a float would change.
_decode = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode("ascii"))).decode
_encode = msgspec.json.Encoder().encode


def read_object(data: bytes, max_bytes: int) -> dict[str, Any] | Rejection:
    """A record's fields and values, or a Rejection if it is not a JSON object of at most `max_bytes` in UTF-8.

    The last of duplicate fields wins. A number with a fraction is a `msgspec.Raw` of its text. Nesting deeper than
    Python's stack (about 1,000 levels) and integers of more than 4,300 digits are rejected as not_json.
    """
    if len(data) > max_bytes:
        return Rejection(TOO_LARGE, value=f"{len(data)} bytes; at most {max_bytes} are allowed")
    if data.startswith(_KPL_MAGIC):
        return Rejection(KPL_AGGREGATE, value=_KPL_REMEDY)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return Rejection(NOT_UTF8, value=_GZIP_REMEDY if data.startswith(GZIP_MAGIC) else None)
    try:
        found = _decode(data)
        if data.count(b"[") + data.count(b"{") > _SURELY_SHALLOW:
            # The value is encoded again later, from a deeper frame: make sure that the stack is sufficient.
            _encode([[[[[[[[[[[[[[[[found]]]]]]]]]]]]]]]])
    except (msgspec.MsgspecError, RecursionError):
        reason = withheld_reason(data)
        return Rejection(reason, value="withheld (raw: redacted)") if reason else Rejection(NOT_JSON)
    return found if isinstance(found, dict) else Rejection(NOT_AN_OBJECT)


def withheld_record(reason: str, size: int) -> bytes:
    """What `raw: redacted` leaves of a record of `size` bytes that cannot be read."""
    return f"#withheld:{reason}:{size}".encode()


def withheld_reason(data: bytes) -> str | None:
    """The reason in a `withheld_record`; None for other bytes."""
    found = _WITHHELD.fullmatch(data)
    return found[1].decode() if found else None


def as_text(value: Any) -> str:
    """The value of a string column for a value that is not null: a text as it is, anything else as JSON text."""
    return value if isinstance(value, str) else _encode(value).decode()


def is_absent(value: Any) -> bool:
    """Whether a field with this value counts as absent."""
    return value is None or value == ""


def read_value(kind: ColumnType, value: Any) -> Any:
    """A value that is not absent, as its column's type. Raises ValueError if it cannot be one.

    An array is a list; a struct a dict of all its fields, null if absent; a map a dict; a decimal a Decimal of its
    scale. A struct's fields that the type does not name are left out.
    """
    reader = _READERS.get(kind)
    return reader(value) if reader else _read_typed(data_type(kind), value)


def reader_of(column: Column) -> Callable[[Any], Any]:
    """What reads a value of the column that is not absent: `read_value`, or the format that the contract names."""
    return column.value_format.read if column.value_format else partial(read_value, column.type)


def _read_typed(kind: DataType, value: Any) -> Any:
    if is_absent(value):
        return None
    if kind.kind == "decimal":
        return read_decimal(value, kind.precision, kind.scale)
    if kind.item is None and not kind.fields:
        return _READERS[kind.kind](value)
    if isinstance(value, str):
        value = json_in(value)
    if kind.kind == "array" and kind.item and isinstance(value, list):
        return [_read_typed(kind.item, each) for each in value]
    if kind.kind == "map" and kind.item and isinstance(value, dict):
        return {name: _read_typed(kind.item, each) for name, each in value.items()}
    if kind.kind == "struct" and isinstance(value, dict):
        return {name: _read_typed(of, value.get(name)) for name, of in kind.fields}
    raise ValueError


def json_in(text: str) -> Any:
    """The value of a text that holds JSON; numbers with a fraction as `read_object` gives them. Raises ValueError."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError from error


def value_at(record: Any, location: Path) -> Any:
    """The value at a place in a record: null if any part of the way is missing or is not an object or an array."""
    for part in location:
        if isinstance(record, dict):
            record = record.get(part)
        elif isinstance(record, list) and isinstance(part, int) and part < len(record):
            record = record[part]
        else:
            return None
    return record


def split_texts(parse: Parse, texts: pa.Array) -> list[dict[str, Any] | None]:
    """For each text, the columns of its groups; None if the pattern does not match all of it, or a group is unreadable.

    A group that is not part of the match is null.
    """
    return [None if groups is None else _derive_all(parse, groups) for groups in groups_of(parse.pattern, texts)]


def split_text(parse: Parse, text: str) -> dict[str, Any] | None:
    """`split_texts` for one text. Texts repeat, so the latest are kept; do not change the result."""
    return (_split_short if len(text) <= _MAX_KEPT_CHARACTERS else _split)(parse, text)


def _split(parse: Parse, text: str) -> dict[str, Any] | None:
    return split_texts(parse, pa.array([text], pa.string()))[0]


_split_short = lru_cache(maxsize=4096)(_split)


def _derive_all(parse: Parse, groups: tuple[str | None, ...]) -> dict[str, Any] | None:
    try:
        return {part.column: _derive(part, group) for part, group in zip(parse.into, groups, strict=True)}
    except ValueError:
        return None


def _derive(part: DerivedColumn, text: str | None) -> Any:
    return text if part.type == "string" or text is None else reader_of(part)(text)


def _integer(value: Any, bits: int) -> int:
    value = unwrapped_number(value)
    if isinstance(value, str):
        value = integer_of_text(value)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    # In Python bool is a subclass of int.
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << bits) <= value < 1 << bits:
        raise ValueError
    return value


def _double(value: Any) -> float:
    value = unwrapped_number(value)
    if isinstance(value, str):
        if not DECIMAL.fullmatch(value):
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


def _float(value: Any) -> float:
    """The nearest 32-bit number of the nearest 64-bit one."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", _double(value)))[0])
    except OverflowError as error:
        raise ValueError from error


def read_decimal(value: Any, precision: int, scale: int) -> Decimal:
    """The number with exactly `scale` digits after the point. Raises ValueError if it has more, or is too large."""
    value = unwrapped_number(value)
    if isinstance(value, float):
        value = repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        # str() refuses more than 4,300 digits.
        value = str(value) if abs(value) < 10**MAX_CHARACTERS else ""
    if not isinstance(value, str):
        raise ValueError
    sign, digits, exponent = Decimal(checked_number(value).strip()).as_tuple()
    # Not by way of the decimal module's arithmetic, which rounds to 28 digits.
    number = int("".join(map(str, digits)))
    shift = int(exponent) + scale
    if number and shift > precision:
        raise ValueError
    if number and shift < 0:
        number, rest = divmod(number, 10 ** min(-shift, 2 * MAX_CHARACTERS))
        if rest:
            raise ValueError
    elif number:
        number *= 10**shift
    if number >= 10**precision:
        raise ValueError
    return Decimal((sign if number else 0, tuple(map(int, str(number))), -scale))


def _binary(value: Any) -> bytes:
    """Base64 of RFC 4648 with its padding; no line breaks."""
    if not isinstance(value, str):
        raise ValueError
    return base64.b64decode(value, validate=True)


def read_json(value: Any) -> str:
    """JSON text. A text must hold JSON, and stays as it is; any other value becomes its JSON text."""
    if isinstance(value, str):
        json_in(value)
        return value
    return as_text(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "string": as_text,
    "int": partial(_integer, bits=INTEGER_BITS["int"]),
    "long": partial(_integer, bits=INTEGER_BITS["long"]),
    "double": _double,
    "boolean": boolean_words().read,
    "date": time_format("date").read,
    "timestamp": time_format("timestamp").read,
    "float": _float,
    "binary": _binary,
    "json": read_json,
}
