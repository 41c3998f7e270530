"""Exact numbers from their texts."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec

_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
DECIMAL = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?P<exponent>[eE][+-]?\d+)?\s*", re.ASCII)
# Longer than any usual text of a 64-bit number. The cost of a conversion grows with the square of the digits.
MAX_CHARACTERS = 64
# e-999: no 64-bit number has a longer exponent, and Python would compute its power of ten.
MAX_EXPONENT_CHARACTERS = 5


def unwrapped_number(value: Any) -> Any:
    """The value; a number with a fraction, which `read_object` keeps as msgspec.Raw, as its text."""
    return bytes(value).decode("ascii") if isinstance(value, msgspec.Raw) else value


def checked_number(text: str) -> str:
    """The text, if it is a decimal number of usual length, such as -1.5e3. Raises ValueError if it is not."""
    found = DECIMAL.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if found is None or len(found["exponent"] or "") > MAX_EXPONENT_CHARACTERS:
        raise ValueError
    return text


def exact_ratio(text: str) -> tuple[int, int]:
    """Numerator and denominator of a decimal text: "1.5" gives (3, 2). Raises ValueError if it is no number."""
    # Not by way of a float: it changes integers beyond 2**53 and takes 446.00000000000000001 for 446.
    return Decimal(checked_number(text)).as_integer_ratio()


def integer_or_text(number: str) -> int | str:
    """The integer that a decimal text equals, or the text itself: "446.0" becomes 446, and "446.5" stays "446.5"."""
    significant = number.rstrip("0")
    if "." in significant and significant[-1] in "123456789" and "e" not in number and "E" not in number:
        return number  # has a fraction
    try:
        return integer_of_text(number)
    except ValueError:
        return number


def integer_of_text(text: str) -> int:
    """The integer that a text such as 446, 446.0 or 4.46e2 equals exactly. Raises ValueError if it equals none."""
    if len(text) <= MAX_CHARACTERS and _INTEGER.fullmatch(text):
        return int(text)
    number, denominator = exact_ratio(text)
    if denominator != 1:
        raise ValueError
    return number
