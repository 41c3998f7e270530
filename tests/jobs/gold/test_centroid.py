"""The centroid of a zone."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.gold.centroid import centroid, centroid_of

SQUARE = [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]
degrees = st.integers(-18000, 18000).map(lambda hundredths: hundredths / 100)
rings = st.lists(st.tuples(degrees, degrees), min_size=1, max_size=30)


def test_a_squares_centroid_is_its_middle_for_closed_open_and_reversed_rings() -> None:
    for ring in (SQUARE, [*SQUARE, SQUARE[0]], SQUARE[::-1]):
        assert centroid(ring) == pytest.approx((1.0, 1.0))


def test_the_centroid_is_the_areas_not_the_points_mean() -> None:
    many_points_on_one_side = [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (1.5, 2.0), (1.0, 2.0), (0.5, 2.0), (0.0, 2.0)]
    assert centroid(many_points_on_one_side) == pytest.approx((1.0, 1.0))


def test_an_l_shape_by_hand() -> None:
    # Two unit squares and a third on top of the first: (0.5, 0.5), (1.5, 0.5), (0.5, 1.5).
    ring = [(0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (1.0, 1.0), (1.0, 2.0), (0.0, 2.0)]
    assert centroid(ring) == pytest.approx((2.5 / 3, 2.5 / 3))


def test_a_ring_without_area_has_the_mean_of_its_points() -> None:
    assert centroid([(3.0, 4.0)]) == (3.0, 4.0)
    assert centroid([(0.0, 0.0), (2.0, 2.0)]) == pytest.approx((1.0, 1.0))
    assert centroid([(0.1, 0.1), (0.2, 0.2), (0.3, 0.3)]) == pytest.approx((0.2, 0.2))
    assert centroid([]) is None


@pytest.mark.parametrize(
    "geometry",
    [None, "", "null", "{}", "[]", "[[1]]", "[[1, null]]", '[["1", "2"]]', "[1, 2]", "[[NaN, 1]]", "[[1e300, 1]]",
     "[[[1, 2], [3, 4]]]", "[[true, false]]", "[" * 100_000],
)  # fmt: skip
def test_anything_but_a_ring_has_no_centroid(geometry: str | None) -> None:
    assert centroid_of(geometry) is None


def test_a_real_zones_centroid_is_exact(exports: Path) -> None:
    with (exports / "Travel_Times - Boston.csv").open(encoding="utf-8") as file:
        geometries = {row["Destination Geometry"] for row in csv.DictReader(file)}
    assert len(geometries) > 500
    for geometry in geometries:
        found, ring = centroid_of(geometry), json.loads(geometry)
        # The same computation with exact arithmetic.
        assert found == pytest.approx(_by_fractions(ring), abs=1e-9)


def _by_fractions(ring: list[list[float]]) -> tuple[float, float]:
    from fractions import Fraction

    points = [(Fraction(str(x)), Fraction(str(y))) for x, y in ring]
    pairs = list(zip(points, [*points[1:], points[0]], strict=True))
    area = sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairs) / 2
    x = sum((ax + bx) * (ax * by - bx * ay) for (ax, ay), (bx, by) in pairs) / (6 * area)
    y = sum((ay + by) * (ax * by - bx * ay) for (ax, ay), (bx, by) in pairs) / (6 * area)
    return float(x), float(y)


@given(rings)
def test_the_centroid_is_within_the_rings_bounds(ring: list[tuple[float, float]]) -> None:
    found = centroid(ring)
    assert found is not None
    for axis in (0, 1):
        values = [point[axis] for point in ring]
        assert min(values) <= found[axis] <= max(values)


@given(st.lists(st.floats(0, 2 * math.pi), min_size=3, max_size=20, unique=True), degrees, st.integers(0, 19))
def test_the_centroid_moves_with_the_ring_and_does_not_depend_on_its_first_point(
    angles: list[float], shift: float, start: int
) -> None:
    # Points on a circle in their order are a ring that does not cross itself.
    ring = [(math.cos(angle), math.sin(angle)) for angle in sorted(angles)]
    start %= len(ring)
    moved = [(x + shift, y) for x, y in ring[start:] + ring[:start]]
    twice_area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
    if abs(twice_area) < 1e-6:
        return
    plain, other = centroid(ring), centroid(moved)
    assert plain is not None
    assert other is not None
    assert (other[0] - shift, other[1]) == pytest.approx(plain, abs=1e-6)
