"""The gold tables, read without Spark."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.common.errors import TerminalError
from jobs.lake.delta import storage_options
from jobs.settings.settings import Settings
from movement.report.gold import GoldTables
from movement.report.model import NONE, City, Gold
from tests.helpers.gold_tables import CORRIDORS, corridor, of_exports, square, write_gold


def read(lake: Path, max_rows: int = 1000) -> Gold:
    gold = GoldTables(str(lake)).read(max_rows)
    assert gold is not None
    return gold


def rows(city: City) -> list[tuple[str, str, str, int, int, int]]:
    """(date range, origin, destination, mean, lower, upper) of a city."""
    ids = city.zones.ids
    return [
        (part.date_range, ids[origin], ids[destination], mean, lower, upper)
        for part in city.slices
        for origin, destination, mean, lower, upper in zip(
            part.origin, part.destination, part.mean, part.lower, part.upper, strict=True
        )
    ]


def test_every_row_of_the_real_exports_is_read(tmp_path: Path, exports: Path) -> None:
    given = of_exports(exports)
    write_gold(tmp_path, given)

    gold = read(tmp_path, 10_000)

    assert [(city.name, len(city.slices)) for city in gold.cities] == [
        ("Boston", 1), ("Johannesburg and Pretoria", 1), ("Paris", 1),
    ]  # fmt: skip
    expected = sorted(
        (one["city"], one["date_range"], one["origin"], one["destination"], one["mean"], one["lower"], one["upper"])
        for one in given
    )
    assert sorted((city.name, *row) for city in gold.cities for row in rows(city)) == expected
    boston = gold.cities[0]
    assert all(boston.zones.geometry)
    assert boston.zones.names[boston.zones.ids.index("1116")] == "Harborwalk, Waterfront, Boston"
    assert not any(gold.cities[2].zones.geometry)
    assert gold.rows == gold.total == 3153
    summary = gold.cities[0].slices[0].summary
    assert summary is not None
    assert summary.median == statistics.median(one["mean"] for one in given if one["city"] == "Boston")


def test_without_tables_there_is_no_gold(tmp_path: Path) -> None:
    assert GoldTables(str(tmp_path)).read(10) is None


def test_an_unreadable_table_is_named(tmp_path: Path) -> None:
    write_gold(tmp_path, [corridor("A", "1", "2", 60)])
    log = tmp_path / "gold" / "corridors" / "_delta_log" / "00000000000000000000.json"
    log.write_text("{")

    with pytest.raises(TerminalError, match="gold/corridors"):
        GoldTables(str(tmp_path)).read(10)


def test_zones_and_summaries_may_be_missing(tmp_path: Path) -> None:
    rows_given = [corridor("A", "2", "10", 60)]
    write_gold(tmp_path / "all", rows_given)
    (tmp_path / "lake" / "gold").mkdir(parents=True)
    (tmp_path / "all" / "gold" / "corridors").rename(tmp_path / "lake" / "gold" / "corridors")

    (city,) = read(tmp_path / "lake").cities

    assert city.zones.ids == ["2", "10"], "in the order of numbers"
    assert city.zones.names == city.zones.geometry == [None, None]
    assert city.slices[0].summary is None
    assert rows(city)[0][3:] == (60, NONE, NONE)


def test_a_citys_zones_come_from_its_own_rows(tmp_path: Path) -> None:
    """Cities use the same ids for different zones, and names can contain SQL syntax."""
    odd = "O'Fallon'; DROP TABLE t; --"
    write_gold(
        tmp_path,
        [
            corridor(odd, "1", "2", 60, origin_name="one", origin_geometry=square(1, 1)),
            corridor("Other", "1", "3", 90, origin_name="uno"),
            corridor(odd, "1", "2", 70, date_range="it's a range", origin_name="one"),
        ],
    )

    found = {city.name: city for city in read(tmp_path).cities}

    assert found.keys() == {odd, "Other"}
    assert found[odd].zones.names == ["one", None]
    assert found["Other"].zones.names == ["uno", None]
    assert [row[3] for row in rows(found[odd])] == [60, 70]
    assert read(tmp_path, 2).left_out == [f"{odd}, it's a range"]


def _range(year: int) -> str:
    return f"01/01/{year} - 01/31/{year}, Every day, Daily Average"


def test_the_limit_takes_the_newest_of_each_city_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    def pairs(city: str, year: int, count: int) -> list[dict[str, Any]]:
        return [corridor(city, "1", str(n), 60, date_range=_range(year)) for n in range(2, 2 + count)]

    write_gold(tmp_path, [*pairs("A", 2016, 3), *pairs("A", 2017, 3), *pairs("B", 2015, 3), *pairs("B", 2014, 1)])

    gold = read(tmp_path, 6)

    assert [(city.name, [part.date_range for part in city.slices]) for city in gold.cities] == [
        ("A", [_range(2017)]),
        ("B", [_range(2015)]),
    ]
    assert gold.left_out == [f"A, {_range(2016)}", f"B, {_range(2014)}"]
    assert (gold.rows, gold.total) == (6, 10)


def test_a_slice_beyond_the_limit_is_cut_at_whole_origins(tmp_path: Path) -> None:
    write_gold(
        tmp_path,
        [corridor("A", origin, str(n), 60) for origin, count in (("1", 5), ("2", 3), ("3", 2)) for n in range(count)],
    )

    gold = read(tmp_path, 8)

    (part,) = gold.cities[0].slices
    assert len(part.mean) == gold.rows == 8
    assert {gold.cities[0].zones.ids[origin] for origin in part.origin} == {"1", "2"}
    assert (part.total, gold.left_out) == (10, [])


def test_the_version_changes_with_the_tables(tmp_path: Path) -> None:
    tables = GoldTables(str(tmp_path))
    write_gold(tmp_path, [corridor("A", "1", "2", 60)])
    before = tables.version()
    assert tables.version() == before

    write_deltalake(str(tmp_path / "gold" / "corridors"), CORRIDORS.empty_table(), mode="append")

    assert tables.version() != before


@pytest.mark.aws
def test_tables_on_s3_are_read_with_boto3s_credentials(lake_settings: Settings, tmp_path: Path) -> None:
    write_gold(tmp_path, [corridor("A", "1", "2", 60)])
    lake = lake_settings.lake
    assert GoldTables(lake).read(10) is None
    table = GoldTables(str(tmp_path))._open("corridors")
    assert table is not None
    write_deltalake(
        f"{lake}/gold/corridors",
        table.to_pyarrow_table(),
        storage_options=(storage_options(lake) or {}) | {"conditional_put": "etag"},
    )

    gold = GoldTables(lake).read(10)

    assert gold is not None
    assert [row[1:4] for row in rows(gold.cities[0])] == [("1", "2", 60)]


def test_another_contracts_corridors_are_not_travel_times(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "gold" / "corridors"), pa.table({"city": ["A"], "ships": [3]}))
    assert GoldTables(str(tmp_path)).version() is None
    assert GoldTables(str(tmp_path)).read(10) is None
