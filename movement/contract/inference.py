"""The type that takes every value at one place of a sample's records.

In: values as `read_object` decodes them. Out: a type in a contract's notation, and notes on what else it could be. A
type is only chosen if the contract's own readers take every value, exactly; `string` takes any value.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from jobs.schema.times import time_format
from jobs.schema.types import MAX_PRECISION
from jobs.schema.values import read_value

# The largest integer of a column that is drafted as int: a sample's largest value is seldom the table's.
_MOST_INT = 10**8
# An object with more different names than this, or of which most names are rare, has names that are data.
_MOST_FIELDS, _FEW_FIELDS, _RARE = 200, 20, 0.2
_MAX_DEPTH = 20
# The share of values of another type that a note calls exceptions.
_FEW_OTHERS = 0.05
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# As a number is usually written: 007, +1 and " 1" are texts.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_DAY_FIRST = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
# Usual ways to write a date, and the ways to write a time of day after it.
_DATES = ("M/d/yyyy", "d/M/yyyy", "yyyy/M/d", "d.M.yyyy", "d-MMM-yyyy", "d-MMM-yy")
_CLOCKS = ("", " H:mm", " H:mm:ss", " h:mm a", " h:mm:ss a")
# (type, format) of each.
_PATTERNS = tuple(("timestamp" if clock else "date", day + clock) for day in _DATES for clock in _CLOCKS)
_MAYBE_PATTERN = re.compile(r"\d{1,4}[/.-][\dA-Za-z]{1,3}[/.-]\d{1,4}", re.ASCII)
_TEXT_TYPES = frozenset({"boolean", "date", "timestamp", "number"})
_EPOCHS = {"epoch_seconds": 1, "epoch_millis": 1_000, "epoch_micros": 1_000_000}
_YEAR_2000, _YEAR_2100 = 946_684_800, 4_102_444_800


@dataclass(slots=True)
class Numbers:
    """What the numbers at one place have in common.

    least, most  the smallest and the largest of the whole numbers that are written without a fraction
    fractions    how many are written with a fraction or an exponent
    whole        the most digits before the point, and `scale` after it
    integral     whether each equals a whole number, as 446.0 does
    doubles      whether each is exactly the shortest text of a 64-bit number
    readable     whether each has at most 64 characters, so that a decimal can have it
    """

    count: int = 0
    least: int | None = None
    most: int | None = None
    fractions: int = 0
    whole: int = 1
    scale: int = 0
    integral: bool = True
    doubles: bool = True
    readable: bool = True

    def see(self, text: str) -> None:
        """Notes a number, given as its JSON text."""
        self.count += 1
        if len(text) > 64:
            self.readable = self.doubles = self.integral = False
            self.fractions += 1
            return
        number = Decimal(text)
        _sign, digits, exponent = number.as_tuple()
        if text.lstrip("-").isdigit():
            value = int(text)
            self.least = value if self.least is None else min(self.least, value)
            self.most = value if self.most is None else max(self.most, value)
        else:
            self.fractions += 1
            self.integral = self.integral and number == number.to_integral_value()
        if number:
            self.whole = max(self.whole, len(digits) + int(exponent))
        self.scale = max(self.scale, -int(exponent))
        if self.doubles:
            try:
                self.doubles = Decimal(repr(read_value("double", text))) == number
            except ValueError:
                self.doubles = False

    def merge(self, other: Numbers) -> None:
        """Adds the numbers of another place."""
        self.count += other.count
        self.least = min((one for one in (self.least, other.least) if one is not None), default=None)
        self.most = max((one for one in (self.most, other.most) if one is not None), default=None)
        self.fractions += other.fractions
        self.whole, self.scale = max(self.whole, other.whole), max(self.scale, other.scale)
        self.integral &= other.integral
        self.doubles &= other.doubles
        self.readable &= other.readable

    def type(self) -> tuple[str, list[str]]:
        """The type that takes them all, exactly."""
        if not self.fractions and self.least is not None and self.most is not None:
            if self.least >= -_MOST_INT and self.most <= _MOST_INT:
                return "int", []
            if self.least >= -(1 << 63) and self.most < 1 << 63:
                return "long", []
        decimal = self._decimal()
        if self.doubles:
            if self.integral:
                return "double", ["all are whole numbers: int or long takes 446.0 too"]
            if decimal and self.scale <= 4:
                return "double", [f"for money {decimal}, which is exact"]
            return "double", []
        return (decimal, []) if decimal else ("string", ["numbers that no number type has exactly"])

    def _decimal(self) -> str | None:
        scale = max(self.scale, 0)
        digits = self.whole + scale
        if not self.readable or digits > MAX_PRECISION:
            return None
        return f"decimal({min(MAX_PRECISION, max(10, digits + 4))},{scale})"

    def epoch(self) -> str | None:
        """The format by which all of them are times from 2000 to 2100, or None."""
        if self.fractions or self.least is None or self.most is None:
            return None
        for form, factor in _EPOCHS.items():
            if _YEAR_2000 * factor <= self.least and self.most <= _YEAR_2100 * factor:
                return form
        return None


@dataclass(slots=True)
class Seen:
    """The values at one place: of a field, of an array's items, or of a map's values.

    count     values other than null and the empty text
    votes     how many of the texts could have each of these types
    texts     the types, and (type, format)s, that every text so far could have
    fields    the values of each field of the objects; with very many different names, all are in `values`
    """

    depth: int = 0
    count: int = 0
    kinds: set[str] = field(default_factory=set)
    texts: frozenset[str | tuple[str, str]] = _TEXT_TYPES | frozenset(_PATTERNS)
    votes: Counter[str | tuple[str, str]] = field(default_factory=Counter)
    numbers: Numbers = field(default_factory=Numbers)
    objects: int = 0
    fields: dict[str, Seen] = field(default_factory=dict)
    values: Seen | None = None
    items: Seen | None = None

    def see(self, value: Any) -> None:
        """Notes one value."""
        if value is None or value == "":
            return
        self.count += 1
        if isinstance(value, str):
            self.kinds.add("text")
            types = _types_of(value)
            self.votes.update(types)
            if self.texts:
                self.texts &= types
                if "number" in self.texts:
                    self.numbers.see(value)
        elif isinstance(value, bool):
            self.kinds.add("boolean")
        elif isinstance(value, int):
            self.kinds.add("number")
            # str() refuses more than 4,300 digits.
            self.numbers.see(str(value) if abs(value) < 10**64 else "9" * 65)
        elif isinstance(value, msgspec.Raw):
            self.kinds.add("number")
            self.numbers.see(bytes(value).decode("ascii"))
        elif isinstance(value, dict):
            self.kinds.add("object")
            self._see_object(value)
        elif isinstance(value, list):
            self.kinds.add("array")
            if self.depth < _MAX_DEPTH:
                self.items = self.items or Seen(self.depth + 1)
                for item in value:
                    self.items.see(item)

    def _see_object(self, value: dict[str, Any]) -> None:
        self.objects += 1
        if self.depth >= _MAX_DEPTH:
            return
        for name, each in value.items():
            if self.values is not None:
                self.values.see(each)
                continue
            found = self.fields.get(name)
            if found is None:
                found = self.fields[name] = Seen(self.depth + 1)
            found.see(each)
        if self.depth and len(self.fields) > _MOST_FIELDS:
            self.values, self.fields = self._all_values(), {}

    def merge(self, other: Seen) -> None:
        """Adds the values of another place of the same depth."""
        self.count += other.count
        self.kinds |= other.kinds
        self.texts &= other.texts
        self.votes.update(other.votes)
        self.numbers.merge(other.numbers)
        self.objects += other.objects
        if other.items is not None:
            self.items = self.items or Seen(other.items.depth)
            self.items.merge(other.items)
        if self.values is not None or other.values is not None:
            values = self._all_values()
            values.merge(other._all_values())
            self.values, self.fields = values, {}
        else:
            for name, found in other.fields.items():
                self.fields.setdefault(name, Seen(found.depth)).merge(found)

    def _all_values(self) -> Seen:
        merged = Seen(self.depth + 1)
        for found in (*self.fields.values(), *([self.values] if self.values else [])):
            merged.merge(found)
        return merged

    def type(self, typed_texts: bool) -> tuple[str, list[str]]:
        """(type, notes). `typed_texts`: whether numbers and booleans are written as texts, as in a CSV file."""
        if not self.kinds:
            return "string", ["no value in the sample"]
        if self.kinds == {"boolean"}:
            return "boolean", []
        if self.kinds == {"number"} or (self.kinds == {"text", "number"} and "number" in self.texts):
            return self.numbers.type()
        if self.kinds == {"text"}:
            return self._text_type(typed_texts)
        if self.kinds == {"array"} and self.items is not None:
            if not self.items.kinds:
                return "json", ["only empty arrays in the sample"]
            return f"array<{self.items.type(typed_texts)[0]}>", []
        if self.kinds == {"object"}:
            return self._object_type(typed_texts)
        if "text" in self.kinds:
            return "string", [f"values of several kinds: {', '.join(sorted(self.kinds))}; each as its JSON text"]
        return "json", ["values of several kinds"] if len(self.kinds) > 1 else ["nested very deeply"]

    def patterns(self) -> list[tuple[str, str]]:
        """The (type, format)s that all values have; none if one is no text."""
        return [each for each in _PATTERNS if each in self.texts] if self.kinds == {"text"} else []

    def _text_type(self, typed_texts: bool) -> tuple[str, list[str]]:
        for kind in ("date", "timestamp"):
            if kind in self.texts:
                return kind, []
        for kind in ("boolean", "number"):
            if kind in self.texts:
                found, notes = self.numbers.type() if kind == "number" else (kind, [])
                if typed_texts:
                    return found, notes
                return "string", [f"all are texts of type {found}"]
        return "string", self._nearly(typed_texts)

    def _nearly(self, typed_texts: bool) -> list[str]:
        """What nearly all texts are. The types that most texts have come first, then the simplest one."""
        order: list[str | tuple[str, str]] = ["date", "timestamp", *(["boolean", "number"] if typed_texts else [])]
        order += _PATTERNS
        best = max(order, key=lambda kind: self.votes[kind])
        others = self.count - self.votes[best]
        if not others or others > self.count * _FEW_OTHERS:
            return []
        what = best if isinstance(best, str) else f"{best[0]} with the format {best[1]}"
        return [f"{what}, but for {others:,} of {self.count:,} values: `on_fail: null` would make those null"]

    def _object_type(self, typed_texts: bool) -> tuple[str, list[str]]:
        if self.depth >= _MAX_DEPTH:
            return "json", ["nested very deeply"]
        if self.values is None and not self.fields:
            return "json", ["only empty objects in the sample"]
        names = list(self.fields)
        seen = sum(found.count for found in self.fields.values())
        rare = len(names) > _FEW_FIELDS and seen < _RARE * len(names) * self.objects
        if self.values is not None or rare:
            return f"map<string,{self._all_values().type(typed_texts)[0]}>", []
        if not all(map(_FIELD_NAME.fullmatch, names)) or len({name.lower() for name in names}) < len(names):
            return "json", ["a struct cannot have its names; or give a part a column of its own with `path`"]
        inner = ",".join(f"{name}:{found.type(typed_texts)[0]}" for name, found in self.fields.items())
        return f"struct<{inner}>", []


@lru_cache(maxsize=65_536)
def _types_of(text: str) -> frozenset[str | tuple[str, str]]:
    """The types, and (type, format)s, that a text can have besides string."""
    found = set[str | tuple[str, str]]()
    if len(text) > 64:
        return frozenset(found)
    if text.lower() in ("true", "false"):
        found.add("boolean")
    if _NUMBER.fullmatch(text):
        found.add("number")
    if _DAY_FIRST.match(text):
        for kind in ("date", "timestamp"):
            try:
                read_value(kind, text)
                found.add(kind)
            except ValueError:
                pass
    if _MAYBE_PATTERN.match(text):
        for kind, form in _PATTERNS:
            try:
                time_format(kind, form).read(text)
                found.add((kind, form))
            except ValueError:
                pass
    return frozenset(found)
