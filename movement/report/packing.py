"""Whole numbers as few bytes: what the page's `decode.js` reads back.

A column is stored as byte planes: all lowest bytes, then all second bytes, and so on, as many planes as the largest
value needs. Times of travel differ in their low byte alone; the higher planes are nearly constant, and deflate makes
them next to nothing. Measured on 1,000,000 corridors: docs/adr/0009-the-page.md.
"""

from __future__ import annotations

import zlib

import numpy as np

from movement.report.model import NONE, Ints

# [count, planes, base, nullable]: a value is base + the number in its planes, less 1 where nullable (0: no value).
Header = list[int]


def pack(values: Ints) -> tuple[Header, bytes]:
    """A column's header and its bytes. `NONE` among the values means no value."""
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
        raise ValueError(f"values from {base} on span more than 32 bits")
    stored = np.ascontiguousarray(shifted.astype("<u4").view(np.uint8).reshape(count, 4)[:, :planes].T)
    return [count, planes, base, int(nullable)], stored.tobytes()


def pack_columns(columns: list[Ints]) -> tuple[list[Header], bytes]:
    """Several columns one behind the other, deflated (raw deflate, as DecompressionStream('deflate-raw') reads)."""
    packed = [pack(column) for column in columns]
    return [header for header, _ in packed], deflate(b"".join(content for _, content in packed))


def deflate(content: bytes) -> bytes:
    """Raw deflate, at the level beyond which these bytes get no smaller."""
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return squeezer.compress(content) + squeezer.flush()


def zigzag(values: Ints) -> Ints:
    """Small numbers of either sign as small numbers without one."""
    return (values << 1) ^ (values >> 63)


def deltas(values: Ints) -> Ints:
    """Each value less the one before it; the first stays."""
    return np.diff(values, prepend=0)
