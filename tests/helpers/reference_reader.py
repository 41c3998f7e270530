"""A slow, obvious reader of records by a contract, written from docs/contract.md and from none of the project's code.

It knows no native decoding, no Arrow and no columns at once: one record, one column, one value at a time.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from jobs.schema.table import TableContract
from jobs.schema.types import DataType, data_type


class Refused(Exception):
    """The record cannot be a row."""


class Number(str):
    """A number of the JSON text with a fraction or an exponent, as it is written."""


def read_row(data: bytes, contract: TableContract) -> dict[str, Any]:
    """The row of a record, by column. Raises Refused. Checks `required`, types and defaults, and no rules."""
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
        found = read(value, data_type(column.type)) if value not in (None, "") else column.default
        if column.required and value in (None, ""):
            raise Refused
        row[column.column] = found
    return row


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


def moment(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Refused from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def blob(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError) as error:
        raise Refused from error
