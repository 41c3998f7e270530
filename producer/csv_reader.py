"""Reads the rows of CSV files, in constant memory.

In: files, folders or standard input. Out: `RowChunk`s of consecutive rows, for `record_encoder`. A chunk has columns
(`csv_fast_path`) if all of its rows are plain, and rows from the standard library's reader if not. Values stay the
text of the file, numbers included, so no value changes; the contract reads numeric strings as numbers.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa

from jobs.common.errors import TerminalError
from producer.byte_source import BLOCK_BYTES, ByteSource
from producer.csv_fast_path import read_columns
from producer.input_files import InputFile

CHUNK_ROWS = 500
# Kinesis's largest record. A quote that is never closed is an error after this many bytes.
MAX_FIELD_BYTES = 10 * 1024 * 1024

# A shorter plain part is read row by row, unless the block ends with it.
MIN_PLAIN_BYTES = 16 * 1024
# After a row that is not plain: rows that are read row by row before the fast path is tried again. Doubles each time.
_SLOW_ROWS = 8
_MAX_SLOW_ROWS = 16 * CHUNK_ROWS
# The fast path's block after a row that is not plain, because another one may follow.
_SMALL_BLOCK_BYTES = 64 * 1024


class RowChunk:
    """Consecutive rows of one file: `columns` of text if every row is plain, else `rows` of cells.

    `first_row` counts the file's rows from 0, and `first_line` its lines from 1: the row after the header is row 0 on
    line 2. `count` is the number of rows, blank lines included. `fault` (line, message) is a row after them that
    the reader could not read; it has no cells. `file_rows` is `count`, plus 1 if there is a fault. If a chunk with
    `first_row` 10 has `count` 5 and a fault, then `file_rows` is 6 and the next chunk's `first_row` is 16.
    `position` is the number of bytes of the file read so far. No cell of `columns` (string arrays without nulls)
    needs an escape in JSON, and each row of them is one line.
    """

    def __init__(
        self,
        first_row: int,
        first_line: int,
        position: int,
        *,
        rows: list[list[str]] | None = None,
        columns: list[pa.Array] | None = None,
        fault: tuple[int, str] | None = None,
    ) -> None:
        self.first_row, self.first_line, self.position, self.fault = first_row, first_line, position, fault
        self.columns = columns
        self._rows = rows
        self.count = len(columns[0]) if columns is not None else len(rows or ())
        self.file_rows = self.count + (fault is not None)

    @property
    def rows(self) -> list[list[str]]:
        """The cells of every row. A blank line has none."""
        if self._rows is None:
            self._rows = list(map(list, zip(*map(column_values, self.columns or ()), strict=True)))
        return self._rows

    def cells(self, index: int) -> list[str]:
        """The cells of row `index` of the chunk, from 0."""
        return [column[index].as_py() for column in self.columns] if self.columns is not None else self.rows[index]

    def original(self, index: int) -> dict[str, Any]:
        """What the rejects file keeps of row `index` of the chunk, as arguments of `RejectedRow`."""
        return {"cells": tuple(self.cells(index))}

    def line_of(self, index: int) -> int:
        """The line on which row `index` of the chunk starts. A quoted line break counts as a line."""
        if self.columns is not None:
            return self.first_line + index
        return self.first_line + sum(1 + sum(map(_line_breaks, row)) for row in self.rows[:index])

    def without_first(self, count: int) -> RowChunk:
        """A chunk of columns without its first `count` rows."""
        columns = [column.slice(count) for column in self.columns or ()]
        return RowChunk(self.first_row + count, self.first_line + count, self.position, columns=columns)


def column_values(column: pa.Array) -> list[Any]:
    """The column's values as str or bytes; five times as fast as `to_pylist`."""
    return cast(list[Any], column.to_numpy(zero_copy_only=False).tolist())


def _line_breaks(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


class CsvReader:
    """An open CSV file: the `header`, then `chunks()`. A context manager that closes the file.

    Reads plain or gzip files, with or without a byte-order mark, with LF or CRLF, with line breaks in quotes, and a
    last line without a line end. Raises TerminalError if the file cannot be read, or if the header is missing, is not
    UTF-8 or names a column twice. A value that is not UTF-8 contains surrogates, and `record_encoder` rejects its row.
    """

    def __init__(self, file: InputFile, source: ByteSource | None = None) -> None:
        csv.field_size_limit(MAX_FIELD_BYTES)
        self.file = file
        self._source = source or ByteSource(file.path)
        try:
            self._reader = csv.reader(self._source.lines(), strict=True)
            self.header = self._read_header()
        except BaseException:
            self._source.close()
            raise

    def _read_header(self) -> list[str]:
        path = self.file.path
        try:
            header = next(self._reader, [])
        except csv.Error as error:
            raise TerminalError(f"{path}: not readable: {error}") from error
        if not header:
            raise TerminalError(f"{path}: is empty; expected a header line with the names of the columns")
        if any("\udc80" <= letter <= "\udcff" for name in header for letter in name):
            raise TerminalError(f"{path}: the header is not UTF-8; save the file as UTF-8")
        doubled = sorted({name for name in header if header.count(name) > 1})
        if doubled:
            raise TerminalError(f"{path}: the header names a column twice: {', '.join(doubled)}")
        return header

    def __enter__(self) -> CsvReader:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._source.close()

    @property
    def names(self) -> list[str]:
        """The fields of every row: the header."""
        return self.header

    def chunks(self, skip: int = 0) -> Iterator[RowChunk]:
        """The file's rows from row `skip` on, in chunks. Blank lines and rows with a fault count as rows.

        Example: `skip=3` means that rows 0, 1 and 2 are left out, and the first chunk's `first_row` is 3. A chunk
        of columns has the rows of up to 1 MiB of the file; a chunk of rows has at most CHUNK_ROWS. A chunk
        may have a fault and no rows.

        Raises TerminalError if the file cannot be read to its end. A row that is not CSV is a chunk's `fault` instead.
        """
        row, slow_rows, block_bytes = 0, _SLOW_ROWS, BLOCK_BYTES
        while True:
            chunk = self._read_columns(row, block_bytes)
            if chunk is not None:
                slow_rows, block_bytes = _SLOW_ROWS, min(4 * block_bytes, BLOCK_BYTES)
                row += chunk.file_rows
                if row > skip:
                    yield chunk.without_first(max(0, skip + chunk.file_rows - row))
                continue
            # Trying the fast path in vain costs time, so each failure doubles the rows until the next try.
            until, slow_rows, block_bytes = row + slow_rows, min(2 * slow_rows, _MAX_SLOW_ROWS), _SMALL_BLOCK_BYTES
            while row < until:
                most = min(CHUNK_ROWS, until - row, skip - row if row < skip else CHUNK_ROWS)
                chunk = self._read_rows(row, most)
                if not chunk.file_rows:
                    return
                row += chunk.file_rows
                if row > skip:
                    yield chunk

    def idle(self, seconds: float) -> bool:
        """Whether the input is a pipe that has no next row and stays silent for `seconds`."""
        return self._source.idle(seconds)

    def _read_columns(self, first_row: int, block_bytes: int) -> RowChunk | None:
        """The plain rows of the next block; None if they are too few for the fast path."""
        block = self._source.peek_block(block_bytes)
        size, columns = read_columns(block, len(self.header))
        if not size or (size < len(block) and size < MIN_PLAIN_BYTES):
            return None
        line = self._source.line + 1
        self._source.consume(size, len(columns[0]))
        return RowChunk(first_row, line, self._bytes_read(), columns=columns)

    def _read_rows(self, first_row: int, most: int) -> RowChunk:
        line = self._source.line + 1
        found: list[list[str]] = []
        fault = None
        try:
            if not self._source.is_pipe:
                # extend keeps the rows before an error; list(islice(…)) would lose them.
                found.extend(itertools.islice(self._reader, most))
            # Waits for the first row only, so that rows that a pipe has delivered are not delayed.
            while self._source.is_pipe and (
                len(found) < most
                and (not found or self._source.has_line)
                and (row := next(self._reader, None)) is not None
            ):
                found.append(row)
        except csv.Error as error:
            fault = (self._source.line, str(error))
        return RowChunk(first_row, line, self._bytes_read(), rows=found, fault=fault)

    def _bytes_read(self) -> int:
        return self._source.bytes_read if self.file.size is not None else 0
