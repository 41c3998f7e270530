"""The rules on one column's values, `allowed`, `max_length` and `pattern`: for a single value and for Arrow columns.

Both use the same regular expression engine, RE2 of Arrow. It has no backtracking: a match takes time in proportion to
the text, times the size of the pattern at worst. `(?:a|b)*a(?:a|b){900}c` takes 45 s for 900 kB, so only texts within
`max_length` are matched (LONGEST_MATCHED characters, if the contract has none). That bounds the time of one value; many
long values of a batch still add up. An absent value (null, or an empty text) breaks no rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.schema.columns import Column, match_whole, matches
from jobs.schema.rejections import NOT_ALLOWED, PATTERN_MISMATCH, TOO_LONG


def broken_rule(column: Column, value: Any) -> str | None:
    """The reason code of the first rule that the value breaks; None if it breaks none."""
    if value is None or value == "":
        return None
    if column.allowed is not None and value not in column.allowed:
        return NOT_ALLOWED
    if column.longest is not None and len(value) > column.longest:
        return TOO_LONG
    if column.pattern is not None and not matches(column.pattern, value):
        return PATTERN_MISMATCH
    return None


def broken_rules(values: pa.Array, column: Column) -> Iterator[pa.Array]:
    """For each of the column's rules: a mask, without nulls, of the values that break it."""
    return (mask for _, mask in rule_failures(values, column))


def rule_failures(values: pa.Array, column: Column) -> Iterator[tuple[str, pa.Array]]:
    """(reason code, mask without nulls) of each of the column's rules."""
    if not column.has_rules:
        return
    present = pc.is_valid(values)
    if pa.types.is_string(values.type):
        present = pc.and_(present, pc.fill_null(pc.not_equal(values, ""), False))
    if column.allowed is not None:
        allowed = pa.array(column.allowed, values.type)
        yield NOT_ALLOWED, pc.and_not(present, pc.is_in(values, value_set=allowed))
    if column.longest is not None:
        too_long = pc.fill_null(pc.greater(pc.utf8_length(values), column.longest), False)
        yield TOO_LONG, pc.and_(present, too_long)
        present = pc.and_not(present, too_long)
        values = pc.if_else(too_long, None, values)
    if column.pattern is not None:
        # Values repeat: each distinct text is matched once.
        encoded = values.dictionary_encode()
        matched = match_whole(column.pattern, encoded.dictionary).take(encoded.indices)
        yield PATTERN_MISMATCH, pc.and_not(present, pc.fill_null(matched, False))
