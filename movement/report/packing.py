"""Packs columns of integers for the page; `decode.js` unpacks them.

A column is stored as byte planes: all lowest bytes, then all second bytes, and so on, up to the largest value's last
byte. Travel times differ mostly in the low byte, so deflate shrinks the other planes to almost nothing. Measured on
1,000,000 corridors in docs/adr/0009-the-page.md.
"""

from __future__ import annotations

import zlib

import numpy as np

from movement.report.model import NONE, Ints

# [count, planes, base, nullable]: a value is base + the number in its planes. With nullable, 0 is a missing value and
# every other number is 1 too high: [3, 1, 20, 1] with the bytes 0, 1, 5 is [missing, 20, 24].
Header = list[int]


def pack(values: Ints) -> tuple[Header, bytes]:
    """A column's header and its bytes. `NONE` is a missing value."""
    count = len(values)
    if not count:
        return [0, 0, 0, 0], b""
    missing = values == NONE
    nullable = bool(missing.any())
    present = values[~missing] if nullable else values
    base = int(present.min()) if len(present) else 0
    shifted = np.where(missing, 0, values - base + 1) if nullable else values - base
    planes = max((int(shifted.max()).bit_length() + 7) // 8, 0)
    if planes > 4:
        raise ValueError(f"the values from {base} on need more than 32 bits")
    stored = np.ascontiguousarray(shifted.astype("<u4").view(np.uint8).reshape(count, 4)[:, :planes].T)
    return [count, planes, base, int(nullable)], stored.tobytes()


def pack_columns(columns: list[Ints]) -> tuple[list[Header], bytes]:
    """Packs columns one after the other, as raw deflate, which DecompressionStream('deflate-raw') reads."""
    packed = [pack(column) for column in columns]
    return [header for header, _ in packed], deflate(b"".join(content for _, content in packed))


def deflate(content: bytes) -> bytes:
    """Raw deflate, level 6: higher levels do not make these bytes smaller."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return compressor.compress(content) + compressor.flush()


def zigzag(values: Ints) -> Ints:
    """Maps small positive and negative numbers to small unsigned ones: 0, -1, 1, -2 to 0, 1, 2, 3."""
    return (values << 1) ^ (values >> 63)


def deltas(values: Ints) -> Ints:
    """Differences between neighbours: [5, 7, 6] becomes [5, 2, -1]."""
    return np.diff(values, prepend=0)
