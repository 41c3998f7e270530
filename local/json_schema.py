"""Infers Hive column types from sample JSON objects, as a Glue crawler does. Names are lower-cased.

`local.crawler` reads the objects and writes the columns to the catalog.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

# The type of one field: a Hive type's name, a struct's fields, or an array's element. None: only nulls so far.
HiveType = str | dict[str, Any] | list[Any] | None

_WIDENING = ("int", "bigint", "double")
_INT_MAX = 2**31 - 1


def objects_in(text: str) -> Iterator[Any]:
    """The JSON values of `text`, with or without white space between them, up to the first invalid JSON."""
    decoder = json.JSONDecoder()
    at, end = 0, len(text)
    while True:
        while at < end and text[at].isspace():
            at += 1
        if at == end:
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            return  # a sample is enough; the job handles bad records
        yield value


def columns_of(objects: Iterable[Any]) -> list[tuple[str, str]]:
    """(column, Hive type) of the objects' fields, in the order in which they first appear."""
    merged: dict[str, HiveType] = {}
    for found in objects:
        if isinstance(found, dict):
            merged = _merge_fields(merged, found)
    return [(name, hive_name(kind)) for name, kind in merged.items()]


def hive_name(kind: HiveType) -> str:
    """The type's name in the catalog, such as `int`, `array<string>` or `struct<a:int,b:string>`."""
    if kind is None:
        return "string"
    if isinstance(kind, str):
        return kind
    if isinstance(kind, list):
        return f"array<{hive_name(kind[0])}>"
    return f"struct<{','.join(f'{name}:{hive_name(inner)}' for name, inner in kind.items())}>"


def merge(one: HiveType, other: HiveType) -> HiveType:
    """The narrowest type that holds both; string if no other does."""
    if one is None or one == other:
        return other
    if other is None:
        return one
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{name: merge(one.get(name), kind) for name, kind in other.items()}}
    if isinstance(one, list) and isinstance(other, list):
        return [merge(one[0], other[0])]
    if one in _WIDENING and other in _WIDENING:
        return max(str(one), str(other), key=_WIDENING.index)
    return "string"


def merge_names(one: str | None, other: str) -> str:
    """`merge` for type names; of two nested types it returns the second, which is newer."""
    return other if one is None or "<" in one or "<" in other else hive_name(merge(one, other))


def _merge_fields(known: dict[str, HiveType], found: dict[str, Any]) -> dict[str, HiveType]:
    merged = dict(known)
    for name, value in found.items():
        merged[name.lower()] = merge(merged.get(name.lower()), _type_of(value))
    return merged


def _type_of(value: Any) -> HiveType:
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "int" if abs(value) <= _INT_MAX else "bigint"
    if isinstance(value, float):
        return "double"
    if isinstance(value, dict):
        return _merge_fields({}, value)
    if isinstance(value, list):
        element: HiveType = None
        for inner in value:
            element = merge(element, _type_of(inner))
        return [element]
    return "string"
