"""The types of columns: their notation, and each as Arrow, Hive (Glue, Athena) and Spark name it.

A type is written as Spark writes it: `long`, `decimal(10,2)`, `array<struct<sku:string,qty:int>>`. Two differ: `long`
is Spark's bigint, and `json` is a string that always holds valid JSON.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

# The types without parameters, as Arrow.
ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "binary": pa.binary(),
    "json": pa.string(),
}
# Values of the integer types are from -2^bits to 2^bits - 1.
INTEGER_BITS = {"int": 31, "long": 63}
NOTATION = f"{', '.join(ARROW_TYPES)}, decimal(10,2), array<TYPE>, map<string,TYPE> and struct<NAME:TYPE,…>"
# Spark and Delta take decimals of at most 38 digits.
MAX_PRECISION = 38
# Parquet readers recurse into nested types.
_MAX_DEPTH = 32

# What others call a type.
_KNOWN_ELSEWHERE = {
    **dict.fromkeys(("integer", "int32", "smallint", "short", "tinyint", "byte"), "int"),
    **dict.fromkeys(("bigint", "int64"), "long"),
    **dict.fromkeys(("bool", "bit"), "boolean"),
    **dict.fromkeys(("text", "str", "varchar", "char", "uuid", "enum"), "string"),
    **dict.fromkeys(("float32", "real"), "float"),
    **dict.fromkeys(("float64", "number"), "double"),
    **dict.fromkeys(("timestamptz", "timestamp_ntz", "timestamp_ltz", "datetime", "time"), "timestamp"),
    **dict.fromkeys(("bytes", "bytea", "blob", "varbinary"), "binary"),
    **dict.fromkeys(("numeric", "dec", "money"), "decimal(10,2)"),
    **dict.fromkeys(("jsonb", "variant", "super"), "json"),
    **dict.fromkeys(("object", "record", "row"), "struct<NAME:TYPE,…> or json"),
    **dict.fromkeys(("list", "repeated"), "array<TYPE>"),
    "dict": "map<string,TYPE>",
    "decimal": "decimal(10,2)",
    "array": "array<TYPE>",
    "map": "map<string,TYPE>",
    "struct": "struct<NAME:TYPE,…>",
}
_TOKEN = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]*)|(\d+)|([<>(),:]))")


@dataclass(frozen=True)
class DataType:
    """A type. `str()` gives its notation.

    kind              a name of ARROW_TYPES, or decimal, array, map, struct
    precision, scale  of a decimal: its digits, and how many of them follow the point
    item              of an array: its items' type; of a map: its values' type. A map's keys are strings
    fields            of a struct: (name, type) of each field
    """

    kind: str
    precision: int = 0
    scale: int = 0
    item: DataType | None = None
    fields: tuple[tuple[str, DataType], ...] = ()

    def __str__(self) -> str:
        return self._named({})

    @property
    def is_nested(self) -> bool:
        """Whether it is an array, a map or a struct."""
        return self.kind in ("array", "map", "struct")

    def parts(self) -> Iterator[DataType]:
        """The type itself and all types within it."""
        yield self
        for part in (self.item, *(kind for _, kind in self.fields)):
            if part is not None:
                yield from part.parts()

    def _named(self, other: dict[str, str]) -> str:
        """The notation, with the names in `other` for some types without parameters."""
        if self.kind == "decimal":
            return f"decimal({self.precision},{self.scale})"
        if self.kind == "struct":
            return f"struct<{','.join(f'{name}:{kind._named(other)}' for name, kind in self.fields)}>"
        if self.item is not None:
            return f"{self.kind}<{'string,' if self.kind == 'map' else ''}{self.item._named(other)}>"
        return other.get(self.kind, self.kind)

    def hive(self) -> str:
        """The name in Hive, Glue and Athena."""
        return self._named({"long": "bigint", "json": "string"})

    def arrow(self) -> pa.DataType:
        """The type as Arrow, and so as Parquet. List items are named `element`, as Parquet files name them."""
        if self.kind == "decimal":
            return pa.decimal128(self.precision, self.scale)
        if self.kind == "struct":
            return pa.struct([pa.field(name, kind.arrow()) for name, kind in self.fields])
        if self.item is not None:
            item = self.item.arrow()
            return pa.list_(pa.field("element", item)) if self.kind == "array" else pa.map_(pa.string(), item)
        return ARROW_TYPES[self.kind]

    def spark_json(self) -> Any:
        """The type in the JSON of a Spark or Delta schema."""
        if self.kind == "struct":
            fields = [
                {"name": name, "type": kind.spark_json(), "nullable": True, "metadata": {}}
                for name, kind in self.fields
            ]
            return {"type": "struct", "fields": fields}
        if self.kind == "array" and self.item:
            return {"type": "array", "elementType": self.item.spark_json(), "containsNull": True}
        if self.item:
            value = self.item.spark_json()
            return {"type": "map", "keyType": "string", "valueType": value, "valueContainsNull": True}
        return self._named({"int": "integer", "json": "string"})


@lru_cache(maxsize=1024)
def data_type(text: str) -> DataType:
    """Parses the notation of a type.

    >>> str(data_type("Array< struct<sku:string, qty:int> >"))
    'array<struct<sku:string,qty:int>>'

    Raises ValueError that names the mistake and the nearest type.
    """
    tokens, at = [], 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"{text[at:].strip()[:20]!r} is not part of a type; types are {NOTATION}")
        tokens.append(found[0].strip())
        at = found.end()
    return _Reader(tokens).read()


@lru_cache(maxsize=1024)
def arrow_type(text: str) -> pa.DataType:
    """The Arrow type of a type in its notation."""
    return data_type(text).arrow()


class _Reader:
    """Reads a type from its tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = [*tokens, ""]
        self._at = 0

    def read(self) -> DataType:
        found = self._type(0)
        if self._next:
            raise ValueError(f"{self._next!r} follows the type {found}; types are {NOTATION}")
        return found

    @property
    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        found = self._next
        self._at += 1
        return found

    def _expect(self, token: str, where: str) -> None:
        if self._next != token:
            got = f"not {self._next!r}" if self._next else "but the type ends"
            raise ValueError(f"{where}: expected {token!r}, {got}; types are {NOTATION}")
        self._at += 1

    def _type(self, depth: int) -> DataType:
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep; take json for the inner value")
        kind = self._take().lower() if re.match("[A-Za-z_]", self._next) else ""
        if kind in ARROW_TYPES:
            return DataType(kind)
        if kind == "decimal" and self._next == "(":
            return self._decimal()
        if kind == "struct" and self._next == "<":
            return DataType(kind, fields=self._fields(depth))
        if kind in ("array", "map") and self._next == "<":
            self._take()
            if kind == "map":
                key = self._take().lower()
                if key != "string":
                    raise ValueError(f"map: the keys of a JSON object are strings, not {key!r}; write map<string,TYPE>")
                self._expect(",", "map")
            item = self._type(depth + 1)
            self._expect(">", kind)
            return DataType(kind, item=item)
        raise ValueError(_unknown(kind))

    def _decimal(self) -> DataType:
        self._take()
        digits = self._take()
        scale = "0"
        if self._next == ",":
            self._take()
            scale = self._take()
        self._expect(")", "decimal")
        if not digits.isdigit() or not scale.isdigit() or not 1 <= int(digits) <= MAX_PRECISION:
            raise ValueError(f"decimal({digits},{scale}): write decimal(digits,scale) with 1 to {MAX_PRECISION} digits")
        if int(scale) > int(digits):
            raise ValueError(f"decimal({digits},{scale}): the scale is more than the digits")
        return DataType("decimal", precision=int(digits), scale=int(scale))

    def _fields(self, depth: int) -> tuple[tuple[str, DataType], ...]:
        found: list[tuple[str, DataType]] = []
        while not found or self._next == ",":
            self._take()
            name = self._take()
            if not re.match("[A-Za-z_]", name):
                raise ValueError(f"struct: {name!r} is no field name; write struct<NAME:TYPE,…>")
            self._expect(":", f"struct field {name}")
            found.append((name, self._type(depth + 1)))
        self._expect(">", "struct")
        names = [name.lower() for name, _ in found]
        if len(set(names)) < len(names):
            raise ValueError("struct: a field is named twice (Glue and Athena do not tell upper from lower case)")
        return tuple(found)


def _unknown(name: str) -> str:
    near = _KNOWN_ELSEWHERE.get(name) or next(iter(difflib.get_close_matches(name, [*ARROW_TYPES, "decimal"], 1)), None)
    hint = f"did you mean {near}? " if near else ""
    return f"unknown type {name!r}; {hint}types are {NOTATION}"
