"""Parity's core on DataFrames: each kind of difference, one at a time, is found, counted, placed and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.sql import types as T

from jobs.parity import comparison
from jobs.parity.comparison import ARRIVAL, BATCH, STREAM, Comparison, Window, compare
from jobs.parity.fingerprints import fingerprints
from jobs.schema.table import load_contract

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

CONTRACT = load_contract("travel_times.yaml")
COLUMNS = [name for name, _, _ in CONTRACT.data_columns]
KINDS = {"string": T.StringType(), "int": T.IntegerType(), "date": T.DateType()}
SCHEMA = T.StructType([T.StructField(name, KINDS[kind]) for name, kind, _ in CONTRACT.data_columns])
SCHEMA.add(ARRIVAL, T.TimestampType())
ONE = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
Rows = list[dict[str, Any]]


def row(number: int, **changes: Any) -> dict[str, Any]:
    city = ("Paris", "Boston", "São Paulo")[number % 3]
    return {
        **dict.fromkeys(SCHEMA.names),
        "city": city,
        "origin_movement_id": str(number),
        "origin_display_name": f"Street {number}",
        "destination_movement_id": str(number + 1),
        "date_range": "09/03/2016 - 10/01/2016, Every day, Daily Average",
        "start_date": date(2016, 9, 3),
        "end_date": date(2016, 10, 1),
        "mean_travel_time_seconds": 400 + number,
        "lower_bound_travel_time_seconds": 200,
        "upper_bound_travel_time_seconds": 900,
        ARRIVAL: ONE,
        **changes,
    }


def table(spark: SparkSession, rows: Rows) -> DataFrame:
    return spark.createDataFrame([tuple(each[name] for name in SCHEMA.names) for each in rows], SCHEMA).coalesce(2)


def compared(
    spark: SparkSession, stream: Rows, batch: Rows, window: Window | None = None, samples: int = 5
) -> Comparison:
    sides = (table(spark, stream), table(spark, batch))
    return compare(*sides, COLUMNS, CONTRACT.partition_by, window, samples)


def totals(found: Comparison) -> tuple[int, int]:
    return found.only_stream, found.only_batch


def test_the_same_rows_in_another_order_are_equal(spark: SparkSession) -> None:
    rows = [row(number % 20) for number in range(40)]  # each of them twice

    found = compared(spark, rows, rows[::-1])

    assert totals(found) == (0, 0)
    assert found.samples == []
    assert {part.partition: (part.stream, part.batch) for part in found.partitions} == {
        ("Paris", date(2016, 9, 3)): (14, 14),
        ("Boston", date(2016, 9, 3)): (14, 14),
        ("São Paulo", date(2016, 9, 3)): (12, 12),
    }


def change(index: int, **changes: Any) -> Callable[[Rows], Rows]:
    return lambda rows: [*rows[:index], rows[index] | changes, *rows[index + 1 :]]


MUTATIONS: dict[str, tuple[Callable[[Rows], Rows], tuple[int, int]]] = {
    "dropped": (lambda rows: rows[:7] + rows[8:], (1, 0)),
    "doubled": (lambda rows: [*rows, rows[7]], (0, 1)),
    "one dropped, another doubled": (lambda rows: [*rows[:7], rows[4], *rows[8:]], (1, 1)),
    "a number changed": (change(7, mean_travel_time_seconds=408), (1, 1)),
    "a letter changed": (change(7, origin_display_name="Street 7 "), (1, 1)),
    "a date changed": (change(7, end_date=date(2016, 10, 2)), (1, 1)),
    "moved to another city": (change(7, city="Paris"), (1, 1)),
    "moved to a partition of its own": (change(7, start_date=date(2016, 9, 4)), (1, 1)),
    "moved to no partition": (change(7, start_date=None), (1, 1)),
    "an empty string for null": (change(7, destination_display_name=""), (1, 1)),
    "null for a string": (change(7, origin_display_name=None), (1, 1)),
    "a value in the next column": (change(7, origin_display_name=None, origin_geometry="Street 7"), (1, 1)),
    "two fields swapped": (change(7, origin_movement_id="8", destination_movement_id="7"), (1, 1)),
    "bounds swapped": (
        change(7, lower_bound_travel_time_seconds=900, upper_bound_travel_time_seconds=200),
        (1, 1),
    ),
    "unknown fields lost": (change(7, rescued_data='{"n":1}'), (1, 1)),
}


@pytest.fixture(autouse=True, scope="module")
def few_shuffle_partitions(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get("spark.sql.shuffle.partitions", "200")
    spark.conf.set("spark.sql.shuffle.partitions", "2")
    yield
    spark.conf.set("spark.sql.shuffle.partitions", before)


@pytest.fixture(scope="module")
def mutated(spark: SparkSession) -> Comparison:
    """All mutations in one comparison, each in cities of its own."""
    rows = [row(number) for number in range(12)]
    stream = [in_city(each, name) for name in MUTATIONS for each in rows]
    batch = [in_city(each, name) for name, (mutate, _) in MUTATIONS.items() for each in mutate(rows)]
    return compared(spark, stream, batch, samples=100)


def in_city(each: dict[str, Any], name: str) -> dict[str, Any]:
    return each | {"city": f"{each['city']}, where: {name}"}


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_is_found_and_shown(mutated: Comparison, name: str) -> None:
    mutate, expected = MUTATIONS[name]
    rows = [row(number) for number in range(12)]
    lacking = {
        difference.side: difference.row
        for difference in mutated.samples
        if difference.row["city"].endswith(f": {name}")
    }
    partitions = [part for part in mutated.partitions if part.partition[0].endswith(f": {name}")]

    assert tuple(sum(getattr(part, f"only_{side}") for part in partitions) for side in (STREAM, BATCH)) == expected
    wanted = {}
    if expected[0]:
        wanted[STREAM] = in_city(rows[7], name)
    if expected[1]:
        extra = next(each for each in mutate(rows)[::-1] if mutate(rows).count(each) > rows.count(each))
        wanted[BATCH] = in_city(extra, name)
    assert lacking == {side: {column: each[column] for column in COLUMNS} for side, each in wanted.items()}
    differing = {part.partition for part in partitions if part.only_stream or part.only_batch}
    assert differing == {tuple(each[column] for column in CONTRACT.partition_by) for each in wanted.values()}


def test_the_origin_of_a_row_does_not_count(spark: SparkSession) -> None:
    rows = [row(number) for number in range(5)]

    assert totals(compared(spark, rows, [each | {ARRIVAL: None} for each in rows])) == (0, 0)


def test_a_side_without_rows_lacks_them_all(spark: SparkSession) -> None:
    rows = [row(number) for number in range(9)]

    found = compared(spark, rows, [], samples=2)

    assert totals(found) == (9, 0)
    assert [difference.side for difference in found.samples] == [STREAM, STREAM]
    assert totals(compared(spark, [], rows)) == (0, 9)
    assert compared(spark, [], []).partitions == []


def test_rows_are_compared_as_a_whole_if_only_the_arrival_partitions(spark: SparkSession) -> None:
    rows = [row(number) for number in range(4)]
    sides = (table(spark, rows), table(spark, rows[1:]))
    found = compare(*sides, COLUMNS, [])
    assert (found.only_stream, found.only_batch) == (1, 0)
    assert [(part.partition, part.stream, part.batch) for part in found.partitions] == [((), 4, 3)]
    assert found.samples[0].row["origin_movement_id"] == "0"


def test_a_repeated_row_is_one_difference_with_its_count(spark: SparkSession) -> None:
    found = compared(spark, [row(1)], [row(1)] * 4)

    assert totals(found) == (0, 3)
    assert [(difference.side, difference.count) for difference in found.samples] == [(BATCH, 3)]


def test_more_partitions_than_a_filter_takes_are_compared_too(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "NAMED_PARTITIONS", 3)
    stream = [row(number, city=f"city {number}") for number in range(8)] + [row(9, city=None)]
    batch = [row(number, city=f"city {number}", origin_movement_id="x") for number in range(8)] + [row(9, city="9")]

    found = compared(spark, stream, batch)

    assert totals(found) == (9, 9)
    assert found.partitions[0].partition == (None, date(2016, 9, 3))
    assert all((part.only_stream, part.only_batch) != (0, 0) for part in found.partitions)


def test_rows_are_compared_only_in_partitions_that_differ(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    compared_partitions: list[Any] = []
    original = comparison.in_partitions

    def watch(rows: DataFrame, names: Any, partitions: Any) -> DataFrame:
        compared_partitions.append(sorted(partitions))
        return original(rows, names, partitions)

    monkeypatch.setattr(comparison, "in_partitions", watch)
    rows = [row(number) for number in range(12)]

    compared(spark, rows, rows)
    assert compared_partitions == []
    compared(spark, rows, rows[:7] + rows[8:])
    assert compared_partitions == [[("Boston", date(2016, 9, 3))]] * 2


def test_a_fingerprint_tells_nulls_in_different_columns_apart(spark: SparkSession) -> None:
    columns = ["a", "b", "c"]
    rows = [("x", None, None), (None, "x", None), (None, None, "x"), (None, None, None), ("", "", ""), ("x", "", None)]
    marks = {
        tuple(
            fingerprints(
                spark.createDataFrame([(*each, 1)], "a string, b string, c string, p int"), columns, ["p"]
            ).collect()[0]
        )
        for each in rows
    }
    assert len(marks) == len(rows)


HOUR = timedelta(hours=1)


def arrived(number: int, minutes: float) -> dict[str, Any]:
    return row(number, **{ARRIVAL: ONE + timedelta(minutes=minutes)})


def in_files(stream: Rows, minutes: int = 10) -> Rows:
    """The stream's rows as the batch side knows them: each with its file's time, a little before."""
    return [
        each
        | {ARRIVAL: each[ARRIVAL] - timedelta(minutes=each[ARRIVAL].minute % minutes, seconds=each[ARRIVAL].second)}
        for each in stream
    ]


def test_a_window_of_live_data_is_equal_although_both_sides_go_on(spark: SparkSession) -> None:
    stream = [arrived(number, number * 1.9 - 60) for number in range(90)]
    batch = in_files(stream)
    # The batch side has not come further than the window's end and a bit; the stream is ahead.
    window = Window(ONE, ONE + HOUR)

    assert totals(compared(spark, stream, batch, window)) == (0, 0)
    late = [each for each in batch if each[ARRIVAL] < ONE + HOUR]
    assert totals(compared(spark, stream, late, window)) == (0, 0)
    assert totals(compared(spark, stream, late)) != (0, 0)


@pytest.mark.parametrize(("lost", "expected"), [(40, 1), (2, 0), (80, 0)])
def test_a_row_that_one_side_lacks_counts_only_in_its_own_window(spark: SparkSession, lost: int, expected: int) -> None:
    stream = [arrived(number, number * 2 - 60) for number in range(90)]
    batch = in_files(stream)
    window = Window(ONE, ONE + HOUR)

    assert totals(compared(spark, stream, [*batch[:lost], *batch[lost + 1 :]], window)) == (expected, 0)
    assert totals(compared(spark, [*stream[:lost], *stream[lost + 1 :]], batch, window)) == (0, expected)


def test_equal_rows_of_another_time_do_not_make_up_for_a_lost_one(spark: SparkSession) -> None:
    same = [arrived(1, minutes) for minutes in (-300, 5, 20)]

    found = compared(spark, same, [same[0], same[1]], Window(ONE, ONE + HOUR))

    assert totals(found) == (1, 0)


def test_a_window_may_be_open_on_either_side(spark: SparkSession) -> None:
    stream = [arrived(number, number * 10) for number in range(10)]

    assert totals(compared(spark, stream, stream[5:], Window(ONE + timedelta(minutes=50), None))) == (0, 0)
    assert totals(compared(spark, stream, stream[:5], Window(None, ONE + timedelta(minutes=50)))) == (0, 0)
    assert totals(compared(spark, stream, stream[:5], Window(None, None))) == (5, 0)
