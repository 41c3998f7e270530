"""The gold tables' rows, computed from small DataFrames."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from chispa import assert_df_equality

from jobs.gold import transforms
from jobs.gold.tables import GoldTable
from jobs.gold.zones import zone_order
from tests.helpers.plain_gold import CITY_SUMMARY, CORRIDORS, ZONES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ROW = {
    "city": "Paris", "origin_movement_id": "1", "destination_movement_id": "2", "date_range": "r",
    "start_date": date(2016, 9, 3), "end_date": date(2016, 10, 1), "day_filter": "d", "time_filter": "t",
    "origin_display_name": "A", "destination_display_name": "B", "mean_travel_time_seconds": 100,
    "lower_bound_travel_time_seconds": 50, "upper_bound_travel_time_seconds": 150,
    "shard_id": "s-0", "sequence_number": "1", "arrival_time": NOON, "batch": "q-0",
}  # fmt: skip
ZONE = {
    "city": "Paris", "movement_id": "1", "display_name": "A", "geometry": None, "centroid_longitude": None,
    "centroid_latitude": None, "shard_id": "s-0", "sequence_number": "1", "arrival_time": NOON, "batch": "q-0",
}  # fmt: skip


def frame(spark: SparkSession, table: GoldTable, *rows: dict[str, Any]) -> DataFrame:
    return spark.createDataFrame([tuple(row[name] for name, _, _ in table.columns) for row in rows], table.ddl)


def the_latest_is(spark: SparkSession, expected: dict[str, Any], *rows: dict[str, Any]) -> None:
    for order in (rows, rows[::-1]):
        found = transforms.latest_rows(frame(spark, CORRIDORS, *order), CORRIDORS)
        assert_df_equality(found, frame(spark, CORRIDORS, expected), ignore_nullable=True)


def test_latest_is_by_arrival_then_sequence_number_then_position_in_a_kpl_record(
    spark: SparkSession,
) -> None:
    early, late = ROW | {"sequence_number": "9"}, ROW | {"arrival_time": NOON + MINUTE, "sequence_number": "5"}
    the_latest_is(spark, late, early, late)
    nine, ten = ROW | {"sequence_number": "9" * 55}, ROW | {"sequence_number": "1" + "0" * 55}
    the_latest_is(spark, ten, nine, ten)
    ninth, tenth = ROW | {"sequence_number": "7:9"}, ROW | {"sequence_number": "7:10"}
    the_latest_is(spark, tenth, ninth, tenth)
    one, other = ROW | {"mean_travel_time_seconds": 99}, ROW
    the_latest_is(spark, other, one, other)


def test_rows_of_other_periods_and_directions_are_other_corridors(spark: SparkSession) -> None:
    back = ROW | {"origin_movement_id": "2", "destination_movement_id": "1"}
    rows = frame(spark, CORRIDORS, ROW, back, ROW | {"date_range": "r2"}, ROW | {"city": "Lima"}, ROW)
    assert transforms.latest_rows(rows, CORRIDORS).count() == 4


def test_a_zones_row_has_a_geometry_or_else_a_name_or_else_is_the_latest(spark: SparkSession) -> None:
    nameless = ZONE | {"display_name": None, "arrival_time": NOON + 3 * MINUTE}
    named = ZONE | {"arrival_time": NOON + 2 * MINUTE}
    drawn = ZONE | {"display_name": None, "geometry": "[]"}
    newer = drawn | {"arrival_time": NOON + MINUTE}
    for rows, expected in (((nameless, named), named), ((nameless, named, drawn), drawn), ((newer, drawn), newer)):
        found = transforms.latest_rows(frame(spark, ZONES, *rows), ZONES, zone_order())
        assert_df_equality(found, frame(spark, ZONES, expected), ignore_nullable=True)


def test_a_citys_summary_is_over_its_corridors_and_skips_undefined_ratios(spark: SparkSession) -> None:
    corridors = frame(
        spark,
        CORRIDORS,
        ROW,  # (150 - 50) / 100 = 1
        ROW | {"destination_movement_id": "3", "mean_travel_time_seconds": 200},  # 0.5
        ROW | {"destination_movement_id": "4", "mean_travel_time_seconds": 0},
        ROW
        | {"destination_movement_id": "5", "mean_travel_time_seconds": 400, "upper_bound_travel_time_seconds": None},
        ROW | {"city": "Lima", "mean_travel_time_seconds": 0},
        ROW | {"city": "untouched"},
    )
    counts = spark.createDataFrame([("Paris", "r", 9), ("Lima", "r", 1)], "city string, date_range string, rows bigint")

    found = transforms.recomputed(corridors, CITY_SUMMARY, counts).orderBy("city")

    paris = ("Paris", "r", ROW["start_date"], ROW["end_date"], 9, 4, 175.0, 150.0, 340.0, 0.75)
    lima = ("Lima", "r", ROW["start_date"], ROW["end_date"], 1, 1, 0.0, 0.0, 0.0, None)
    assert_df_equality(found, spark.createDataFrame([lima, paris], CITY_SUMMARY.ddl), ignore_nullable=True)
