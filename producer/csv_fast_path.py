"""Lines of CSV → columns of text, by whole blocks: the quick way of `csv_rows`.

A block is read this way as far as it is plain: every cell is worth exactly the bytes between its delimiters, and
none of them needs an escape in JSON. So a cell with a quote, a backslash, a tab or a line break in it, a blank or
ragged row, or text that is not UTF-8 ends the block before its row, which `csv_rows` then reads by the standard
library's reader. Where the two might disagree, this one must not say yes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

_LF, _CR, _QUOTE, _COMMA, _FIRST_PRINTABLE = b'\n\r", '
_BOM = b"\xef\xbb\xbf"

_Positions = npt.NDArray[np.intp]


def read_columns(block: bytes, width: int) -> tuple[int, list[pa.Array]]:
    """How many bytes of the block are plain rows, from the first on, and their columns (string arrays).

    The block starts and ends with a line; every row of the plain part is one line of `width` cells.
    """
    size = _plain_bytes(block)
    for _ in range(2):
        if not size:
            break
        columns = _parse(block, size, width)
        if columns is not None:
            return size, columns
        # Both are looked for only where the parser found something: good blocks need not pay for it.
        size = min(_until_ragged(block, size, width), _until_no_utf8(block, size))
    return 0, []


def _parse(block: bytes, size: int, width: int) -> list[pa.Array] | None:
    names = [str(index) for index in range(width)]
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(pa.py_buffer(block).slice(0, size)),
            pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=size + 1),
            pa.csv.ParseOptions(newlines_in_values=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != block.count(b"\n", 0, size):
        return None
    return [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns]


def _plain_bytes(block: bytes) -> int:
    """The bytes before the first row with anything unusual in its bytes."""
    # A blank line, or one that the parser would take for a byte-order mark, is no plain row.
    if block[:1] in (b"\n", b"\r") or block.startswith(_BOM):
        return 0
    odd = block.find(b"\\")
    if odd < 0:
        odd = len(block)
    found_bytes = np.frombuffer(block, np.uint8)
    controls = np.flatnonzero(found_bytes[:odd] < _FIRST_PRINTABLE)
    kinds = found_bytes[controls]
    ends = controls[kinds == _LF]
    if len(ends) < len(controls):
        # A CR belongs before an LF; every other control character needs an escape.
        others = controls[kinds != _LF]
        lone = (found_bytes[others] != _CR) | (found_bytes[others + 1] != _LF)
        odd = _first(others[lone], odd)
    starts = ends[: np.searchsorted(ends, odd - 1)] + 1
    blank = (found_bytes[starts] == _LF) | (found_bytes[starts] == _CR)
    odd = _first(starts[blank], odd)
    quotes = np.flatnonzero(found_bytes[:odd] == _QUOTE)
    odd = _first_odd_quote(found_bytes, quotes, ends[: np.searchsorted(ends, odd)], odd)
    return odd if odd == len(block) else block.rfind(b"\n", 0, odd) + 1


def _first_odd_quote(block: npt.NDArray[np.uint8], quotes: _Positions, ends: _Positions, odd: int) -> int:
    """Where the first quote stands that does not open a cell, or close one, or spans a line break; else `odd`."""
    opening, closing = quotes[0::2], quotes[1::2]
    before = block[opening - 1]
    # Before the block's first byte comes its last, which ends a line as well.
    stray = (before != _COMMA) & (before != _LF)
    after = block[closing + 1]
    strange = (after != _COMMA) & (after != _LF) & (after != _CR)
    found = min(_first(opening[stray], odd), _first(closing[strange], odd))
    inside = np.searchsorted(quotes, ends)
    spanning = inside[inside % 2 == 1]
    if len(spanning):
        found = min(found, int(quotes[spanning[0] - 1]))
    return min(found, int(quotes[-1])) if len(quotes) % 2 else found


def _first(positions: _Positions, otherwise: int) -> int:
    return int(positions[0]) if len(positions) else otherwise


def _until_ragged(block: bytes, size: int, width: int) -> int:
    """The bytes before the first row that has not `width` cells."""
    found: Any = np.frombuffer(block, np.uint8, size)
    commas = np.flatnonzero(found == _COMMA)
    commas = commas[np.searchsorted(np.flatnonzero(found == _QUOTE), commas) % 2 == 0]
    ends = np.flatnonzero(found == _LF)
    cells = np.diff(np.searchsorted(commas, ends), prepend=0) + 1
    ragged = np.flatnonzero(cells != width)
    if not len(ragged):
        return size
    return int(ends[ragged[0] - 1]) + 1 if ragged[0] else 0


def _until_no_utf8(block: bytes, size: int) -> int:
    """The bytes before the first row that is not UTF-8."""
    try:
        block[:size].decode("utf-8")
    except UnicodeDecodeError as error:
        return block.rfind(b"\n", 0, error.start) + 1
    return size
