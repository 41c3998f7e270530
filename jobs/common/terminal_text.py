"""Makes text safe for a terminal or a log. Records are untrusted, and a city's name is part of paths and messages."""

from __future__ import annotations

import json
from unicodedata import category

# Controls, formats (they can reverse the writing direction), private use, surrogates, line separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """The text with invisible characters as JSON escapes, such as `\\u202e`. Line breaks and tabs are kept."""
    if text.isprintable():
        return text
    return "".join(_escape(char) for char in text)


def _escape(char: str) -> str:
    if char in "\n\t" or category(char) not in _INVISIBLE:
        return char
    return json.dumps(char)[1:-1]
