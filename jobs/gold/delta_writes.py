"""The gold tables' Delta logs: who is how far, and a write that is there once or not at all.

Rows and progress are one commit: `txnAppId` is the query, `txnVersion` the last batch. Delta skips a commit whose
version is not above the table's own. MERGE takes no writer options, so both stand in the session's settings, of a
session that nothing but one increment uses (`increment_session`).
Source: https://docs.delta.io/latest/delta-batch.html (idempotent writes); delta-io/delta#1555.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jobs.common.fault_points import fault_point
from jobs.gold.tables import GoldTable

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# Small tables' needs; a key that the settings' spark.conf names keeps the value from there.
_SESSION = {
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",  # gold.retention_hours has a bound of its own
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    "spark.databricks.delta.writeChecksumFile.enabled": "false",  # costs a look at the whole log after each commit
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",  # VACUUM's tasks: 10,000 otherwise
}
SMALL = 500_000
_APP, _VERSION = "spark.databricks.delta.write.txnAppId", "spark.databricks.delta.write.txnVersion"


def gold_session(spark: SparkSession, conf: Mapping[str, object]) -> SparkSession:
    """A session of our own beside `spark`, with its own settings; `conf`: the user's, which win."""
    session = spark.newSession()
    for key, value in {**_SESSION, **conf}.items():
        if session.conf.isModifiable(key):
            session.conf.set(key, str(value))
    tune(session, conf, SMALL)
    return session


def tune(spark: SparkSession, conf: Mapping[str, object], rows: int) -> None:
    """Plans for a step over about so many rows: below SMALL, what makes plans adaptive costs more than it gives."""
    small = rows < SMALL
    parallel = spark.sparkContext.defaultParallelism
    for key, value in {
        "spark.sql.adaptive.enabled": str(not small).lower(),
        "spark.sql.shuffle.partitions": 1 if rows < SMALL // 10 else 2 * parallel,
        "spark.databricks.delta.optimizeWrite.enabled": str(not small).lower(),  # one task writes one file anyway
        **conf,
    }.items():
        if spark.conf.isModifiable(key):
            spark.conf.set(key, str(value))


def increment_session(spark: SparkSession, query: str, last: int) -> None:
    """From here on every Delta write of the session is the one that takes a table to batch `last` of `query`."""
    spark.conf.set(_APP, query)
    spark.conf.set(_VERSION, str(last))


def no_increment(spark: SparkSession) -> None:
    """Undoes `increment_session`: what follows (OPTIMIZE) would be skipped as done before."""
    spark.conf.unset(_APP)
    spark.conf.unset(_VERSION)


def write(
    rows: DataFrame,
    lake: str,
    table: GoldTable,
    *,
    exists: bool,
    retention_hours: int,
    order: Column | None = None,
    source_order: Column | None = None,
    add: tuple[str, ...] = (),
    cities: tuple[str | None, ...] = (None,),
) -> None:
    """Puts rows into the table within `increment_session`: MERGE by its key, or an append where it has none.

    `order` (of the table's row, named `t.`) and `source_order` (`s.`): a row is replaced by a greater one only.
    `add`: columns that are added to the table's own instead. `cities`: those in `rows`, so that files without any of
    them are not read; None: any. A table that does not exist is created by this very commit.
    """
    uri = f"{lake}/{table.folder}"
    fault_point("gold.writing")
    if not exists or not table.key:
        _append(rows, uri, retention_hours)
    else:
        _merge(rows, uri, table, order, source_order, add, cities)
    fault_point("gold.written")


def _append(rows: DataFrame, uri: str, retention_hours: int) -> None:
    # Readers other than Spark (Athena, Redshift, delta-rs) know no deletion vectors, or not all of them do.
    rows.write.format("delta").mode("append").option("delta.enableDeletionVectors", "false").option(
        "delta.deletedFileRetentionDuration", f"interval {retention_hours} hours"
    ).save(uri)


def _merge(
    rows: DataFrame,
    uri: str,
    table: GoldTable,
    order: Column | None,
    source_order: Column | None,
    add: tuple[str, ...],
    cities: tuple[str | None, ...],
) -> None:
    from delta.tables import DeltaTable as SparkDeltaTable
    from pyspark.sql import functions as F

    condition = F.lit(True)
    for name in table.key:
        condition &= F.col(f"t.{name}").eqNullSafe(F.col(f"s.{name}"))
    if None not in cities:
        condition &= F.col("t.city").isin(*cities)
    values = {
        name: F.col(f"t.{name}") + F.col(f"s.{name}") if name in add else F.col(f"s.{name}")
        for name, _, _ in table.columns
    }
    newer = None if order is None or source_order is None else source_order > order
    (
        SparkDeltaTable.forPath(rows.sparkSession, uri)
        .alias("t")
        .merge(rows.alias("s"), condition)
        .whenMatchedUpdate(condition=newer, set=values)
        .whenNotMatchedInsertAll()
        .execute()
    )
