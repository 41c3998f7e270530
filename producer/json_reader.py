"""Reads the rows of JSON lines files (`.jsonl`, `.ndjson`), in constant memory.

In: a file. Out: `JsonChunk`s of consecutive rows, for `json_encoder`. A row is a line's bytes: no value is read and
written again, so no number changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from producer.byte_source import BLOCK_BYTES, ByteSource
from producer.input_files import InputFile

_BLANKS = b" \t\r"


class JsonChunk:
    """Consecutive rows of one file, each a JSON document; b"" is a blank line.

    `first_row` counts the file's rows from 0, and `first_line` its lines from 1 (None: the file has no lines).
    `position` is the number of bytes of the file read so far.
    """

    fault: tuple[int, str] | None = None

    def __init__(self, first_row: int, first_line: int | None, position: int, documents: list[bytes]) -> None:
        self.first_row, self.first_line, self.position, self.documents = first_row, first_line, position, documents
        self.count = self.file_rows = len(documents)

    def line_of(self, index: int) -> int | None:
        """The line of row `index` of the chunk."""
        return None if self.first_line is None else self.first_line + index

    def original(self, index: int) -> dict[str, Any]:
        """What the rejects file keeps of row `index` of the chunk, as arguments of `RejectedRow`."""
        return {"record": self.documents[index].decode("utf-8", "surrogateescape")}


class JsonLinesReader:
    """An open JSON lines file. A context manager that closes it. Raises TerminalError if it cannot be read."""

    names: list[str] | None = None

    def __init__(self, file: InputFile, source: ByteSource) -> None:
        self.file, self._source = file, source

    def __enter__(self) -> JsonLinesReader:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._source.close()

    def chunks(self, skip: int = 0) -> Iterator[JsonChunk]:
        """The file's rows from row `skip` on, in chunks of up to 1 MiB of the file. Blank lines count as rows.

        Example: with `skip=3` the first chunk's `first_row` is 3, and its `first_line` is 4.
        """
        row = 0
        while lines := self._source.read_lines(BLOCK_BYTES):
            start = max(0, skip - row)
            documents = [line.strip(_BLANKS) for line in lines[start:]]
            row += len(lines)
            if documents:
                first = row - len(documents)
                position = self._source.bytes_read if self.file.size is not None else 0
                yield JsonChunk(first, first + 1, position, documents)

    def idle(self, seconds: float) -> bool:
        """Whether the input is a pipe that has no next row and stays silent for `seconds`."""
        return self._source.idle(seconds)
