"""How JSON values are decoded for each type: natively by msgspec, or from plain Python values with the same result.

msgspec decodes what needs no interpretation: a text for a date, any value for an integer, a struct of its own for each
`struct<…>`. Anything else fails there, and `DecodedType.adapt` makes the same kind of value from the decoded JSON.
`jobs.schema.arrow_values` turns both into Arrow.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from jobs.schema.booleans import BooleanWords
from jobs.schema.numbers import integer_or_text
from jobs.schema.times import TimeFormat, time_format
from jobs.schema.types import DataType
from jobs.schema.values import as_text, json_in

# The types that msgspec accepts; `str | None` for all others. An integer or decimal accepts any type, because msgspec
# calls `float_hook`, which keeps a number's text, only for fields of any type.
_NATIVE: dict[str, Any] = {
    "int": Any,
    "long": Any,
    "decimal": Any,
    "float": float | str | None,
    "double": float | str | None,
    "boolean": bool | str | None,
    "json": msgspec.Raw,
}
# The Python type that is kept as it is; any other value becomes text.
_KEPT = {"int": int, "long": int, "decimal": int, "float": int, "double": int, "boolean": bool}


class DecodedType:
    """A column's type, with the msgspec type `native` that decodes its values.

    format   how its values are read, if not as the type's own notation says
    item     of an array or a map: its items or values
    record   of a struct: the class of its values
    fields   of a struct: (name in JSON, attribute of `record`, type) of each field
    """

    def __init__(self, kind: DataType, form: TimeFormat | BooleanWords | None = None) -> None:
        self.kind = kind.kind
        self.format = form or (time_format(kind.kind) if kind.kind in ("date", "timestamp") else None)
        self.type = kind
        self.item = decoded_type(kind.item) if kind.item else None
        self.fields = tuple((name, f"f{number}", decoded_type(of)) for number, (name, of) in enumerate(kind.fields))
        self.record: Any = None
        if self.fields:
            self.record = strict_struct({name: (attribute, of.native, None) for name, attribute, of in self.fields})
        self.native: Any = self.format.native if self.format else _NATIVE.get(self.kind, str | None)
        if self.item is not None:
            item: Any = self.item.native
            self.native = (list[item] if self.kind == "array" else dict[str, item]) | None
        elif self.record is not None:
            self.native = self.record | None

    @property
    def inner(self) -> DecodedType:
        """The type of an array's items or a map's values."""
        if self.item is None:
            raise TypeError(f"{self.type} has no items")
        return self.item

    def adapt(self, value: Any, unnamed: list[str]) -> Any:
        """The value (of `read_object`) as msgspec decodes it. A value of another type is returned as it is, or as text.

        Adds to `unnamed` the fields of structs that the type does not name.
        """
        if value is None or value == "":
            return value
        if not self.type.is_nested:
            return self._adapt_leaf(value)
        text = value
        if isinstance(value, str):
            try:
                value = json_in(value)
            except ValueError:
                return text
        if self.item is not None and self.kind == "array" and isinstance(value, list):
            return [self.item.adapt(each, unnamed) for each in value]
        if self.item is not None and self.kind == "map" and isinstance(value, dict):
            return {name: self.item.adapt(each, unnamed) for name, each in value.items()}
        if self.record is not None and isinstance(value, dict):
            unnamed.extend(value.keys() - dict(self.type.fields).keys())
            return self.record(**{attribute: of.adapt(value.get(name), unnamed) for name, attribute, of in self.fields})
        return text

    def _adapt_leaf(self, value: Any) -> Any:
        if type(value) is _KEPT.get(self.kind):
            return value
        if self.format is not None:
            # Its reader decides, so that a number or a boolean is not taken for the text of one.
            return integer_or_text(as_text(value)) if isinstance(value, msgspec.Raw) else value
        if self.kind in ("int", "long") and isinstance(value, msgspec.Raw):
            return integer_or_text(as_text(value))
        # A number, a boolean or an array is kept as its JSON text, as a CSV file has it.
        return as_text(value)


@lru_cache(maxsize=1024)
def decoded_type(kind: DataType, form: TimeFormat | BooleanWords | None = None) -> DecodedType:
    """The DecodedType of a type and a format, made once."""
    return DecodedType(kind, form)


def can_name_a_field(name: str) -> bool:
    """Whether a msgspec struct can have a field of this name in JSON: no quote, backslash or control character."""
    return not any(char in '"\\' or char < " " for char in name)


def strict_struct(fields: dict[str, tuple[str, Any, Any]]) -> Any:
    """A msgspec struct that refuses unknown fields: by name in JSON, the (attribute, type, default)."""
    return msgspec.defstruct(
        "Record",
        list(fields.values()),
        rename={attribute: name for name, (attribute, _, _) in fields.items()},
        forbid_unknown_fields=True,
        gc=False,
    )
