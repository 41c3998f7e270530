"""Draws zones' outlines on a grid of integers, which is small enough for the page.

A geometry is JSON: a ring of [longitude, latitude] pairs, a list of rings, or a list of polygons. The grid spans the
city. It gets coarser until all outlines together have at most `max_points` points, or until it has 512 cells a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from movement.report.model import Ints
from movement.report.packing import Header, deltas, pack_columns, zigzag

# Cells along the longer side of a city. 16,384 cells on 80 km are 5 m each, less than a street's width.
_FINEST = 1 << 14
_COARSEST = 1 << 9
MAX_POINTS = 400_000

_decode = msgspec.json.Decoder().decode
# Metres of one degree of latitude.
_DEGREE = 111_320.0
_WORLD = np.array([180.0, 90.0])


@dataclass(frozen=True)
class Outlines:
    """A city's outlines. `size`: width and height of the grid; `metres`: the length of one cell.

    `drawn`: zones whose outline is larger than a cell; `unreadable`: zones whose geometry cannot be parsed. Columns of
    `content`: the zone of each ring, the points of each ring, then x and y as zigzag differences; y grows southwards.
    """

    size: tuple[int, int]
    metres: float
    drawn: int
    unreadable: int
    headers: list[Header]
    content: bytes


def outlines(geometry: list[str | None], max_points: int = MAX_POINTS) -> Outlines | None:
    """The outlines of a city's zones. `geometry` is by zone number. None if no zone has an outline."""
    owners: list[int] = []
    rings: list[np.ndarray] = []
    unreadable = 0
    for zone, text in enumerate(geometry):
        if not text:
            continue
        found = list(_rings(text))
        unreadable += not found
        owners += [zone] * len(found)
        rings += found
    if not rings:
        return None
    points = np.concatenate(rings)
    lengths = np.array([len(ring) for ring in rings])
    west, south = points.min(axis=0)
    north = points[:, 1].max()
    # A degree of longitude is shorter than a degree of latitude, so both become metres.
    shrink = math.cos(math.radians((south + north) / 2))
    metres = np.column_stack([(points[:, 0] - west) * shrink, north - points[:, 1]]) * _DEGREE
    extent = max(float(metres.max()), 1.0)
    cells = _FINEST
    while True:
        kept, counts = _on_grid(metres * (cells / extent), lengths)
        if len(kept) <= max_points or cells <= _COARSEST:
            break
        cells //= 2
    if not len(kept):
        return None
    visible = np.array(owners, np.int64)[counts > 0]
    headers, content = pack_columns(
        [
            visible,
            counts[counts > 0],
            zigzag(deltas(kept[:, 0])),
            zigzag(deltas(kept[:, 1])),
        ]
    )
    width, height = (int(side) + 1 for side in kept.max(axis=0))
    return Outlines((width, height), extent / cells, len(np.unique(visible)), unreadable, headers, content)


def _on_grid(points: np.ndarray, lengths: np.ndarray) -> tuple[Ints, Ints]:
    """The points as cells, without repeats, and the number left of each ring; 0 if it has become a line."""
    cells = np.rint(points).astype(np.int64)
    ring = np.repeat(np.arange(len(lengths)), lengths)
    new = np.ones(len(cells), bool)
    new[1:] = (cells[1:] != cells[:-1]).any(axis=1) | (ring[1:] != ring[:-1])
    counts = np.bincount(ring[new], minlength=len(lengths))
    counts[counts < 3] = 0
    return cells[new & (counts[ring] > 0)], counts


def _rings(text: str) -> Iterator[np.ndarray]:
    """The rings of a geometry, as arrays of shape (points, 2); none if it cannot be parsed."""
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return
    yield from _nested(found, 3)


def _nested(found: object, depth: int) -> Iterator[np.ndarray]:
    if not isinstance(found, list) or not found or not isinstance(found[0], list) or not found[0]:
        return
    if isinstance(found[0][0], list):
        if depth:
            for part in found:
                yield from _nested(part, depth - 1)
        return
    try:
        ring = np.array([pair[:2] for pair in found], float)
    except (TypeError, ValueError):
        return
    if ring.ndim == 2 and ring.shape[1] == 2 and len(ring) > 2 and (np.abs(ring) <= _WORLD).all():
        yield ring
