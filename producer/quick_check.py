"""The contract's checks on whole columns of a chunk, in loops that run in C: the quick way of `records.RowEncoder`.

It says yes only where every row would pass `jobs.contract.checks`, and no wherever it is not sure: then the rows
are checked one by one. A contract whose checks it cannot do this way is always checked row by row.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Mapping, Sequence

from jobs.contract.checks import Checks
from jobs.contract.table import Check, SourceColumn, TableContract

# Digits that surely fit the type; a number that needs one more is looked at by itself.
_SURE_DIGITS = {"int": 9, "long": 18}
_SEEN_AT_MOST = 100_000


class _Number(dict[str, int]):
    """A column of whole numbers: text → number for every text that surely passes; KeyError for any other.

    Travel times repeat, so that a dictionary is three times as fast as looking at each text.
    """

    def __init__(self, column: SourceColumn, index: int) -> None:
        super().__init__()
        self.name, self.index = column.column, index
        self._digits = _SURE_DIGITS[column.type]
        self._low = -math.inf if column.min is None else column.min
        self._high = math.inf if column.max is None else column.max

    def __missing__(self, text: str) -> int:
        # Plain digits alone: a sign, a space, an empty cell or a very long number goes the slow way.
        if not (text.isascii() and text.isdigit()) or len(text) > self._digits:
            raise KeyError(text)
        number = int(text)
        if not self._low <= number <= self._high:
            raise KeyError(text)
        if len(self) >= _SEEN_AT_MOST:
            self.clear()
        self[text] = number
        return number


class QuickCheck:
    """`at` is the position of each source field among the columns that `passes` will be given."""

    def __init__(self, contract: TableContract, at: Mapping[str, int], checks: Checks) -> None:
        self._checks = checks
        self._able = True
        self._required: list[int] = []
        self._numbers: list[_Number] = []
        self._ascending: list[list[str]] = []
        self._at = dict(at)
        self._folders = frozenset(contract.partition_by)
        # Position of each text column that has rules of its own → the texts that passed them.
        self._texts: dict[int, set[str]] = {}

        # Where a column's values come from: "number", the field that it is a part of, "other", or nowhere.
        origin: dict[str, str] = {}
        for column in contract.columns:
            index = at.get(column.source)
            if index is None:
                self._able = self._able and not column.required
                continue
            self._add(column, index, origin)
        for check in contract.checks:
            self._add_check(check, origin)

    def _add(self, column: SourceColumn, index: int, origin: dict[str, str]) -> None:
        if column.required and column.type == "string":
            self._required.append(index)
        if column.type in _SURE_DIGITS:
            origin[column.column] = "number"
            self._numbers.append(_Number(column, index))
        elif column.type == "string":
            origin[column.column] = "other"
        else:
            self._able = False
        if column.parse:
            origin.update({part.column: f"part of {column.source}" for part in column.parse.into})
        if column.parse or (column.type == "string" and column.column in self._folders):
            self._texts[index] = set()

    def _add_check(self, check: Check, origin: Mapping[str, str]) -> None:
        present = [name for name in check.ascending if name in origin]
        origins = {origin[name] for name in present}
        if origins == {"number"}:
            self._ascending.append(present)
        elif origins and (len(origins) > 1 or "other" in origins):
            self._able = False

    def passes(self, columns: Sequence[Sequence[str]]) -> bool:
        """Whether every row of the columns (one sequence of texts each, of equal length) passes for sure."""
        if not self._able or any("" in columns[index] for index in self._required):
            return False
        return self._texts_pass(columns) and self._numbers_pass(columns)

    def _texts_pass(self, columns: Sequence[Sequence[str]]) -> bool:
        """Whether the texts that have rules pass. They repeat (a file has few periods), so each is tried once."""
        for index, seen in self._texts.items():
            for text in set(columns[index]) - seen:
                row = columns[index].index(text)
                # The contract itself decides, on the first row that holds the text.
                if self._checks.reject({name: columns[at][row] for name, at in self._at.items()}) is not None:
                    return False
                if len(seen) >= _SEEN_AT_MOST:
                    seen.clear()
                seen.add(text)
        return True

    def _numbers_pass(self, columns: Sequence[Sequence[str]]) -> bool:
        try:
            values = {number.name: list(map(number.__getitem__, columns[number.index])) for number in self._numbers}
        except KeyError:
            return False
        return all(
            all(map(operator.le, values[low], values[high]))
            for names in self._ascending
            for low, high in itertools.pairwise(names)
        )
