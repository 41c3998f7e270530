"""The bytes of one export, as blocks or as lines, in constant memory. Asked by: `csv_rows`.

Plain or gzip (told by the first bytes), with or without a byte-order mark. Whoever asks takes blocks and lines by
turns: both go on where the other stopped.
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

from jobs.common.errors import TerminalError

STDIN = "-"
BLOCK_BYTES = 1 << 20
# A row is at most a record; a file without line breaks must not fill the memory.
MAX_LINE_BYTES = 64 << 20
UNREADABLE = (OSError, EOFError, zlib.error)

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class Source:
    """An open file, or standard input for `-`. `line` counts the lines that were taken.

    Raises TerminalError where the file cannot be read, or a line has no end.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.line = 0
        self._buffer = b""
        self._at = 0
        self._ended = False
        # The buffer's next lines, where it was split; `_at` is the first one's place.
        self._split: deque[bytes] = deque()
        try:
            self._raw = _standard_input() if path == STDIN else io.BufferedReader(io.FileIO(path), 1 << 18)
            self._content = self._raw
            if self._raw.peek(2)[:2] == _GZIP_MAGIC:
                self._content = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=self._raw, mode="rb")), 1 << 18)
        except OSError as error:
            raise self._unreadable(error) from error
        # What was decompressed already is not seen from outside, so that such a pipe is simply waited for.
        self._pipe = _descriptor(self._raw) if path == STDIN and self._content is self._raw else None
        while len(self._buffer) < len(_BOM) and not self._ended:
            self._fill()
        if self._buffer.startswith(_BOM):
            self._at = len(_BOM)

    @property
    def bytes_read(self) -> int:
        """How far the file itself, compressed or not, has been read; 0 for standard input."""
        return 0 if self.path == STDIN else int(self._raw.tell())

    def close(self) -> None:
        """Closes the file; standard input stays open."""
        if self.path != STDIN:
            self._content.close()
            self._raw.close()

    def block(self, window: int) -> bytes:
        """The lines of the next `window` bytes, as far as they have been read; b"" where none is whole.

        Waits for a first line only, so that what trickles in through a pipe is not held back.
        """
        while not self._ended and self._buffer.find(b"\n", self._at) < 0 and self._left < BLOCK_BYTES:
            self._fill()
        return self._buffer[self._at : self._buffer.rfind(b"\n", self._at, self._at + window) + 1]

    @property
    def live(self) -> bool:
        """Whether it comes through a pipe, which may fall silent."""
        return self._pipe is not None

    @property
    def ready(self) -> bool:
        """Whether a line can be taken without reading on."""
        return bool(self._split) or self._buffer.find(b"\n", self._at) >= 0

    def idle(self, seconds: float) -> bool:
        """Whether there is nothing to be read, and nothing came through the pipe within this time."""
        if self._pipe is None or self._ended or self.ready:
            return False
        return not select.select([self._pipe], [], [], seconds)[0]

    def take(self, size: int, lines: int) -> None:
        """The first `size` bytes of the block, which are `lines` lines, are done with."""
        self._at += size
        self.line += lines
        self._split.clear()

    def lines(self) -> Iterator[str]:
        """Takes line after line, as a text file opened with newline="" gives them: ends are LF, CRLF or CR.

        A byte that is not UTF-8 becomes a surrogate.
        """
        while self._split or self._split_buffer():
            line = self._split.popleft()
            self._at += len(line)
            self.line += 1
            yield line.decode("utf-8", "surrogateescape")

    @property
    def _left(self) -> int:
        return len(self._buffer) - self._at

    def _split_buffer(self) -> bool:
        """Splits what is in the buffer into whole lines, after reading on where there is none; False at the end."""
        while True:
            # bytes know no other line ends than these three; str would also split at U+2028.
            self._split.extend(self._buffer[self._at :].splitlines(keepends=True))
            # The last may go on in the next bytes: even where it ends in CR, for an LF may follow.
            if not self._ended and self._split and not self._split[-1].endswith(b"\n"):
                self._split.pop()
            if self._split or self._ended:
                return bool(self._split)
            if self._left > MAX_LINE_BYTES:
                raise TerminalError(
                    f"{self.path}: line {self.line + 1} is longer than {MAX_LINE_BYTES} bytes; is this a CSV file?"
                )
            self._fill()

    def _fill(self) -> None:
        # As much again for a line that is long, so that its beginning is not looked at too often.
        wanted = max(BLOCK_BYTES, self._left)
        try:
            # A file gives all that is asked for; a pipe what it holds.
            more = self._content.read1(wanted) if self.path == STDIN else self._content.read(wanted)
        except UNREADABLE as error:
            raise self._unreadable(error) from error
        self._ended = not more
        self._buffer = self._buffer[self._at :] + more
        self._at = 0

    def _unreadable(self, error: Exception) -> TerminalError:
        where = f" after line {self.line}" if self.line else ""
        return TerminalError(f"{self.path}: not readable{where}: {error}")


def _standard_input() -> io.BufferedReader:
    """As it is where it can be looked into: a buffer around a buffer would wait until it is full."""
    content: Any = sys.stdin.buffer
    return content if isinstance(content, io.BufferedReader) else io.BufferedReader(content)


def _descriptor(content: Any) -> int | None:
    try:
        return int(content.fileno())
    except OSError:
        return None
