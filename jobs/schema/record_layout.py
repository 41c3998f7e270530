"""Where a contract's values are in a record: decodes records natively, or takes decoded ones apart.

In: a record's bytes, or the object that `read_object` decoded from them. Out: the value of each column, as
`jobs.schema.decoded_types` describes it, and what no column names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from jobs.schema.columns import SourceColumn
from jobs.schema.decoded_types import DecodedType, can_name_a_field, decoded_type, strict_struct
from jobs.schema.numbers import integer_or_text
from jobs.schema.types import data_type

# `None` is a value of a record.
_NOTHING: Any = object()


class _Node:
    """A place in a record: the columns that have its value, by number, and the places within it."""

    def __init__(self) -> None:
        self.columns: list[int] = []
        self.children: dict[str | int, _Node] = {}


class RecordLayout:
    """The layout of the records of one contract.

    types      each column's DecodedType
    decode     decodes a record into a struct. Raises msgspec.MsgspecError for a field that no column names, and for a
               value of an unusual type. None if the contract's places have no struct: an index of an array, a value
               that columns of unlike types share, or a quote in a field's name. Then every record is taken
               apart by `take_apart`
    getters    each column's value in such a struct
    nothing    the struct of a record without values
    """

    def __init__(self, columns: Sequence[SourceColumn]) -> None:
        self.types: list[DecodedType] = [
            decoded_type(data_type(column.type), column.value_format) for column in columns
        ]
        self._root = _Node()
        for number, column in enumerate(columns):
            node = self._root
            for part in column.location:
                node = node.children.setdefault(part, _Node())
            node.columns.append(number)
        self.getters: list[Callable[[Any], Any]] = [_no_value for _ in columns]
        struct = self._struct(self._root, "")
        self.decode: Callable[[bytes], Any] | None = None
        self.nothing: Any = None
        if struct is None:
            self.getters = [_no_value for _ in columns]
        else:
            self.decode = msgspec.json.Decoder(struct, float_hook=integer_or_text).decode
            self.nothing = struct()

    def _struct(self, node: _Node, prefix: str) -> Any:
        """The msgspec struct of a node's children; None if there is none. Sets the getters of their columns."""
        fields: dict[str, tuple[str, Any, Any]] = {}
        for number, (name, child) in enumerate(node.children.items()):
            # Named by position, because a field may have a Python keyword as its name.
            attribute = f"c{number}"
            kinds = [self.types[column].native for column in child.columns]
            if (
                isinstance(name, int)
                or not can_name_a_field(name)
                or (child.columns and child.children)
                or any(kind != kinds[0] for kind in kinds)
            ):
                return None
            if child.children:
                inner = self._struct(child, f"{prefix}{attribute}.")
                if inner is None:
                    return None
                fields[name] = (attribute, inner, msgspec.field(default_factory=inner))
            else:
                fields[name] = (attribute, kinds[0], None)
            for column in child.columns:
                self.getters[column] = attrgetter(f"{prefix}{attribute}")
        return strict_struct(fields)

    def take_apart(self, record: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The value of each column, and the part of the record that no column names.

        Unnamed fields of an object stay at their place: {"user": {"id": 1, "age": 5}} leaves {"user": {"age": 5}} if
        a column has `user.id`. An array, or a value of a nested type, of which some part is unnamed is left as a whole.
        """
        values: list[Any] = [None] * len(self.types)
        return values, self._take_object(self._root, record, values)

    def _take_object(self, node: _Node, record: dict[str, Any], values: list[Any]) -> dict[str, Any]:
        rest: dict[str, Any] = {}
        for name, value in record.items():
            child = node.children.get(name)
            left = value if child is None else self._take(child, value, values)
            if left is not _NOTHING:
                rest[name] = left
        return rest

    def _take(self, node: _Node, value: Any, values: list[Any]) -> Any:
        """Takes the columns' values from the value at a node. Returns what no column names, or _NOTHING."""
        unnamed: list[str] = []
        for number in node.columns:
            values[number] = self.types[number].adapt(value, unnamed)
        left = _NOTHING if value is None else value
        if isinstance(value, dict) and node.children:
            left = self._take_object(node, value, values) or _NOTHING
        elif isinstance(value, list) and node.children:
            parts = [
                each if (child := node.children.get(index)) is None else self._take(child, each, values)
                for index, each in enumerate(value)
            ]
            left = value if any(part is not _NOTHING for part in parts) else _NOTHING
        if node.columns:
            return value if unnamed else _NOTHING
        return left


def _no_value(_: Any) -> None:
    return None
