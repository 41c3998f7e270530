"""Decoded values become Arrow columns, with a mask of the values that cannot be of the column's type.

In: a list of values as `jobs.schema.decoded_types` describes them. Usual values are converted as a whole. If one of
them is unusual, each is read by `jobs.schema.values`, which decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.schema.column_checks import without_zero_fractions
from jobs.schema.decoded_types import DecodedType
from jobs.schema.types import ARROW_TYPES, DataType
from jobs.schema.values import is_absent, json_in, read_json, read_value

_INTEGERS = ("int", "long")
_NO_ARROW_VALUE = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)
_UNREADABLE = (ValueError, RecursionError, msgspec.MsgspecError)


def to_arrow(values: list[Any], of: DecodedType) -> tuple[pa.Array, pa.Array | None]:
    """The values as Arrow, and a mask of those that are not of the type; None: all are. Absent and wrong ones are null.

    A value is wrong if any part of it is.
    """
    if of.type.is_nested:
        array, wrong = _NESTED[of.kind](values, of)
        return array, pa.array(wrong) if wrong.any() else None
    array = of.format.to_arrow(values) if of.format else _LEAVES.get(of.kind, _usual)(values, of.type)
    if of.kind == "string" or not array.null_count:
        return array, None
    wrong = pc.and_(pc.is_null(array), pa.array([not _is_null(value) for value in values], pa.bool_()))
    return array, wrong


def _is_null(value: Any) -> bool:
    return is_absent(value) or (type(value) is msgspec.Raw and bytes(value) == b"null")


def _usual(values: list[Any], kind: DataType) -> pa.Array:
    name, target = kind.kind, ARROW_TYPES[kind.kind]
    # Arrow would convert true to 1.
    if name in ("double", "boolean") or (name in _INTEGERS and bool not in set(map(type, values))):
        try:
            return pa.array(values, target)
        except _NO_ARROW_VALUE:
            pass
    try:
        texts = pa.array(values, pa.string())
        if name == "string":
            return texts
        if name in _INTEGERS:
            # Numbers in quotes, as the producer sends them. Only plain digits, because a cast also accepts 0x10.
            if not pc.all(pc.ascii_is_decimal(texts)).as_py():
                # pandas writes 446.0, and an empty text for a blank.
                texts = without_zero_fractions(pc.if_else(pc.equal(texts, ""), None, texts))
            if pc.all(pc.ascii_is_decimal(texts)).as_py():
                return texts.cast(target)
    except _NO_ARROW_VALUE:
        pass
    return _one_by_one(values, kind)


def _one_by_one(values: list[Any], kind: DataType) -> pa.Array:
    return pa.array([_read(str(kind), value) for value in values], kind.arrow())


def _read(kind: str, value: Any) -> Any:
    if is_absent(value):
        return None
    try:
        return read_value(kind, value)
    except _UNREADABLE:
        return None


def _decimals(values: list[Any], kind: DataType) -> pa.Array:
    kinds = set(map(type, values))
    if bool not in kinds:
        try:
            texts = pa.array(values if int not in kinds else [_integer_text(value) for value in values], pa.string())
            texts = pc.if_else(pc.equal(texts, ""), None, texts)
            # The plain texts that fit, whose cast is exact.
            whole = kind.precision - kind.scale
            plain = rf"^-?[0-9]{{1,{whole}}}(\.[0-9]{{1,{kind.scale}}})?$" if kind.scale else rf"^-?[0-9]{{1,{whole}}}$"
            if whole and pc.all(pc.match_substring_regex(texts, plain)).as_py():
                return texts.cast(kind.arrow())
        except (*_NO_ARROW_VALUE, ValueError):
            pass
    return _one_by_one(values, kind)


def _integer_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _floats(values: list[Any], _: DataType) -> pa.Array:
    narrow = _usual(values, DataType("double")).cast(pa.float32())
    return pc.if_else(pc.is_inf(narrow), None, narrow)


def _json(values: list[Any], _: DataType) -> pa.Array:
    return pa.array([_json_text(value) for value in values], pa.string())


def _json_text(value: Any) -> str | None:
    try:
        if type(value) is msgspec.Raw:
            value = json_in(str(value, "utf-8"))
        return None if is_absent(value) else read_json(value)
    except _UNREADABLE:
        return None


_LEAVES = {"decimal": _decimals, "float": _floats, "json": _json, "binary": _one_by_one}


def _arrays(values: list[Any], of: DecodedType) -> tuple[pa.Array, np.ndarray]:
    found, absent, wrong = _containers(values, list)
    lengths = list(map(len, found))
    items = list(chain.from_iterable(found))
    array, wrong_items = to_arrow(items, of.inner)
    _mark_rows(wrong, lengths, wrong_items)
    return pa.ListArray.from_arrays(_offsets(lengths), array, type=of.type.arrow(), mask=absent), wrong


def _maps(values: list[Any], of: DecodedType) -> tuple[pa.Array, np.ndarray]:
    found, absent, wrong = _containers(values, dict)
    lengths = list(map(len, found))
    keys = pa.array(list(chain.from_iterable(found)), pa.string())
    items, wrong_items = to_arrow(list(chain.from_iterable(map(dict.values, found))), of.inner)
    _mark_rows(wrong, lengths, wrong_items)
    return pa.MapArray.from_arrays(_offsets(lengths), keys, items, type=of.type.arrow(), mask=absent), wrong


def _structs(values: list[Any], of: DecodedType) -> tuple[pa.Array, np.ndarray]:
    found, absent, wrong = _containers(values, of.record)
    columns = []
    for _, attribute, kind in of.fields:
        column, wrong_ones = to_arrow(list(map(attrgetter(attribute), found)), kind)
        columns.append(column)
        if wrong_ones is not None:
            wrong |= wrong_ones.to_numpy(zero_copy_only=False)
    return pa.StructArray.from_arrays(columns, fields=list(of.type.arrow()), mask=absent), wrong


_NESTED = {"array": _arrays, "map": _maps, "struct": _structs}


def _containers(values: list[Any], kind: Any) -> tuple[list[Any], pa.Array | None, np.ndarray]:
    """The values with an empty container for each other value, a mask of those others, and of the wrong among them."""
    if set(map(type, values)) <= {kind}:
        return values, None, np.zeros(len(values), bool)
    other = [type(value) is not kind for value in values]
    wrong = np.array([no and not is_absent(value) for no, value in zip(other, values, strict=True)], bool)
    empty = kind()
    return [empty if no else value for no, value in zip(other, values, strict=True)], pa.array(other), wrong


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))), pa.int32())


def _mark_rows(wrong: np.ndarray, lengths: Sequence[int], wrong_items: pa.Array | None) -> None:
    """Marks the rows whose items are wrong."""
    if wrong_items is not None:
        rows = np.repeat(np.arange(len(lengths)), lengths)
        wrong[rows[wrong_items.to_numpy(zero_copy_only=False)]] = True
