"""Geometries become outlines on a grid."""

from __future__ import annotations

import json
import math
import zlib

import pytest

from movement.report.geometry import Outlines, outlines
from tests.helpers.gold_tables import square
from tests.helpers.packed_numbers import unpacked


def rings(found: Outlines) -> list[tuple[int, list[tuple[int, int]]]]:
    """(zone, ring) of each ring, as the page draws them."""
    content, columns = zlib.decompress(found.content, -15), []
    for header in found.headers:
        size = header[0] * header[1]
        columns.append(unpacked(header, content[:size]))
        content = content[size:]
    owners, lengths, dx, dy = columns
    x = y = at = 0
    drawn = []
    for owner, length in zip(owners, lengths, strict=True):
        ring = []
        for _ in range(length):
            x += (dx[at] >> 1) ^ -(dx[at] & 1)
            y += (dy[at] >> 1) ^ -(dy[at] & 1)
            ring.append((x, y))
            at += 1
        drawn.append((owner, ring))
    return drawn


def test_north_is_up_and_a_degree_of_longitude_has_its_length_at_that_latitude() -> None:
    found = outlines([square(-71.0, 60.0, 0.1)])
    assert found is not None
    width, height = found.size

    assert width / height == pytest.approx(math.cos(math.radians(60.05)), rel=0.01)
    ((zone, ring),) = rings(found)
    assert zone == 0
    assert ring[0] == (0, height - 1), "the south-west corner is at the lower left"
    assert ring[0] == ring[-1]
    assert found.metres * height == pytest.approx(0.1 * 111_320, rel=0.01)


@pytest.mark.parametrize("nesting", [0, 1, 2], ids=["ring", "polygon", "multipolygon"])
def test_rings_are_found_at_every_depth_of_nesting(nesting: int) -> None:
    geometry = json.loads(square(2.0, 48.0))
    for _ in range(nesting):
        geometry = [geometry]

    found = outlines([json.dumps(geometry)])

    assert found is not None
    assert [len(ring) for _, ring in rings(found)] == [5]


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "3", "[]", "[[]]", '["a"]', "[[1,2],[3,4]]", '[[1,"x"],[2,3],[4,5]]', "[[1],[2],[3]]", "[" * 9000,
     "[[1e999,2],[3,4],[5,6]]", '{"type":"Polygon"}', "[[null,null],[1,2],[3,4]]", "[[0,0],[500,0],[0,500]]"],
)  # fmt: skip
def test_an_unreadable_geometry_is_left_out_and_counted(text: str) -> None:
    assert outlines([text, None]) is None
    beside = outlines([text, square(2.0, 48.0)])

    assert beside is not None
    assert [zone for zone, _ in rings(beside)] == [1]
    assert (beside.drawn, beside.unreadable) == (1, 1 if text else 0)


def test_too_many_points_make_the_grid_coarser_and_keep_every_zone() -> None:
    circle = [[2 + math.cos(step / 500), 48 + math.sin(step / 500)] for step in range(3142)]
    fine = outlines([json.dumps(circle), square(2.0, 48.0, 0.5)])
    coarse = outlines([json.dumps(circle), square(2.0, 48.0, 0.5)], max_points=2000)
    assert fine is not None
    assert coarse is not None

    assert coarse.metres > fine.metres
    assert sum(len(ring) for _, ring in rings(coarse)) <= 2000
    assert {zone for zone, _ in rings(coarse)} == {0, 1}


def test_a_city_of_one_point_does_not_divide_by_zero() -> None:
    assert outlines(["[[2,48],[2,48],[2,48]]"]) is None
