"""The centroid of a zone's outline. Pure functions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

Point = tuple[float, float]


def centroid(ring: Sequence[Point]) -> Point | None:
    """The centroid of the area inside a ring of (longitude, latitude), closed or not; None for an empty ring.

    Computed in the plane of degrees. A ring without area (a line, a point) has the mean of its points. Coordinates are
    relative to the first point, so that no digits are lost.
    Source: https://en.wikipedia.org/wiki/Centroid#Of_a_polygon
    """
    points = list(ring[:-1] if len(ring) > 1 and ring[0] == ring[-1] else ring)
    if not points:
        return None
    x0, y0 = points[0]
    twice_area = x = y = 0.0
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
        cross = (ax - x0) * (by - y0) - (bx - x0) * (ay - y0)
        twice_area += cross
        x += (ax + bx - 2 * x0) * cross
        y += (ay + by - 2 * y0) * cross
    west, east = min(x for x, _ in points), max(x for x, _ in points)
    south, north = min(y for _, y in points), max(y for _, y in points)
    # Because of rounding, a line's area may differ from 0; the parts of a ring that crosses itself may cancel out.
    if abs(twice_area) > 1e-12 * (east - west) * (north - south) and twice_area != 0:
        found = (x0 + x / (3 * twice_area), y0 + y / (3 * twice_area))
        if west <= found[0] <= east and south <= found[1] <= north:
            return found
    mean = (math.fsum(x for x, _ in points) / len(points), math.fsum(y for _, y in points) / len(points))
    return min(max(mean[0], west), east), min(max(mean[1], south), north)


def centroid_of(geometry: str | None) -> Point | None:
    """The centroid of a JSON ring, `[[longitude, latitude], …]`; None for any other text."""
    if geometry is None:
        return None
    try:
        ring = json.loads(geometry)
    except (ValueError, RecursionError):
        return None
    if not isinstance(ring, list):
        return None
    points = []
    for pair in ring:
        if not isinstance(pair, list) or len(pair) < 2 or not all(_is_degrees(value) for value in pair[:2]):
            return None
        points.append((float(pair[0]), float(pair[1])))
    return centroid(points)


def _is_degrees(value: object) -> bool:
    # Outside of this range the value is not a place on Earth; inside it, products of four values stay finite.
    return isinstance(value, int | float) and not isinstance(value, bool) and -360 <= value <= 360
