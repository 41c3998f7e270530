"""Opens a file by its format, CSV, JSON lines or Parquet, and gives the encoder that goes with it. `run` uses it.

The format is the one that is asked for, or Parquet by the first bytes, or the one of the name's suffix, or JSON lines
if the first character is a brace, or CSV.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self

from jobs.common.errors import TerminalError
from jobs.schema.table import TableContract
from producer.byte_source import ByteSource
from producer.csv_reader import CsvReader
from producer.input_files import SUFFIXES, Format, InputFile
from producer.json_encoder import JsonEncoder
from producer.json_reader import JsonLinesReader
from producer.parquet_reader import ParquetReader
from producer.record_encoder import EncodedChunk, RowEncoder

_PARQUET_MAGIC = b"PAR1"
_OTHERS = (
    (
        _PARQUET_MAGIC,
        "a Parquet file in a pipe or an archive",
        "decompress it into a file of its own",
    ),
    (b"PK\x03\x04", "a zip or Excel file", "unzip it, or save the sheet as CSV"),
    (b"Obj\x01", "an Avro file", "convert it to Parquet"),
    (b"ORC", "an ORC file", "convert it to Parquet"),
    (b"BZh", "a bzip2 file", "compress it with gzip or zstd instead"),
    (b"\xfd7zXZ", "an xz file", "compress it with gzip or zstd instead"),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
)
_JSON_ARRAY = re.compile(rb"\s*\[\s*(?:[{\]]|$)")
_PRETTY_JSON = re.compile(rb"\s*\{[ \t\r]*(?:\n|$)")


class Chunk(Protocol):
    """Consecutive rows of one file. See `csv_reader.RowChunk` and `json_reader.JsonChunk`."""

    first_row: int
    position: int
    count: int
    file_rows: int
    fault: tuple[int, str] | None

    def line_of(self, index: int) -> int | None:
        """The line of row `index` of the chunk."""

    def original(self, index: int) -> dict[str, Any]:
        """What the rejects file keeps of row `index` of the chunk."""


class FileReader(Protocol):
    """An open file: a context manager that closes it. Raises TerminalError if it cannot be read."""

    @property
    def names(self) -> list[str] | None:
        """The fields of every row; None if each row says so itself."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_exception: object) -> None: ...

    def chunks(self, skip: int = 0) -> Iterator[Any]:
        """The file's rows from row `skip` on (`Chunk`s)."""

    def idle(self, seconds: float) -> bool:
        """Whether the input is a pipe that has no next row and stays silent for `seconds`."""


def open_reader(file: InputFile) -> FileReader:
    """Opens the file. Raises TerminalError if it cannot be read, or if it has none of the three formats."""
    if file.format == "parquet" or (file.format is None and _is_parquet(file)):
        return ParquetReader(file)
    source = ByteSource(file.path)
    try:
        if (file.format or _format_of_text(file, source.head)) == "csv":
            return CsvReader(file, source)
        _check_json_lines(file.path, source.head)
        return JsonLinesReader(file, source)
    except BaseException:
        source.close()
        raise


def encoder_for(
    reader: FileReader, file: InputFile, contract: TableContract, max_record_bytes: int, check: bool
) -> Callable[[Any], EncodedChunk]:
    """The function that checks and encodes the reader's chunks. `max_record_bytes` is the stream's limit."""
    is_gzip = contract.encoding == "gzip"
    limit = contract.max_record_bytes if is_gzip else max_record_bytes
    encode = (
        RowEncoder(contract, reader.header, file.fields, limit, check).encode
        if isinstance(reader, CsvReader)
        else JsonEncoder(contract, file.fields, limit, check).encode
    )
    return (lambda chunk: encode(chunk).compressed(max_record_bytes)) if is_gzip else encode


def _is_parquet(file: InputFile) -> bool:
    if file.size is None:
        return False
    try:
        with Path(file.path).open("rb") as content:
            return content.read(4) == _PARQUET_MAGIC
    except OSError as error:
        raise TerminalError(f"{file.path}: not readable: {error}") from error


def _format_of_text(file: InputFile, head: bytes) -> Format:
    for magic, what, remedy in _OTHERS:
        if head.startswith(magic):
            raise TerminalError(f"{file.path}: is {what}, not CSV, JSON lines or Parquet; {remedy}")
    suffix = next((suffix for suffix in map(str.lower, Path(file.path).suffixes[::-1]) if suffix in SUFFIXES), None)
    if suffix and SUFFIXES[suffix] != "parquet":
        return SUFFIXES[suffix]
    if suffix:
        raise TerminalError(
            f"{file.path}: does not start like a Parquet file; is it complete? Another format: --format csv or jsonl"
        )
    return "jsonl" if head.lstrip()[:1] == b"{" or _JSON_ARRAY.match(head) else "csv"


def _check_json_lines(path: str, head: bytes) -> None:
    program = "jq -c '.[]'" if _JSON_ARRAY.match(head) else "jq -c ." if _PRETTY_JSON.match(head) else None
    if program is not None:
        raise TerminalError(
            f"{path}: is JSON, but not a record on each line: `{program} FILE > FILE.jsonl` makes JSON lines of it"
        )
