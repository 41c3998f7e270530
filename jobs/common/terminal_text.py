"""Text that may be a stranger's, for a terminal or a log: a city's name stands in paths, and so in messages."""

from __future__ import annotations

import json
from unicodedata import category

# Controls, formats (they turn the direction of writing around), private use, half characters, line separators.
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """The text with what cannot be seen as JSON writes it, such as `\\u202e`; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(_seen(char) for char in text)


def _seen(char: str) -> str:
    if char in "\n\t" or category(char) not in _UNSEEN:
        return char
    return json.dumps(char)[1:-1]
