"""Computes the gold tables' rows from processed rows: DataFrames in, DataFrames out, no I/O.

"Latest" is one total order: by arrival, sequence number (up to 56 digits, stored as text), shard, batch and then the
row's other columns. So the tables do not depend on the order of the increments.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.gold.tables import CITY_SUMMARY, CORRIDORS, LOWER, MEAN, UPPER, ZONES, GoldTable


def arrival_order(prefix: str = "") -> list[Column]:
    """The columns that order rows by arrival. `prefix`, such as `t.`, is the table's alias."""
    sequence = F.col(f"{prefix}sequence_number")
    main = F.substring_index(sequence, ":", 1)
    return [
        F.col(f"{prefix}arrival_time"),
        F.length(main),
        main,
        F.length(sequence),  # a user record of a KPL aggregate is <sequence>:<number>
        sequence,
        F.col(f"{prefix}shard_id"),
        F.col(f"{prefix}batch"),
    ]


def corridor_order(prefix: str = "") -> Column:
    """The order of a corridor's rows; the greatest row is the corridor's row."""
    rest = [name for name in _payload(CORRIDORS) if name not in _ORIGIN]
    return _order([*arrival_order(prefix), *(F.col(f"{prefix}{name}") for name in rest)])


def zone_order(prefix: str = "") -> Column:
    """The order of a zone's rows: rows with a geometry are greatest, then rows with a name, then the latest."""
    name, geometry = F.col(f"{prefix}display_name"), F.col(f"{prefix}geometry")
    return _order([geometry.isNotNull(), name.isNotNull(), *arrival_order(prefix), name, geometry])


def latest_corridors(rows: DataFrame) -> DataFrame:
    """The latest row of each corridor."""
    return _latest(rows, CORRIDORS, corridor_order())


def latest_zones(rows: DataFrame) -> DataFrame:
    """The greatest row of each zone, by `zone_order`."""
    return _latest(rows, ZONES, zone_order())


def row_counts(rows: DataFrame) -> DataFrame:
    """The number of rows for each city and date range: columns city, date_range, rows."""
    return rows.groupBy("city", "date_range").agg(F.count("*").alias("rows"))


def city_summaries(corridors: DataFrame, counts: DataFrame) -> DataFrame:
    """The rows of `city_summary` for the cities and periods in `counts` (see `row_counts`)."""
    touched = F.broadcast(counts.withColumnsRenamed({"city": "_city", "date_range": "_range"}))
    share = (F.col(UPPER) - F.col(LOWER)) / F.when(F.col(MEAN) > 0, F.col(MEAN))
    return (
        corridors.join(touched, F.col("city").eqNullSafe(F.col("_city")) & (F.col("date_range") == F.col("_range")))
        .groupBy("city", "date_range")
        .agg(
            F.max("start_date").alias("start_date"),
            F.max("end_date").alias("end_date"),
            F.max("rows").alias("rows"),
            F.count("*").alias("corridors"),
            F.avg(MEAN).alias(MEAN),
            F.percentile(MEAN, 0.5).alias("median_travel_time_seconds"),
            F.percentile(MEAN, 0.9).alias("p90_travel_time_seconds"),
            F.avg(share).alias("reliability"),
        )
        .select(*(name for name, _, _ in CITY_SUMMARY.columns))
    )


def _latest(rows: DataFrame, table: GoldTable, order: Column) -> DataFrame:
    payload = F.struct(*_payload(table))
    chosen = rows.groupBy(*table.key).agg(F.max_by(payload, order).alias("_row"))
    return chosen.select(*(F.col(name) if name in table.key else F.col(f"_row.{name}") for name, _, _ in table.columns))


def _payload(table: GoldTable) -> list[str]:
    return [name for name, _, _ in table.columns if name not in table.key]


def _order(columns: Sequence[Column]) -> Column:
    return F.struct(*(column.alias(f"o{number}") for number, column in enumerate(columns)))


_ORIGIN = ("shard_id", "sequence_number", "arrival_time", "batch")
