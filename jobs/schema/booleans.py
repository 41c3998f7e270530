"""Booleans that the records write as other words or numbers, such as Y and N, or 1 and 0."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pyarrow as pa

from jobs.schema.numbers import integer_or_text, unwrapped_number

# Texts of every boolean column, in lower case.
WORDS = {"true": True, "false": False}


class BooleanWords:
    """The words of a column of type boolean. Case and spaces around a word do not matter.

    native   the type that msgspec decodes its values as
    """

    # msgspec keeps a number's text only for fields of any type.
    native: Any = Any

    def __init__(self, words: dict[str, bool]) -> None:
        self.words = words

    def read(self, value: Any) -> bool:
        """The boolean of a value that is not absent: true, false, a word, or a whole number. Raises ValueError."""
        if isinstance(value, bool):
            return value
        value = unwrapped_number(value)
        if not isinstance(value, str | int):
            raise ValueError
        found = self.words.get(word := str(value).strip().lower())
        if found is None:
            found = self.words.get(str(integer_or_text(word)))  # pandas writes 1.0
        if found is None:
            raise ValueError(f"{value!r} is not one of {', '.join(self.words)}")
        return found

    def to_arrow(self, values: list[Any]) -> pa.Array:
        """The values as Arrow; null for those that are absent or of another kind."""
        return pa.array(list(map(self._read_or_null, values)), pa.bool_())

    def _read_or_null(self, value: Any) -> bool | None:
        try:
            return None if value is None or value == "" else self.read(value)
        except ValueError:
            return None


@lru_cache(maxsize=256)
def boolean_words(true_values: tuple[str | int, ...] = (), false_values: tuple[str | int, ...] = ()) -> BooleanWords:
    """The words true and false, and those listed. Raises ValueError if a word stands for both."""
    words = dict(WORDS)
    for listed, meaning in ((true_values, True), (false_values, False)):
        for each in listed:
            word = str(each).strip().lower()
            if word == "":
                raise ValueError("true_values and false_values: an empty text counts as absent")
            if words.setdefault(word, meaning) is not meaning:
                raise ValueError(f"true_values and false_values: {each!r} stands for both")
    return BooleanWords(words)
