"""A slow, obvious reader of records by a contract, written from docs/contract.md and from none of the project's code.

It knows no native decoding, no Arrow and no columns at once: one record, one column, one value at a time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import re
import struct
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from jobs.schema.columns import SourceColumn
from jobs.schema.table import TableContract
from jobs.schema.types import DataType, data_type

GREENWICH = ZoneInfo("UTC")


class Refused(Exception):
    """The record cannot be a row."""


class Number(str):
    """A number of the JSON text with a fraction or an exponent, as it is written."""


def read_row(data: bytes, contract: TableContract, salt: str = "") -> dict[str, Any]:
    """The row of a record, by column. Raises Refused."""
    record = parse(data.decode())
    if not isinstance(record, dict):
        raise Refused
    row: dict[str, Any] = {}
    for column in contract.record_columns:
        value = record
        for part in column.location:
            if isinstance(value, dict) and isinstance(part, str):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                value = None
        found = judged(value, column)
        if column.privacy == "sha256" and found:
            found = hashlib.sha256((salt + found).encode()).hexdigest()
        if column.privacy != "drop":
            row[column.column] = found
    for column in contract.columns:
        if column.constant is not None:
            row[column.column] = column.constant
        elif column.from_ is not None:
            value = row[column.from_]
            row[column.column] = None if value is None else transformed(value, column)
    return row


def transformed(value: Any, column: SourceColumn) -> Any:
    name, _, size = str(column.transform).strip("]").partition("[")
    if isinstance(value, datetime):
        try:
            value = value.astimezone(ZoneInfo(column.timezone or "UTC"))
        except OverflowError as error:
            raise Refused from error
    if name == "truncate" and isinstance(value, str | bytes):
        return value[: int(size)]
    if name == "truncate":
        kind = data_type(column.type)
        scale = kind.scale if isinstance(value, Decimal) else 0
        units = math.floor(Fraction(value) * 10**scale / int(size)) * int(size)
        lowest = {"int": -(2**31), "long": -(2**63)}.get(kind.kind, 1 - 10**kind.precision)
        if units < lowest:
            raise Refused
        digits = Decimal((units < 0, tuple(map(int, str(abs(units)))), -scale))
        return digits if isinstance(value, Decimal) else units
    return {
        "lower": lambda: value.lower(),
        "date": lambda: value.date(),
        "hour": lambda: value.hour,
        "month": lambda: value.isoformat()[:7],
        "year": lambda: value.year,
    }[name]()


def judged(value: Any, column: SourceColumn) -> Any:
    """The column's value after its checks and `on_fail`. Raises Refused."""
    if value in (None, ""):
        if column.required and column.on_fail == "reject":
            raise Refused
        return column.default
    try:
        found = read_column(value, column)
    except Refused:
        if column.on_fail == "null":
            return None
        raise
    if not breaks_a_rule(found, column) or column.on_fail == "warn":
        return found
    if column.on_fail == "null":
        return None
    raise Refused


def breaks_a_rule(value: Any, column: SourceColumn) -> bool:
    if value in (None, ""):
        return False
    if (column.min is not None and value < column.min) or (column.max is not None and value > column.max):
        return True
    if column.allowed is not None and value not in column.allowed:
        return True
    if column.max_length is not None and len(value) > column.max_length:
        return True
    return column.pattern is not None and re.fullmatch(column.pattern, value) is None


def read_column(value: Any, column: SourceColumn) -> Any:
    if column.true_values or column.false_values:
        return named_boolean(value, column)
    if column.format is None and column.timezone is None:
        return read(value, data_type(column.type))
    zone = ZoneInfo(column.timezone or "UTC")
    found = formatted(value, column.format or "iso", zone)
    if column.type == "timestamp":
        return found
    return found.astimezone(zone).date()


def named_boolean(value: Any, column: SourceColumn) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str | int):
        raise Refused
    word = str(value).strip().lower()
    with contextlib.suppress(Refused):
        word = str(whole(10**3)(word))
    for listed, meaning in ((("true", *column.true_values), True), (("false", *column.false_values), False)):
        if word in [str(each).lower() for each in listed]:
            return meaning
    raise Refused


def formatted(value: Any, form: str, zone: ZoneInfo) -> datetime:
    """The time in UTC; of a date, the midnight of its day."""
    units = {"epoch_seconds": 1, "epoch_millis": 10**3, "epoch_micros": 10**6}
    if form in units:
        numerator, denominator = number(value).as_integer_ratio()
        micros = numerator * 10**6 // (denominator * units[form])
        try:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
        except OverflowError as error:
            raise Refused from error
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, Number):
        value = str(whole(10**3)(value))
    if not isinstance(value, str):
        raise Refused
    if form == "iso":
        return moment(value, zone)
    directives = {
        "M/d/yyyy": "%m/%d/%Y",
        "dd-MMM-yy": "%d-%b-%y",
        "yyyyMMdd": "%Y%m%d",
        "yyyy-MM-dd HH:mm:ss": "%Y-%m-%d %H:%M:%S",
        "M/d/yyyy h:mm a": "%m/%d/%Y %I:%M %p",
        "yyyy-MM-dd HH:mm:ss.SSS X": "%Y-%m-%d %H:%M:%S.%f %z",
    }[form]
    shape = "".join(
        r"\d\d?" if letters in ("M", "d", "h") else r"\d{1,3}" if letters == "SSS" else
        r"\S+" if letters == "X" else r"\w" * len(letters) if letters != "a" else r"\w\w"
        if letters[0].isalpha() else re.escape(letters)
        for letters in re.findall(r"([A-Za-z]+|[^A-Za-z])", form)
    )  # fmt: skip
    try:
        found = datetime.strptime(value, directives)
    except ValueError as error:
        raise Refused from error
    if not re.fullmatch(shape, value, re.ASCII):
        raise Refused
    if form == "dd-MMM-yy" and found.year < 2000:
        found = found.replace(year=found.year + 100)
    try:
        return found.astimezone(UTC) if found.tzinfo else in_zone(found, zone)
    except OverflowError as error:
        raise Refused from error


def in_zone(local: datetime, zone: ZoneInfo) -> datetime:
    """The first time at which the zone's clock shows `local`; if it skips that time, as much later as it skips."""
    naive = local.replace(tzinfo=UTC)
    day = timedelta(days=1)
    offsets = {at.astimezone(zone).utcoffset() or timedelta() for at in (naive - day, naive, naive + day)}
    shown = [naive - offset for offset in offsets]
    found = [at for at in shown if at.astimezone(zone).replace(tzinfo=None) == local]
    return min(found) if found else naive - ((naive - day).astimezone(zone).utcoffset() or timedelta())


def parse(text: str) -> Any:
    def refuse(_: str) -> Any:
        raise Refused

    try:
        return json.loads(text, parse_float=Number, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Refused from error


def read(value: Any, kind: DataType) -> Any:
    if value is None or (isinstance(value, str) and value == ""):
        return None
    if kind.is_nested:
        if isinstance(value, str):
            value = parse(value)
        if kind.kind == "array" and isinstance(value, list):
            assert kind.item
            return [read(each, kind.item) for each in value]
        if kind.kind == "map" and isinstance(value, dict):
            assert kind.item
            return {name: read(each, kind.item) for name, each in value.items()}
        if kind.kind == "struct" and isinstance(value, dict):
            return {name: read(value.get(name), of) for name, of in kind.fields}
        raise Refused
    return {
        "string": json_or_text, "json": valid_json, "boolean": boolean, "date": day, "timestamp": moment,
        "binary": blob, "int": whole(31), "long": whole(63), "double": double,
        "float": lambda of: single(double(of)),
        "decimal": lambda of: fixed(of, kind.precision, kind.scale),
    }[kind.kind](value)  # fmt: skip


def json_or_text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    return written(value)


def written(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{written(name)}:{written(each)}" for name, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def valid_json(value: Any) -> str:
    if isinstance(value, str) and not isinstance(value, Number):
        parse(value)
    return json_or_text(value)


def number(value: Any) -> Decimal:
    text = str(value).strip(" \t\n\r\x0b\x0c") if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if len(str(value)) > 64 or not text.isascii() or not set(text) <= set("0123456789.eE+-"):
        raise Refused
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise Refused from error


def whole(bits: int) -> Any:
    def of(value: Any) -> int:
        found = number(value)
        if (found and found.adjusted() > 30) or found != found.to_integral_value() or found.adjusted() < -900:
            raise Refused
        if not -(2**bits) <= int(found) < 2**bits:
            raise Refused
        return int(found)

    return of


def fixed(value: Any, precision: int, scale: int) -> Decimal:
    found = number(value)
    if found and found.adjusted() > 40:
        raise Refused
    ratio = found.as_integer_ratio()
    shifted = ratio[0] * 10**scale
    if shifted % ratio[1] or abs(shifted // ratio[1]) >= 10**precision:
        raise Refused
    units = shifted // ratio[1]
    return Decimal((units < 0, tuple(map(int, str(abs(units)))), -scale))


def double(value: Any) -> float:
    found = float(number(value))
    if math.isinf(found):
        raise Refused
    return found


def single(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError as error:
        raise Refused from error


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    try:
        return {"true": True, "false": False}[value.strip().lower()]
    except (KeyError, AttributeError) as error:
        raise Refused from error


def day(value: Any) -> date:
    try:
        return datetime.strptime(value, "%Y-%m-%d").date()
    except (TypeError, ValueError) as error:
        raise Refused from error


def moment(value: Any, zone: ZoneInfo = GREENWICH) -> datetime:
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else in_zone(found, zone)
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused from error


def blob(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError) as error:
        raise Refused from error
