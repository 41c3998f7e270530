"""Opens a text file and returns its bytes as blocks or as lines, in constant memory. `readers` uses it.

Reads plain files, gzip and Zstandard files (detected by their first bytes) and standard input, with or without a
byte-order mark. Blocks and lines share one position: each continues where the other stopped.
"""

from __future__ import annotations

import gzip
import io
import select
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa

from jobs.common.errors import TerminalError

STDIN = "-"
BLOCK_BYTES = 1 << 20
# Bounds the memory if a file has no line breaks.
MAX_LINE_BYTES = 64 << 20

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"


class ByteSource:
    """An open file, or standard input for `-`. `line` is the number of lines consumed so far.

    Raises TerminalError if the file cannot be read or a line is longer than MAX_LINE_BYTES.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.line = 0
        self._buffer = b""
        self._at = 0
        self._ended = False
        # The lines of the buffer from `_at` on, if the buffer was split.
        self._split: deque[bytes] = deque()
        try:
            self._raw = _standard_input() if path == STDIN else io.BufferedReader(io.FileIO(path), 1 << 18)
            self._content = self._raw
            magic = self._raw.peek(4)[:4]
            if magic[:2] == _GZIP_MAGIC:
                self._content = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=self._raw, mode="rb")), 1 << 18)
            elif magic == _ZSTD_MAGIC:
                frames = pa.CompressedInputStream(pa.PythonFile(self._raw, "r"), "zstd")
                self._content = io.BufferedReader(cast(Any, frames), 1 << 18)
        except OSError as error:
            raise self._unreadable(error) from error
        # `select` does not see data that has already been decompressed, so only a plain pipe is polled.
        self._pipe = _descriptor(self._raw) if path == STDIN and self._content is self._raw else None
        while len(self._buffer) < len(_BOM) and not self._ended:
            self._fill()
        if self._buffer.startswith(_BOM):
            self._at = len(_BOM)

    @property
    def head(self) -> bytes:
        """The first bytes, decompressed and without a byte-order mark, before anything is consumed."""
        return self._buffer[self._at : self._at + 4096]

    @property
    def bytes_read(self) -> int:
        """Bytes read of the file itself, compressed if the file is; 0 for standard input."""
        return 0 if self.path == STDIN else int(self._raw.tell())

    def close(self) -> None:
        """Closes the file. Standard input stays open."""
        if self.path != STDIN:
            self._content.close()
            self._raw.close()

    def peek_block(self, size: int) -> bytes:
        """The whole lines within the next `size` bytes, without consuming them; b"" if not even one line fits.

        Waits only until one line is available, so a slow pipe delays nothing.
        """
        while not self._ended and self._buffer.find(b"\n", self._at) < 0 and self._unconsumed < BLOCK_BYTES:
            self._fill()
        return self._buffer[self._at : self._buffer.rfind(b"\n", self._at, self._at + size) + 1]

    def read_lines(self, size: int) -> list[bytes]:
        """Consumes the whole lines within the next `size` bytes, at least one, without their LF; [] at the end.

        Waits only until one line is available. The last line of a file may have no LF.
        """
        while not self._ended and self._buffer.find(b"\n", self._at) < 0:
            self._check_line_length()
            self._fill()
        end = self._buffer.rfind(b"\n", self._at, self._at + size) + 1 or self._buffer.find(b"\n", self._at) + 1
        block = self._buffer[self._at : end or len(self._buffer)]
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()
        self.consume(len(block), len(lines))
        return lines

    @property
    def is_pipe(self) -> bool:
        """Whether the input is a pipe, which may pause."""
        return self._pipe is not None

    @property
    def has_line(self) -> bool:
        """Whether a line is in the buffer."""
        return bool(self._split) or self._buffer.find(b"\n", self._at) >= 0

    def idle(self, seconds: float) -> bool:
        """Whether the buffer has no line and the pipe stays silent for `seconds`. A file is never idle."""
        if self._pipe is None or self._ended or self.has_line:
            return False
        return not select.select([self._pipe], [], [], seconds)[0]

    def consume(self, size: int, lines: int) -> None:
        """Consumes the first `size` bytes of the block. They are `lines` lines."""
        self._at += size
        self.line += lines
        self._split.clear()

    def lines(self) -> Iterator[str]:
        """Consumes line by line, like a text file opened with newline="": lines end with LF, CRLF or CR.

        A byte that is not UTF-8 becomes a surrogate.
        """
        while self._split or self._split_buffer():
            line = self._split.popleft()
            self._at += len(line)
            self.line += 1
            yield line.decode("utf-8", "surrogateescape")

    @property
    def _unconsumed(self) -> int:
        return len(self._buffer) - self._at

    def _split_buffer(self) -> bool:
        """Splits the buffer into whole lines; reads more if it has none. False at the end of the file."""
        while True:
            # bytes.splitlines splits only at these three line ends; str.splitlines also splits at U+2028.
            self._split.extend(self._buffer[self._at :].splitlines(keepends=True))
            # The last line may continue in the next bytes, even after a CR, because an LF may follow.
            if not self._ended and self._split and not self._split[-1].endswith(b"\n"):
                self._split.pop()
            if self._split or self._ended:
                return bool(self._split)
            self._check_line_length()
            self._fill()

    def _check_line_length(self) -> None:
        if self._unconsumed > MAX_LINE_BYTES:
            raise TerminalError(
                f"{self.path}: line {self.line + 1} is longer than {MAX_LINE_BYTES} bytes; is this a CSV or JSON lines "
                "file?"
            )

    def _fill(self) -> None:
        # Doubles for a long line, so that its start is not scanned too often.
        size = max(BLOCK_BYTES, self._unconsumed)
        try:
            # `read` of a pipe would wait for all `size` bytes.
            more = self._content.read1(size) if self.path == STDIN else self._content.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise self._unreadable(error) from error
        self._ended = not more
        self._buffer = self._buffer[self._at :] + more
        self._at = 0

    def _unreadable(self, error: Exception) -> TerminalError:
        where = f" after line {self.line}" if self.line else ""
        return TerminalError(f"{self.path}: not readable{where}: {error}")


def _standard_input() -> io.BufferedReader:
    """Standard input, buffered once: a second buffer would wait until it is full."""
    content: Any = sys.stdin.buffer
    return content if isinstance(content, io.BufferedReader) else io.BufferedReader(content)


def _descriptor(content: Any) -> int | None:
    try:
        return int(content.fileno())
    except OSError:
        return None
