"""The contract's checks on whole columns, in Arrow: the quick way of `records.RowEncoder`.

It says of each row whether it would surely pass `jobs.schema.checks`; a row of which it is not sure is checked by
itself. A contract whose checks it cannot do this way has no sure rows.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.schema.checks import Checks
from jobs.schema.table import Check, SourceColumn, TableContract

# Digits that surely fit the type; a number that needs one more is looked at by itself.
_SURE_DIGITS = {"int": 9, "long": 18}
_SEEN_AT_MOST = 100_000
# A text that is met first in rows that are bad for another reason is known to be good from one of the next.
_TRIES = 5


class _Number:
    """A column of whole numbers."""

    def __init__(self, column: SourceColumn, index: int) -> None:
        self.name, self.index = column.column, index
        self._digits = _SURE_DIGITS[column.type]
        self._low = -math.inf if column.min is None else column.min
        self._high = math.inf if column.max is None else column.max

    def read(self, texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        """The numbers, and which of them are sure (None: all); one that is not sure is any number."""
        # Plain digits alone: a sign, a space, an empty cell or a very long number goes the slow way.
        sure = pc.and_(pc.ascii_is_decimal(texts), pc.less_equal(pc.binary_length(texts), self._digits))
        all_sure = _all(sure)
        numbers = pc.cast(texts if all_sure else pc.if_else(sure, texts, "0"), pa.int64())
        bounds = pc.min_max(numbers).as_py()
        if len(numbers) and not self._low <= bounds["min"] <= bounds["max"] <= self._high:
            within = np.asarray(numbers)
            sure = pc.and_(sure, pa.array((within >= self._low) & (within <= self._high)))
            all_sure = False
        return numbers, None if all_sure else sure


class VectorChecks:
    """`at` is the position of each source field among the columns that `sure` will be given."""

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

    def sure(self, columns: Sequence[pa.Array]) -> pa.Array | None:
        """Which rows of the columns (string arrays without nulls) pass for sure, as booleans; None: all of them."""
        if not self._able:
            return pa.array(np.zeros(len(columns[0]), bool))
        found = [pc.greater(pc.binary_length(columns[index]), 0) for index in self._required]
        found += [self._texts_sure(columns, index, seen) for index, seen in self._texts.items()]
        values: dict[str, pa.Array] = {}
        for number in self._numbers:
            values[number.name], sure = number.read(columns[number.index])
            found.append(sure)
        for names in self._ascending:
            found += [pc.less_equal(values[low], values[high]) for low, high in itertools.pairwise(names)]
        doubtful = [mask for mask in found if mask is not None and not _all(mask)]
        return functools.reduce(pc.and_, doubtful) if doubtful else None

    def _texts_sure(self, columns: Sequence[pa.Array], index: int, seen: set[str]) -> pa.Array | None:
        """Which texts pass, of a column that has rules. They repeat (a file has few periods): each is tried once."""
        encoded = columns[index].dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        unknown = [text for text in texts if text not in seen]
        if len(seen) + len(unknown) > _SEEN_AT_MOST:
            seen.clear()
        for text in unknown:
            if self._passes_somewhere(columns, index, text):
                seen.add(text)
        sure = [text in seen for text in texts]
        return None if all(sure) else pa.array(sure, pa.bool_()).take(encoded.indices)

    def _passes_somewhere(self, columns: Sequence[pa.Array], index: int, text: str) -> bool:
        """Whether one of the first rows that hold the text passes; the contract itself decides."""
        rows = np.flatnonzero(np.asarray(pc.equal(columns[index], text)))[:_TRIES].tolist()
        return any(
            self._checks.reject({name: columns[at][row].as_py() for name, at in self._at.items()}) is None
            for row in rows
        )


def _all(mask: pa.Array) -> bool:
    return pc.all(mask, min_count=0).as_py() is True
