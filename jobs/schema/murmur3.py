"""The 32-bit hash of Iceberg's bucket transform: MurmurHash3, x86 variant, seed 0.

Source: https://iceberg.apache.org/spec/#appendix-b-32-bit-hash-requirements.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_C1, _C2 = 0xCC9E2D51, 0x1B873593


def murmur3_32(data: bytes) -> int:
    """The hash of the bytes, from 0 to 2**32 - 1."""
    found = 0
    for start in range(0, len(data), 4):
        block = data[start : start + 4]
        mixed = int.from_bytes(block, "little") * _C1 & _MASK
        found ^= _rotated(mixed, 15) * _C2 & _MASK
        if len(block) == 4:
            found = (_rotated(found, 13) * 5 + 0xE6546B64) & _MASK
    found ^= len(data)
    found = (found ^ found >> 16) * 0x85EBCA6B & _MASK
    found = (found ^ found >> 13) * 0xC2B2AE35 & _MASK
    return found ^ found >> 16


def _rotated(number: int, bits: int) -> int:
    return (number << bits | number >> 32 - bits) & _MASK
