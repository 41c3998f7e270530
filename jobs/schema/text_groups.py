"""Splits texts into the groups of a contract's `parse.pattern`, with RE2.

`table` checks a pattern with `check_pattern` when it reads the contract; `values` splits texts with `groups_of`. RE2
takes time in proportion to the text. Python's `re` tries alternatives one after the other: 30 characters for the
pattern `(a+)+b` can hold a job for minutes. https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import itertools
import re
import warnings
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

# An escape, a set of characters, the start of a group, or its end with the repetition after it.
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P<\w+>|\(\?|\(|\)(?:[*+]|\{\d+(?:,\d*)?\})?", re.DOTALL)
_WHOLE = "whole"


def check_pattern(pattern: str) -> int:
    """The number of the pattern's groups. Raises ValueError if RE2 refuses it, or Python's `re` reads it otherwise.

    Python's `re` (ASCII) read the contracts of earlier versions; a pattern that is accepted finds what it found then.
    Except: `\\s` does not match a vertical tab, `$` matches only at the end, not before a last line break, and `(?i)`
    also matches the two letters beyond ASCII that fold to k and s.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            groups = re.compile(pattern, re.ASCII).groups
    except (re.error, FutureWarning) as error:
        raise ValueError(f"pattern is not a regular expression: {error}") from error
    if re.search(r"(?<!\\)\{,\d*\}", pattern):
        raise ValueError("pattern: RE2 takes {,n} literally: write {0,n}")
    try:
        groups_of(pattern, pa.array([""]))
    except pa.ArrowInvalid as error:
        raise ValueError(f"pattern: {error} (RE2 has no look-around and no back-references)") from error
    return groups


def whole(pattern: str) -> str:
    """The pattern for the whole of a text, for Arrow's functions, which search for a pattern anywhere in it."""
    return rf"\A(?:{pattern})\z"


def groups_of(pattern: str, texts: pa.Array) -> list[tuple[str | None, ...] | None]:
    """For each of the texts: its groups, if the pattern matches the whole of it, or None. A null text gives None.

    A group that is not part of the match is None. The texts are matched together: Arrow compiles the pattern for each
    call, which takes 0.1 ms.
    """
    named = _named(pattern)
    found = pc.extract_regex(texts, pattern=named)
    matched, *columns = [column.to_pylist() for column in found.flatten()]
    if any("" in column for column in columns):
        # Only the spans tell an empty group from one that is not part of the match.
        _, *spans = pc.extract_regex_span(texts, pattern=named).flatten()
        columns = [
            pc.if_else(span.is_null(), None, pa.array(column, pa.string())).to_pylist()
            for span, column in zip(spans, columns, strict=True)
        ]
    rows = zip(*columns, strict=True) if columns else itertools.repeat(())
    return [None if text is None else row for text, row in zip(matched, rows, strict=False)]


@lru_cache(maxsize=256)
def _named(pattern: str) -> str:
    """The pattern for the whole of a text, its groups named group0, group1 …, because Arrow wants names.

    Raises ValueError if a group is within a repetition.
    """
    parts: list[str] = []
    opened: list[int] = []
    at = groups = 0
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        parts.append(pattern[at : token.start()])
        at = token.end()
        if text.startswith("("):
            opened.append(groups)
            if text == "(" or text.startswith("(?P<"):
                text, groups = f"(?P<group{groups}>", groups + 1
        elif text.startswith(")") and opened and opened.pop() < groups and len(text) > 1:
            # Python and RE2 differ in which repetition of (a*)+ they return.
            raise ValueError("pattern: a group that is repeated has no one value: repeat within it, as in ((?:ab)+)")
        parts.append(text)
    return rf"\A(?P<{_WHOLE}>{''.join(parts)}{pattern[at:]})\z"
