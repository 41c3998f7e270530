"""The gold tables' rows, computed from small DataFrames."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from chispa import assert_df_equality
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from jobs.gold import transforms
from jobs.gold.tables import GoldTable, gold_tables
from jobs.gold.zones import zone_order
from jobs.schema.table import TableContract
from tests.helpers.clicks import CLICKS_YAML
from tests.helpers.examples import examples
from tests.helpers.plain_gold import CITY_SUMMARY, CORRIDORS, ZONES

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

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


CLICKS = TableContract.model_validate(yaml.safe_load(CLICKS_YAML))
CLICK_TABLES = {table.name: table for table in gold_tables(CLICKS)}
clicks = st.fixed_dictionaries(
    {
        "user": st.sampled_from("ab"),
        "day": st.sampled_from([date(2026, 11, 1), date(2026, 11, 2)]),
        "country": st.sampled_from(["BR", None]),
        "at": st.sampled_from([None, NOON, NOON + MINUTE]),
        "cents": st.none() | st.integers(-(10**15), 10**15),
        "pieces": st.none() | st.integers(0, 3),
        "seconds": st.none() | st.integers(0, 9).map(float),
        "arrival_time": st.sampled_from([NOON, NOON + MINUTE]),
    }
)


@pytest.mark.nightly
@settings(max_examples=examples(10) // 10, deadline=None)
@given(rows=st.lists(st.lists(clicks, max_size=5), min_size=2, max_size=4))
def test_any_split_into_increments_equals_one_computation(
    spark: SparkSession, rows: list[list[dict[str, Any]]]
) -> None:
    ddl = ", ".join(f"{name} {'bigint' if kind == 'long' else kind}" for name, kind in CLICKS.row_types.items())
    numbered = [
        {"rescued_data": None, "shard_id": "s", "batch": "q-0", **row, "sequence_number": f"{number}{position}"}
        for number, part in enumerate(rows, 1) for position, row in enumerate(part)
    ]  # fmt: skip
    whole = spark.createDataFrame([tuple(row[name] for name in CLICKS.row_types) for row in numbered], ddl)
    users, per_day = CLICK_TABLES["users"], CLICK_TABLES["per_day"]

    def new_rows(part: DataFrame) -> dict[str, DataFrame]:
        return {
            "users": transforms.latest_rows(part, users),
            "per_day": transforms.increment(part, per_day).select(*per_day.types),
        }

    latest = transforms.latest_order(users, "s.") > transforms.latest_order(users, "t.")
    kept = {
        "users": {name: F.when(latest, F.col(f"s.{name}")).otherwise(F.col(f"t.{name}")) for name in users.types},
        "per_day": transforms.merged_values(per_day),
    }
    found: dict[str, DataFrame] = {}
    for number in range(1, len(rows) + 1):
        part = new_rows(whole.where(F.substring("sequence_number", 1, 1) == str(number)))
        found = {name: merged(found[name], part[name], CLICK_TABLES[name], kept[name]) if found else part[name]
                 for name in part}  # fmt: skip
    for name, expected in new_rows(whole).items():
        key = list(CLICK_TABLES[name].key)
        if name == "per_day":  # a mean of doubles depends on the order of addition in its last digits
            found[name], expected = (
                each.withColumns({part: F.round(part, 3) for part in ("piece", "piece_sum")})
                for each in (found[name], expected)
            )
        assert_df_equality(found[name].orderBy(*key), expected.orderBy(*key), ignore_nullable=True)


def merged(table: DataFrame, new: DataFrame, gold: GoldTable, values: dict[str, Column]) -> DataFrame:
    """What MERGE leaves of a table: matched rows with `values`, the others as they are."""
    both = table.withColumn("_t", F.lit(True)).alias("t").join(
        new.withColumn("_s", F.lit(True)).alias("s"),
        F.expr(" AND ".join(f"t.{name} <=> s.{name}" for name in gold.key)), "full_outer",
    )  # fmt: skip
    return both.select(
        *(
            F.when(F.col("s._s").isNull(), F.col(f"t.{name}"))
            .when(F.col("t._t").isNull(), F.col(f"s.{name}"))
            .otherwise(values[name])
            .alias(name)
            for name in gold.types
        )
    )
