"""Parses a block of CSV lines into columns of text with Arrow. `csv_reader` uses it.

A block comes in; the longest plain part at its start goes out as columns. A plain row is one line, its cells need no
unquoting beyond the surrounding quotes, and no character of it needs an escape in JSON. A quote, a backslash, a
tab or a line break inside a cell, a blank line, a wrong number of cells, or text that is not UTF-8 ends the plain
part before that row, and `csv_reader` reads it with the standard library. A row that the two readers might read
differently is never plain.
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
    """The size in bytes of the plain rows at the start of the block, and their columns (string arrays).

    The block starts and ends with a line. Every plain row has `width` cells. If the first row is not plain, the result
    is (0, []). Example: for the two lines 1,x and 2,x"y the size is 4, and the columns are ["1"] and ["x"].
    """
    size = _plain_bytes(block)
    for _ in range(2):
        if not size:
            break
        columns = _parse(block, size, width)
        if columns is not None:
            return size, columns
        # Only a block that does not parse pays for these two searches.
        size = min(_bytes_before_ragged_row(block, size, width), _bytes_before_invalid_utf8(block, size))
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
    """The size of the rows before the first one with a byte or a quote that is not plain."""
    # Arrow skips a blank line, and drops a byte-order mark.
    if block[:1] in (b"\n", b"\r") or block.startswith(_BOM):
        return 0
    # `stop` is the position of the first byte found so far that is not plain.
    stop = block.find(b"\\")
    if stop < 0:
        stop = len(block)
    content = np.frombuffer(block, np.uint8)
    controls = np.flatnonzero(content[:stop] < _FIRST_PRINTABLE)
    kinds = content[controls]
    ends = controls[kinds == _LF]
    if len(ends) < len(controls):
        # A CR is plain only before an LF. Every other control character needs an escape in JSON.
        others = controls[kinds != _LF]
        not_crlf = (content[others] != _CR) | (content[others + 1] != _LF)
        stop = _first(others[not_crlf], stop)
    starts = ends[: np.searchsorted(ends, stop - 1)] + 1
    blank = (content[starts] == _LF) | (content[starts] == _CR)
    stop = _first(starts[blank], stop)
    quotes = np.flatnonzero(content[:stop] == _QUOTE)
    stop = _first_misplaced_quote(content, quotes, ends[: np.searchsorted(ends, stop)], stop)
    return stop if stop == len(block) else block.rfind(b"\n", 0, stop) + 1


def _first_misplaced_quote(block: npt.NDArray[np.uint8], quotes: _Positions, ends: _Positions, stop: int) -> int:
    """The position of the first quote inside a cell, or of one that spans a line break; else `stop`."""
    opening, closing = quotes[0::2], quotes[1::2]
    # Index -1, before the block's first byte, is its last byte: a line end, too.
    before = block[opening - 1]
    not_at_start = (before != _COMMA) & (before != _LF)
    after = block[closing + 1]
    not_at_end = (after != _COMMA) & (after != _LF) & (after != _CR)
    first = min(_first(opening[not_at_start], stop), _first(closing[not_at_end], stop))
    quotes_before_end = np.searchsorted(quotes, ends)
    inside_quotes = quotes_before_end[quotes_before_end % 2 == 1]
    if len(inside_quotes):
        first = min(first, int(quotes[inside_quotes[0] - 1]))
    return min(first, int(quotes[-1])) if len(quotes) % 2 else first


def _first(positions: _Positions, otherwise: int) -> int:
    return int(positions[0]) if len(positions) else otherwise


def _bytes_before_ragged_row(block: bytes, size: int, width: int) -> int:
    """The size of the rows before the first one whose number of cells is not `width`."""
    content: Any = np.frombuffer(block, np.uint8, size)
    commas = np.flatnonzero(content == _COMMA)
    commas = commas[np.searchsorted(np.flatnonzero(content == _QUOTE), commas) % 2 == 0]
    ends = np.flatnonzero(content == _LF)
    cells = np.diff(np.searchsorted(commas, ends), prepend=0) + 1
    ragged = np.flatnonzero(cells != width)
    if not len(ragged):
        return size
    return int(ends[ragged[0] - 1]) + 1 if ragged[0] else 0


def _bytes_before_invalid_utf8(block: bytes, size: int) -> int:
    """The size of the rows before the first one that is not UTF-8."""
    try:
        block[:size].decode("utf-8")
    except UnicodeDecodeError as error:
        return block.rfind(b"\n", 0, error.start) + 1
    return size
