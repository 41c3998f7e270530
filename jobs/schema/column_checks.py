"""The contract's checks on whole Arrow columns: the fast twin of `RecordChecks`, which alone decides.

A mask marks the records that may be bad; the caller passes those to `RecordChecks`. A record outside of every mask is
good. `RecordParser` applies the functions to typed columns; the producer's `RowEncoder` applies `TextColumnChecks` to
the columns of a CSV file. Tests compare both with `RecordChecks` on random records.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.schema.checks import RecordChecks
from jobs.schema.columns import Check, SourceColumn
from jobs.schema.partitions import is_usable
from jobs.schema.value_rules import broken_rules

# Numbers of at most this many digits fit the type.
_SAFE_DIGITS = {"int": 9, "long": 18}
_CACHED_TEXTS = 100_000
# A text that first occurs in rows that are bad for another reason is known to be good from one of its next rows.
_TRIES = 5


def out_of_bounds(values: pa.Array, column: SourceColumn) -> Iterator[pa.Array]:
    """Masks of the numbers outside the column's `min` and `max`. Null is within."""
    if column.min is None and column.max is None:
        return
    found = pc.min_max(values).as_py()
    if column.min is not None and found["min"] is not None and found["min"] < column.min:
        yield _beyond(values, column.min, -1)
    if column.max is not None and found["max"] is not None and found["max"] > column.max:
        yield _beyond(values, column.max, 1)


def _beyond(values: pa.Array, bound: float, sign: int) -> pa.Array:
    """A mask of the numbers above (`sign` 1) or below (-1) the bound."""
    if pa.types.is_decimal(values.type):  # compared exactly, which Arrow does not do with a float
        return pa.array(
            [value is not None and (value > bound if sign > 0 else value < bound) for value in values.to_pylist()]
        )
    if sign < 0:
        return pc.fill_null(pc.less(values, _limit(bound, values.type, math.ceil)), False)
    return pc.fill_null(pc.greater(values, _limit(bound, values.type, math.floor)), False)


def _limit(bound: float, kind: pa.DataType, whole: Callable[[float], int]) -> pa.Scalar:
    """A bound to compare numbers with. Arrow refuses to compare integers beyond 2**53 with a float."""
    if pa.types.is_floating(kind):
        return pa.scalar(bound)
    within = min(max(bound, -(2.0**63)), 2.0**63)
    return pa.scalar(min(whole(within), 2**63 - 1), pa.int64())


def out_of_order(columns: Mapping[str, pa.Array], check: Check) -> Iterator[pa.Array]:
    """Masks of the records whose columns do not ascend. Null is skipped: 3, null, 2 does not ascend.

    Columns of the check that are missing in `columns` count as null.
    """
    present = [columns[name] for name in check.ascending if name in columns]
    last = present[0] if present else None
    for values in present[1:]:
        mask = pc.greater(last, values)
        yield pc.fill_null(mask, False) if mask.null_count else mask
        last = pc.coalesce(values, last) if values.null_count else values


def without_zero_fractions(texts: pa.Array) -> pa.Array:
    """The texts, without a zero fraction after plain digits: 446.0 becomes 446. Any other text stays as it is.

    So does one of more than 64 characters, which no parser of this project takes.
    """
    return pc.replace_substring_regex(texts, r"^([0-9]{1,24})\.0{1,39}$", r"\1")


def unusable_folders(name: str, values: pa.Array, columns: int) -> pa.Array:
    """A mask of the texts that cannot be values of the partition column `name`, one of `columns`. Null can."""
    encoded = values.dictionary_encode()
    return mask_of(encoded, [not is_usable(name, value, columns) for value in encoded.dictionary.to_pylist()])


def mask_of(encoded: pa.DictionaryArray, flags: Sequence[bool]) -> pa.Array:
    """The flags of the distinct values as a mask over all values. Null is false."""
    return pc.fill_null(pa.array(flags, pa.bool_()).take(encoded.indices), False)


class TextColumnChecks:
    """Checks columns of text, such as those of a CSV file, for many rows at once.

    `positions` maps a source field to its index among the columns. A contract with a type or check that only
    `RecordChecks` can handle makes every row suspect.
    """

    def __init__(self, checks: RecordChecks, positions: Mapping[str, int]) -> None:
        contract = checks.contract
        self._checks = checks
        self._positions = dict(positions)
        # A text that is a folder's name, or from which others are derived, is tried as a whole.
        self._folders = frozenset((*contract.partition_by, *(root.column for root in contract.roots.values())))
        self._derived = frozenset(contract.roots)
        self._required: list[int] = []
        self._integers: list[tuple[SourceColumn, int]] = []
        self._ruled_texts: list[tuple[SourceColumn, int]] = []
        # The texts that passed, for each column of texts with rules of their own, by its index.
        self._good_texts: dict[int, set[str]] = {}
        self._supported = True
        # What each column's values are: "integer", "text", or the source field that they are parts of.
        kinds: dict[str, str] = {}
        for column in contract.record_columns:
            # A column of text has no values within it.
            index = positions.get(column.source) if column.source else None
            if index is None:
                self._supported = self._supported and not column.required
            else:
                self._add(column, index, kinds)
        self._ascending = [check for check in contract.checks if self._compares_integers(check, kinds)]

    def _add(self, column: SourceColumn, index: int, kinds: dict[str, str]) -> None:
        if column.type in _SAFE_DIGITS:
            kinds[column.column] = "integer"
            self._integers.append((column, index))
        elif column.type == "string":
            kinds[column.column] = "text"
            if column.required:
                self._required.append(index)
            if column.parse or column.column in self._folders:
                self._good_texts[index] = set()
            elif column.has_rules:
                self._ruled_texts.append((column, index))
        else:
            self._supported = False
        if column.parse:
            kinds.update({part.column: f"part of {column.field}" for part in column.parse.into})

    def _compares_integers(self, check: Check, kinds: Mapping[str, str]) -> bool:
        """Whether the check is for `suspects`. One on parts of a single text is covered by that text's own check."""
        if not self._derived.isdisjoint(check.ascending):
            self._supported = False
        compared = {kinds[name] for name in check.ascending if name in kinds}
        if compared and compared != {"integer"} and (len(compared) > 1 or "text" in compared):
            self._supported = False
        return compared == {"integer"}

    def suspects(self, columns: Sequence[pa.Array]) -> pa.Array | None:
        """A mask of the rows that `RecordChecks` has to check; None: all rows are good.

        `columns` are string arrays of equal length, without nulls.
        """
        if not self._supported:
            return pa.array(np.ones(len(columns[0]), bool))
        masks = [mask for mask in self._masks(columns) if pc.any(mask, min_count=0).as_py()]
        return functools.reduce(pc.or_, masks) if masks else None

    def _masks(self, columns: Sequence[pa.Array]) -> Iterator[pa.Array]:
        for index in self._required:
            yield pc.equal(pc.binary_length(columns[index]), 0)
        for index, good in self._good_texts.items():
            yield from self._unknown_texts(columns, index, good)
        for column, index in self._ruled_texts:
            yield from broken_rules(columns[index], column)
        numbers: dict[str, pa.Array] = {}
        for column, index in self._integers:
            texts = columns[index]
            safe = _is_short_integer(texts, column)
            if not pc.all(safe, min_count=0).as_py():
                # pandas writes 446.0 in every row of an integer column that has one blank.
                texts = without_zero_fractions(texts)
                safe = _is_short_integer(texts, column)
                yield pc.invert(safe)
                texts = pc.if_else(safe, texts, "0")
            numbers[column.column] = pc.cast(texts, pa.int64())
            yield from out_of_bounds(numbers[column.column], column)
            yield from broken_rules(numbers[column.column], column)
        for check in self._ascending:
            yield from out_of_order(numbers, check)

    def _unknown_texts(self, columns: Sequence[pa.Array], index: int, good: set[str]) -> Iterator[pa.Array]:
        """A mask of the texts that are not known to be good. Texts repeat, so each new one is tried once."""
        encoded = columns[index].dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        new = [text for text in texts if text not in good]
        if len(good) + len(new) > _CACHED_TEXTS:
            good.clear()
        good.update(text for text in new if self._passes_in_a_row(columns, index, text))
        if not good.issuperset(texts):
            yield mask_of(encoded, [text not in good for text in texts])

    def _passes_in_a_row(self, columns: Sequence[pa.Array], index: int, text: str) -> bool:
        """Whether one of the first rows with the text is good."""
        rows = np.flatnonzero(np.asarray(pc.equal(columns[index], text)))[:_TRIES].tolist()
        return any(
            self._checks.reject({name: columns[at][row].as_py() for name, at in self._positions.items()}) is None
            for row in rows
        )


def _is_short_integer(texts: pa.Array, column: SourceColumn) -> pa.Array:
    """A mask of the plain digits that fit the type. RecordChecks looks at a sign, a space or an empty cell."""
    return pc.and_(pc.ascii_is_decimal(texts), pc.less_equal(pc.binary_length(texts), _SAFE_DIGITS[column.type]))
