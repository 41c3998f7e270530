"""Rows of export files, in constant memory. From: files, folders or standard input. Next: `producer/record_encoder.py`.

A chunk of consecutive rows is what travels, because one row at a time costs Python more than the row itself:
columns of a whole block where its rows are plain, lists of cells from the standard library's reader where not.
Values stay the strings that stand in the file, numbers included, so that every field survives byte for byte
(the contract reads numeric strings as numbers). The city is in the file's name alone, and is added as `City`.
"""

from __future__ import annotations

import csv
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from jobs.common.errors import ConfigurationError, TerminalError
from producer.csv_fast_path import read_columns
from producer.csv_source import BLOCK_BYTES, STDIN, Source

CITY_FIELD = "City"
CHUNK_ROWS = 500
# A field may be as large as a record may be; an unclosed quote swallows no more than this before it is an error.
MAX_FIELD_BYTES = 10 * 1024 * 1024

_EXPORT_NAME = re.compile(r"Travel_Times - (.+?)\.csv(?:\.gz)?", re.IGNORECASE)
# Fewer plain bytes than this, with others behind them, are sooner read row by row.
_WORTH_BYTES = 16 * 1024
_CAREFUL_AT_LEAST = 8
_CAREFUL_AT_MOST = 16 * CHUNK_ROWS
# How far is looked after rows that were not plain, for there may be more of them.
_WINDOW_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Export:
    """One input: a file's path (or `-` for standard input), its city (None: unknown) and its size in bytes."""

    path: str
    city: str | None = None
    size: int | None = None

    @property
    def identity(self) -> str:
        """The file, however its path is spelled."""
        return self.path if self.path == STDIN else str(Path(self.path).resolve())


class Chunk:
    """Consecutive rows of one file: as `columns` of text where every one of them is plain, else as `rows`.

    `first_row` counts the file's rows from 0; `first_line` is where the chunk starts in the file, counted from 1.
    `taken` is how many rows the chunk stands for: its rows, blank lines, and `fault` (line, what is wrong) if
    the reader choked on one. `position` is how many bytes of the file had been read by then. A cell of `columns`
    (string arrays without nulls) holds nothing that JSON would escape, and each row is one line.
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
        self.taken = self.count + (fault is not None)

    @property
    def rows(self) -> list[list[str]]:
        """Every row's cells."""
        if self._rows is None:
            self._rows = list(map(list, zip(*map(texts, self.columns or ()), strict=True)))
        return self._rows

    def cells(self, index: int) -> list[str]:
        """The cells of one row."""
        return [column[index].as_py() for column in self.columns] if self.columns is not None else self.rows[index]

    def line_of(self, index: int) -> int:
        """The line on which row `index` of the chunk starts; quoted line breaks before it are counted."""
        if self.columns is not None:
            return self.first_line + index
        return self.first_line + sum(1 + sum(map(_line_breaks, row)) for row in self.rows[:index])

    def without(self, skip: int) -> Chunk:
        """The chunk of plain rows, without its first `skip`."""
        columns = [column.slice(skip) for column in self.columns or ()]
        return Chunk(self.first_row + skip, self.first_line + skip, self.position, columns=columns)


def texts(column: pa.Array) -> list[Any]:
    """A column's values as str or bytes; five times as fast as `to_pylist`."""
    return cast(list[Any], column.to_numpy(zero_copy_only=False).tolist())


def _line_breaks(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def city_of(path: str) -> str | None:
    """The city in the name `Travel_Times - <City>.csv`; None where the name is another."""
    found = _EXPORT_NAME.fullmatch(Path(path).name)
    # macOS names files in decomposed Unicode; a city must be one partition wherever it was exported.
    return unicodedata.normalize("NFC", found[1]) if found else None


def find_exports(paths: Sequence[str | Path], city: str | None = None) -> list[Export]:
    """The export files that `paths` name, each once; a folder stands for its *.csv and *.csv.gz, by name.

    `city` overrides what the files' names say. Raises ConfigurationError for a path that is not there, or a
    folder without exports.
    """
    found: dict[str, Export] = {}
    for given in map(str, paths):
        if given == STDIN:
            found[STDIN] = Export(STDIN, city)
            continue
        path = Path(given)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.name.lower().endswith((".csv", ".csv.gz")))
            if not files:
                raise ConfigurationError(f"{given}: holds no *.csv or *.csv.gz file")
        elif path.exists():
            files = [path]
        else:
            raise ConfigurationError(f"{given}: no such file or folder")
        for file in files:
            size = file.stat().st_size if file.is_file() else None
            export = Export(str(file), city or city_of(file.name), size)
            found.setdefault(export.identity, export)
    return list(found.values())


class ExportReader:
    """An open export: `header` at once, then `chunks()`. A context manager; the file is closed at its end.

    Reads plain or gzip (told by the first bytes), with or without a byte-order mark, LF or CRLF, quoted line
    breaks, and a last line without an end. Raises TerminalError where the file cannot be read, holds no header
    or one that is not UTF-8, or names a column twice. Other text that is not UTF-8 comes as surrogates, for the
    next stage to reject row by row.
    """

    def __init__(self, export: Export) -> None:
        csv.field_size_limit(MAX_FIELD_BYTES)
        self.export = export
        self._source = Source(export.path)
        try:
            self._reader = csv.reader(self._source.lines(), strict=True)
            self.header = self._read_header()
        except BaseException:
            self._source.close()
            raise

    def _read_header(self) -> list[str]:
        path = self.export.path
        try:
            header = next(self._reader, [])
        except csv.Error as error:
            raise TerminalError(f"{path}: not readable: {error}") from error
        if not header:
            raise TerminalError(f"{path}: is empty; expected a header with the columns' names")
        if any("\udc80" <= letter <= "\udcff" for name in header for letter in name):
            raise TerminalError(f"{path}: the header is not UTF-8; save the file as UTF-8")
        doubled = sorted({name for name in header if header.count(name) > 1})
        if doubled:
            raise TerminalError(f"{path}: the header names a column twice: {', '.join(doubled)}")
        return header

    def __enter__(self) -> ExportReader:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._source.close()

    def chunks(self, skip: int = 0) -> Iterator[Chunk]:
        """The file's rows in chunks, without the first `skip` (faulty and blank ones count).

        A chunk of columns is a block of the file, one of rows has at most CHUNK_ROWS.
        """
        position, careful, window = 0, _CAREFUL_AT_LEAST, BLOCK_BYTES
        while True:
            chunk = self._columns(position, window)
            if chunk is not None:
                careful, window = _CAREFUL_AT_LEAST, min(4 * window, BLOCK_BYTES)
                position += chunk.taken
                if position > skip:
                    yield chunk.without(max(0, skip + chunk.taken - position))
                continue
            # Looking at a block in vain costs something: the more often, the later it is tried again.
            until, careful, window = position + careful, min(2 * careful, _CAREFUL_AT_MOST), _WINDOW_BYTES
            while position < until:
                wanted = min(CHUNK_ROWS, until - position, skip - position if position < skip else CHUNK_ROWS)
                chunk = self._rows(position, wanted)
                if not chunk.taken:
                    return
                position += chunk.taken
                if position > skip:
                    yield chunk

    def idle(self, seconds: float) -> bool:
        """Whether the next chunk has to be waited for, and did not begin to come within this time: a quiet pipe."""
        return self._source.idle(seconds)

    def _columns(self, position: int, window: int) -> Chunk | None:
        """The plain rows of the next `window` bytes, if there are enough of them to be worth it."""
        block = self._source.block(window)
        size, columns = read_columns(block, len(self.header))
        if not size or (size < len(block) and size < _WORTH_BYTES):
            return None
        line = self._source.line + 1
        self._source.take(size, len(columns[0]))
        return Chunk(position, line, self._bytes_read(), columns=columns)

    def _rows(self, position: int, wanted: int) -> Chunk:
        line = self._source.line + 1
        found: list[list[str]] = []
        fault = None
        try:
            if not self._source.live:
                # extend keeps what was read before an error, which list(islice(…)) would not.
                found.extend(itertools.islice(self._reader, wanted))
            # Only the first row is waited for: what a pipe has brought is not held back.
            while self._source.live and (
                len(found) < wanted
                and (not found or self._source.ready)
                and (row := next(self._reader, None)) is not None
            ):
                found.append(row)
        except csv.Error as error:
            fault = (self._source.line, str(error))
        return Chunk(position, line, self._bytes_read(), rows=found, fault=fault)

    def _bytes_read(self) -> int:
        return self._source.bytes_read if self.export.size is not None else 0


def read_records(path: str | Path, city: str | None = None) -> Iterator[dict[str, str]]:
    """The records of an export file, or of every one of a folder: source field → the text that stands there.

    A column that the file lacks is left out, an empty cell is "". Rows that are no rows of the file's header
    raise TerminalError; `producer.produce.produce` files them as rejected instead.
    """
    for export in find_exports([path], city):
        with ExportReader(export) as reader:
            for chunk in reader.chunks():
                if chunk.fault:
                    raise TerminalError(f"{export.path}: line {chunk.fault[0]}: {chunk.fault[1]}")
                yield from _as_records(export, reader.header, chunk)


def _as_records(export: Export, header: Sequence[str], chunk: Chunk) -> Iterable[dict[str, str]]:
    extra = {} if export.city is None or CITY_FIELD in header else {CITY_FIELD: export.city}
    for index, row in enumerate(chunk.rows):
        if row and len(row) != len(header):
            line = chunk.line_of(index)
            raise TerminalError(f"{export.path}: line {line}: {len(row)} fields; the header has {len(header)}")
        if row:
            yield dict(zip(header, row, strict=True), **extra)
