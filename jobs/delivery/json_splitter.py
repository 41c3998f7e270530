"""Splits the bytes of a delivery file into records, byte for byte as the producer sent them.

Firehose writes records one after the other, followed by a newline or by nothing (AppendDelimiterToRecord). A record
is one JSON object, array or string, on one line or several. Anything else is a bad stretch: it becomes a record of
its own, up to the next newline or the next complete object, and the record parser rejects it later. White space
between records is dropped. The splitter finds where a value ends; the parser checks its content.

    b'{"a": 1}{"a":\n 2}oops\n'   gives   b'{"a": 1}', b'{"a":\n 2}', b'oops'

A file does not say where a record ended on the stream. So if one stream record holds an object and more text (a
second object, words before or after it), the stream rejects it as one record, and this path sees two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator

# The largest record that Kinesis accepts.
MAX_RECORD_BYTES = 10 * 1024 * 1024

# Results of JsonScanner.end that are not offsets.
INVALID = -1  # no JSON value starts here
INCOMPLETE = -2  # the text ends inside the value: more text is needed

_NOT_BLANK = re.compile(rb"[^ \t\r\n]")
_OBJECT_OR_NEWLINE = re.compile(rb"[{\n]")
_VALUE_STARTS = b'{["'

# A string, with or without its closing quote, or a bracket.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[{}\[\]]', re.DOTALL)

# strict=False accepts control characters in strings; parse_int=str accepts integers of any length.
_DECODER = json.JSONDecoder(strict=False, parse_int=str)


def split_records(chunks: Iterable[bytes], max_bytes: int = MAX_RECORD_BYTES) -> Iterator[bytes]:
    """The records of a file that is read in `chunks`, with memory for a few times `max_bytes`.

    A value of more than `max_bytes` bytes counts as a bad stretch, and a bad stretch that long comes in pieces.
    """
    rest = b""  # starts with the record whose end is not known yet
    parts: list[bytes] = []
    new_bytes = 0
    for chunk in chunks:
        parts.append(chunk)
        new_bytes += len(chunk)
        if new_bytes <= len(rest):
            continue  # wait until the text has doubled, so that n bytes cost at most 2n
        text = b"".join([rest, *parts])
        end = yield from _complete_records(text, False, max_bytes)
        rest, parts, new_bytes = text[end:], [], 0
    yield from _complete_records(b"".join([rest, *parts]), True, max_bytes)


def _complete_records(text: bytes, is_last: bool, max_bytes: int) -> Generator[bytes, None, int]:
    """Yields the records whose end is certain; returns the offset of the first byte that belongs to none of them."""
    scanner = JsonScanner(text, is_last, max_bytes)
    start = 0
    while found := _NOT_BLANK.search(text, start):
        start = found.start()
        end = scanner.end(start) if text[start] in _VALUE_STARTS else INVALID
        if end == INVALID:
            end = _bad_stretch_end(text, start, scanner, is_last, max_bytes)
        if end == INCOMPLETE:
            return start
        yield text[start:end]
        start = end
    return len(text)


def _bad_stretch_end(text: bytes, start: int, scanner: JsonScanner, is_last: bool, max_bytes: int) -> int:
    """Where the bad stretch from `start` ends: at a newline, at a complete object, or INCOMPLETE."""
    at = start + 1
    while found := _OBJECT_OR_NEWLINE.search(text, at):
        at = found.start()
        if text[at] == ord("\n"):
            return at
        end = scanner.end(at)
        if end != INVALID:
            return INCOMPLETE if end == INCOMPLETE else at
        at += 1
    return len(text) if is_last or len(text) - start > max_bytes else INCOMPLETE


class JsonScanner:
    """Finds the ends of the JSON values in one text, at a cost in proportion to the text's length.

    `is_last`: no more text follows. A value of more than `max_bytes` bytes is INVALID.
    """

    def __init__(self, text: bytes, is_last: bool, max_bytes: int) -> None:
        self._text = _Text(text.decode("latin-1"))  # one character a byte, whatever the bytes are
        self._is_last = is_last
        self._max_bytes = max_bytes
        # An object inside a broken value breaks at the same place: it is remembered here and not read again.
        self._broken: dict[int, int] = {}

    def end(self, start: int) -> int:
        """The offset after the object, array or string that starts at `start`, or INVALID or INCOMPLETE."""
        end = self._broken.get(start) or self._decode(start)
        if end == INCOMPLETE and (self._is_last or len(self._text) - start > self._max_bytes):
            return INVALID
        return end

    def _decode(self, start: int) -> int:
        try:
            end: int = _DECODER.raw_decode(self._text, start)[1]
        except json.JSONDecodeError as error:
            at = error.pos
            string = _STRING_OR_BRACKET.match(self._text, at)
            seen_to = string.end() if string else at
            # The last characters may be the beginning of a word such as -Infinity.
            result = INCOMPLETE if len(self._text) - seen_to < len("-Infinity") else INVALID
            return self._brackets(start, at, result)
        except RecursionError:  # nested too deep for the decoder
            return self._brackets(start, len(self._text), INCOMPLETE)
        return end

    def _brackets(self, start: int, stop: int, result: int) -> int:
        """Follows the brackets from `start`: the offset where they are balanced, or `result` if they are not.

        Then `result` holds for every object that is still open at `stop`.
        """
        opened: list[int] = []
        for token in _STRING_OR_BRACKET.finditer(self._text, start, stop):
            if token[0] in ("{", "["):
                opened.append(token.start())
            elif token[0] in ("}", "]"):
                opened.pop()
                if not opened:
                    return token.end()
        self._broken.update(dict.fromkeys(opened, result))
        return result


class _Text(str):
    """A text whose lines JSONDecodeError does not count: with many errors in one text that takes quadratic time."""

    __slots__ = ()

    def count(self, *_args: object) -> int:
        return 0

    def rfind(self, *_args: object) -> int:
        return -1
