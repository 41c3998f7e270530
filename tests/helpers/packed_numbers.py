"""Reads back the numbers that the report page packs."""

from __future__ import annotations

from movement.report.model import NONE
from movement.report.packing import Header


def unpacked(header: Header, content: bytes) -> list[int]:
    """As assets/decode.js does it."""
    count, planes, base, nullable = header
    found = []
    for index in range(count):
        value = sum(content[plane * count + index] << (8 * plane) for plane in range(planes))
        found.append(NONE if nullable and value == 0 else value + base - nullable)
    return found
