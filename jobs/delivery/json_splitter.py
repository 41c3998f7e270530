"""A delivery file's bytes → its records, as they stood on the stream.

Firehose writes records one behind the other, each followed by a newline or by nothing (AppendDelimiterToRecord).
A record is what stands there as one JSON object, array or string, over several lines too; what is none of these
is a record of its own, up to the next newline or the next object that is whole. Blanks between records are none.
Bytes stay as they are, UTF-8 or not, so that `transform` gives the same reason as for the stream's record.

The bytes of a file do not tell two cases apart, and here the batch path differs from the stream:
a record on the stream that holds an object and something else besides (a second object, words before or behind
it) is one rejected record there; here the object is a record, and the rest another.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator

from jobs.delivery.json_values import OPEN, Values

# A record on a Kinesis stream has at most this many bytes.
LONGEST_RECORD = 10 * 1024 * 1024

_START = re.compile(rb"[^ \t\r\n]")
_BREAK = re.compile(rb"[{\n]")
_VALUE_STARTS = b'{["'


def split(chunks: Iterable[bytes], longest: int = LONGEST_RECORD) -> Iterator[bytes]:
    """The records of a file that comes in `chunks`; holds at most about three times `longest` bytes of it.

    What is no JSON value and has more than `longest` bytes comes in pieces.
    """
    left = b""
    parts: list[bytes] = []
    waiting = 0
    for chunk in chunks:
        parts.append(chunk)
        waiting += len(chunk)
        if waiting <= len(left):
            continue  # what is left is looked at anew when there is twice as much: n bytes cost 2 n at most
        text = b"".join([left, *parts])
        done = yield from _whole_records(text, False, longest)
        left, parts, waiting = text[done:], [], 0
    yield from _whole_records(b"".join([left, *parts]), True, longest)


def _whole_records(text: bytes, is_all: bool, longest: int) -> Generator[bytes, None, int]:
    """Yields the records whose end is certain; returns how many bytes they and the blanks between them take."""
    values = Values(text, is_all, longest)
    at = 0
    while found := _START.search(text, at):
        at = found.start()
        end = values.end(at) if text[at] in _VALUE_STARTS else -1
        if end == OPEN:
            return at
        if end < 0:
            end = _junk_end(text, at, values, is_all, longest)
            if end < 0:
                return at
        yield text[at:end]
        at = end
    return len(text)


def _junk_end(text: bytes, start: int, values: Values, is_all: bool, longest: int) -> int:
    """Where the record ends that begins at `start` and is no JSON value; OPEN where more of the text will tell."""
    at = start + 1
    while found := _BREAK.search(text, at):
        at = found.start()
        if text[at] == ord("\n"):
            return at
        end = values.end(at)
        if end == OPEN:
            return OPEN
        if end >= 0:
            return at
        at += 1
    return len(text) if is_all or len(text) - start > longest else OPEN
