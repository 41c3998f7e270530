"""Rows of export files, in constant memory. From: files, folders or standard input. Next: `producer/records.py`.

A chunk of consecutive rows is what travels, because one row at a time costs Python more than the row itself.
Values stay the strings that stand in the file, numbers included, so that every field survives byte for byte
(the contract reads numeric strings as numbers). The city is in the file's name alone, and is added as `City`.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import sys
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from jobs.contract.errors import ConfigurationError, TerminalError

CITY_FIELD = "City"
STDIN = "-"
CHUNK_ROWS = 500
# A field may be as large as a record may be; an unclosed quote swallows no more than this before it is an error.
MAX_FIELD_BYTES = 10 * 1024 * 1024

_EXPORT_NAME = re.compile(r"Travel_Times - (.+?)\.csv(?:\.gz)?", re.IGNORECASE)
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


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


@dataclass(slots=True)
class Chunk:
    """Consecutive rows of one file.

    `first_row` counts the file's rows from 0; `first_line` is where the chunk starts in the file, counted from 1.
    `taken` is how many rows the chunk stands for: its `rows`, blank lines, and `fault` (line, what is wrong) if
    the reader choked on one. `position` is how many bytes of the file had been read by then.
    """

    first_row: int
    first_line: int
    rows: list[list[str]]
    taken: int
    position: int = 0
    fault: tuple[int, str] | None = None

    def line_of(self, index: int) -> int:
        """The line on which row `index` of the chunk starts; quoted line breaks before it are counted."""
        return self.first_line + sum(1 + sum(map(_line_breaks, row)) for row in self.rows[:index])


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


@dataclass
class ExportReader:
    """An open export: `header` at once, then `chunks()`. A context manager; the file is closed at its end.

    Reads plain or gzip (told by the first bytes), with or without a byte-order mark, LF or CRLF, quoted line
    breaks, and a last line without an end. Raises TerminalError where the file cannot be read, holds no header,
    or names a column twice. Text that is not UTF-8 comes as surrogates, for the next stage to reject row by row.
    """

    export: Export
    _text: IO[str] = field(init=False)
    _raw: Any = field(init=False)

    def __post_init__(self) -> None:
        csv.field_size_limit(MAX_FIELD_BYTES)
        try:
            self._open()
            self._reader = csv.reader(self._text, strict=True)
            self.header = next(self._reader, [])
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise TerminalError(f"{self.export.path}: not readable: {error}") from error
        doubled = sorted({name for name in self.header if self.header.count(name) > 1})
        if not self.header:
            raise TerminalError(f"{self.export.path}: is empty; expected a header with the columns' names")
        if doubled:
            raise TerminalError(f"{self.export.path}: the header names a column twice: {', '.join(doubled)}")

    def _open(self) -> None:
        path = self.export.path
        if path == STDIN:
            self._raw = io.BufferedReader(cast(Any, sys.stdin.buffer), 1 << 18)
        else:
            self._raw = open(path, "rb", buffering=1 << 18)  # noqa: SIM115
        content: Any = self._raw
        if content.peek(2)[:2] == _GZIP_MAGIC:
            content = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=content, mode="rb")), 1 << 18)
        if content.peek(3)[:3] == _BOM:
            content.read(3)
        # newline="" leaves line breaks inside quotes as they are; a byte that is no UTF-8 becomes a surrogate.
        self._text = io.TextIOWrapper(content, encoding="utf-8", errors="surrogateescape", newline="")

    def __enter__(self) -> ExportReader:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.export.path != STDIN:
            self._text.close()
            self._raw.close()

    def chunks(self, rows: int = CHUNK_ROWS, skip: int = 0) -> Iterator[Chunk]:
        """The file's rows in chunks of at most `rows`, without the first `skip` (faulty and blank ones count)."""
        reader, position = self._reader, 0
        while True:
            first_line = reader.line_num + 1
            wanted = min(rows, skip - position) if position < skip else rows
            found: list[list[str]] = []
            fault = None
            try:
                # extend keeps what was read before an error, which list(islice(…)) would not.
                found.extend(itertools.islice(reader, wanted))
            except csv.Error as error:
                fault = (reader.line_num, str(error))
            except (OSError, EOFError, zlib.error) as error:
                raise TerminalError(
                    f"{self.export.path}: not readable after line {reader.line_num}: {error}"
                ) from error
            taken = len(found) + (fault is not None)
            if not taken:
                return
            position += taken
            if position <= skip:
                continue
            yield Chunk(position - taken, first_line, found, taken, self._bytes_read(), fault)

    def _bytes_read(self) -> int:
        return int(self._raw.tell()) if self.export.size is not None else 0


def read_records(path: str | Path, city: str | None = None) -> Iterator[dict[str, str]]:
    """The records of an export file, or of every one of a folder: source field → the text that stands there.

    A column that the file lacks is left out, an empty cell is "". Rows that are no rows of the file's header
    raise TerminalError; `producer.put_records.produce` files them as rejected instead.
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
