"""The contract's `encoding: gzip`: records whose bytes are gzip of the JSON, as CloudWatch Logs sends them.

In: a record's bytes, or the bytes of a delivery file, which has records one after the other. Out: the JSON text, or why
there is none. A record that is not compressed is taken as it is, so that a stream can change over, and a record
of quarantine or of raw can be sent again. https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from jobs.schema.rejections import NOT_GZIP, TOO_LARGE, Rejection
from jobs.schema.values import GZIP_MAGIC

_MEMBER_START = b"\x1f\x8b\x08"
_GZIP = 31  # zlib's window bits for a gzip header and trailer
# zlib copies what follows a member, so that the first slice is small and the next ones grow.
_FIRST_SLICE = 4096
_LARGEST_SLICE = 1024 * 1024
# A member of a file that holds records has no more than this many bytes; Firehose's buffer has at most 128 MiB.
_LARGEST_FILE = 256 * 1024 * 1024
# A record has one member, or a few of a writer that flushes. Each costs a call.
_MOST_MEMBERS = 1_000
_PADDING = b"\0 \t\r\n"


class _TooLargeError(ValueError):
    """The decompressed bytes exceed the limit."""


def gunzip(data: bytes, max_bytes: int) -> bytes | Rejection:
    """The text of a record; a Rejection if its gzip is damaged, or has more than `max_bytes` bytes of text.

    Bytes that do not begin like gzip are returned as they are. Several gzip members are one text, and padding may
    follow. No more than `max_bytes` + 1 bytes are decompressed. The text never begins like gzip.
    """
    if not data.startswith(GZIP_MAGIC):
        return data
    text, at = b"", 0
    try:
        for _ in range(_MOST_MEMBERS):
            member, at = _read_member(data, at, max_bytes - len(text))
            text += member
            if data[at : at + 3] != _MEMBER_START:
                break
        if data[at:].strip(_PADDING):
            raise ValueError(f"bytes that are not gzip follow at byte {at}")
        if text.startswith(GZIP_MAGIC):
            raise ValueError("gzip within gzip")
    except _TooLargeError:
        return Rejection(TOO_LARGE, value=f"decompressed; at most {max_bytes} bytes are allowed")
    except (ValueError, zlib.error) as error:
        return Rejection(NOT_GZIP, value=str(error))
    return text


def stretches(content: bytes, max_bytes: int) -> Iterator[tuple[bool, bytes]]:
    """The parts of a file that holds records one after the other: (True, JSON text) or (False, bytes of a bad record).

    Uncompressed objects between two members are text, too. A bad record reaches up to the next member that can be
    read, or to the file's end. Example: a member of `{"a":1}`, half a member and a member of `{"b":2}` are three parts.
    """
    at = 0
    while at < len(content):
        if content.startswith(GZIP_MAGIC, at):
            try:
                text, end = _read_member(content, at, max_bytes)
                is_text = not text.startswith(GZIP_MAGIC)
            except (ValueError, zlib.error):
                is_text, end = False, _next_member(content, at + 1, max_bytes)
            yield is_text, text if is_text else content[at:end]
        else:
            end = content.find(GZIP_MAGIC, at)
            end = len(content) if end < 0 else end
            plain = content[at:end].strip(_PADDING)
            if plain:
                yield plain.startswith(b"{"), plain
        at = end


def without_file_compression(content: bytes) -> bytes:
    """The content of a file that Firehose compressed as a whole. Damaged or huge, it is returned as it is.

    So is a file with the suffix .gz in which only the records are compressed.
    """
    parts: list[bytes] = []
    at = size = 0
    try:
        while at < len(content):
            part, at = _read_member(content, at, _LARGEST_FILE - size)
            parts.append(part)
            size += len(part)
    except (ValueError, zlib.error):
        return content
    whole = b"".join(parts)
    return whole if len(parts) == 1 or GZIP_MAGIC in whole else content


def _read_member(content: bytes, at: int, max_bytes: int) -> tuple[bytes, int]:
    """The text of the gzip member at `at`, and the offset after it.

    Raises _TooLargeError if the text has more than `max_bytes`; ValueError or zlib.error if it is no whole member.
    """
    member = zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    size, step = 0, _FIRST_SLICE
    while not member.eof:
        piece = content[at : at + step]
        if not piece:
            raise ValueError("the bytes end within a gzip member")
        at, step = at + len(piece), min(2 * step, _LARGEST_SLICE)
        part = member.decompress(piece, max_bytes + 1 - size)
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise _TooLargeError
    return b"".join(parts), at - len(member.unused_data)


def _next_member(content: bytes, at: int, max_bytes: int) -> int:
    """The offset of the first member at or after `at` that can be read; the content's length if there is none."""
    while (at := content.find(_MEMBER_START, at)) >= 0:
        try:
            _read_member(content, at, max_bytes)
        except _TooLargeError:
            return at
        except (ValueError, zlib.error):
            at += 1
            continue
        return at
    return len(content)
