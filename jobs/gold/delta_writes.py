"""Writes rows into a gold table's Delta log, at most once.

Rows and progress are one commit: `txnAppId` is the query, `txnVersion` the increment's last batch. Delta skips a
commit whose version is not greater than the table's. MERGE takes no writer options, so both are settings of a Spark
session that only the gold job uses (`set_transaction`).
Source: https://docs.delta.io/latest/delta-batch.html (idempotent writes); delta-io/delta#1555.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.common.fault_points import fault_point
from jobs.gold.tables import GoldTable

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# For small tables. The user's spark.conf wins over these.
_SESSION = {
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",  # gold.retention_hours has its own minimum
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    "spark.databricks.delta.writeChecksumFile.enabled": "false",  # reads the whole log after each commit
    # Statistics are of a table's first 32 columns; a later one may be in `sort_by`.
    "spark.databricks.delta.optimize.zorder.checkStatsCollection.enabled": "false",
    "spark.sql.decimalOperations.allowPrecisionLoss": "false",  # a sum keeps its digits, or is an error
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",  # VACUUM's tasks: 10,000 otherwise
}
SMALL_ROWS = 500_000  # below this, adaptive plans cost more than they save
_APP, _VERSION = "spark.databricks.delta.write.txnAppId", "spark.databricks.delta.write.txnVersion"


def gold_session(spark: SparkSession, conf: Mapping[str, object]) -> SparkSession:
    """A new session beside `spark` with settings for the gold tables. `conf`: the user's settings, which win."""
    session = spark.newSession()
    for key, value in {**_SESSION, **conf}.items():
        if session.conf.isModifiable(key):
            session.conf.set(key, str(value))
    tune_session(session, conf, SMALL_ROWS)
    return session


def tune_session(spark: SparkSession, conf: Mapping[str, object], rows: int) -> None:
    """Sets the session up for steps over about `rows` rows."""
    small = rows < SMALL_ROWS
    parallel = spark.sparkContext.defaultParallelism
    for key, value in {
        "spark.sql.adaptive.enabled": str(not small).lower(),
        "spark.sql.shuffle.partitions": 1 if rows < SMALL_ROWS // 10 else 2 * parallel,
        "spark.databricks.delta.optimizeWrite.enabled": str(not small).lower(),  # one task writes one file anyway
        **conf,
    }.items():
        if spark.conf.isModifiable(key):
            spark.conf.set(key, str(value))


def set_transaction(spark: SparkSession, query: str, last: int) -> None:
    """Every later Delta write of the session sets its table's progress in `query` to batch `last`."""
    spark.conf.set(_APP, query)
    spark.conf.set(_VERSION, str(last))


def clear_transaction(spark: SparkSession) -> None:
    """Undoes `set_transaction`, because Delta would skip an OPTIMIZE under the same transaction as already done."""
    spark.conf.unset(_APP)
    spark.conf.unset(_VERSION)


def write_rows(
    rows: DataFrame,
    lake: str,
    table: GoldTable,
    *,
    exists: bool,
    retention_hours: int,
    newer: Column | None = None,
    values: Mapping[str, Column] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
    replace: bool = False,
) -> None:
    """Writes rows after `set_transaction`: a MERGE by the table's key, or an append if it has none or is new.

    newer    whether the new row (`s.`) replaces the table's row (`t.`) of the same key; None: always
    values   the columns of a replaced row, from `t.` and `s.`; the new row's by default
    only     for some columns of the key, the values in `rows`, so that MERGE can skip files without them
    replace  the rows are the table's new content
    """
    uri = f"{lake}/{table.folder}"
    fault_point("gold.writing")
    if not exists or not table.key or replace:
        _write_files(rows, uri, retention_hours, "overwrite" if replace else "append")
    else:
        _merge(rows, uri, table, newer, values or {}, only or {})
    fault_point("gold.written")


def among(table: GoldTable, only: Mapping[str, Sequence[str]], prefix: str = "") -> Column:
    """The condition that each column of `only` has one of its values, which are texts as folders have them."""
    from pyspark.sql import functions as F

    condition = F.lit(True)
    for name, texts in only.items():
        kind = table.types[name]
        literals = [F.lit(text) if kind == "string" else F.lit(text).cast(kind) for text in texts]
        condition &= F.col(f"{prefix}{name}").isin(*literals)
    return condition


def _write_files(rows: DataFrame, uri: str, retention_hours: int, mode: str) -> None:
    # Not every reader (Athena, Redshift, delta-rs) supports deletion vectors.
    rows.write.format("delta").mode(mode).option("delta.enableDeletionVectors", "false").option(
        "delta.deletedFileRetentionDuration", f"interval {retention_hours} hours"
    ).save(uri)


def _merge(
    rows: DataFrame,
    uri: str,
    table: GoldTable,
    newer: Column | None,
    values: Mapping[str, Column],
    only: Mapping[str, Sequence[str]],
) -> None:
    from delta.tables import DeltaTable as SparkDeltaTable
    from pyspark.sql import functions as F

    condition = among(table, only, "t.")
    for name in table.key:
        condition &= F.col(f"t.{name}").eqNullSafe(F.col(f"s.{name}"))
    (
        SparkDeltaTable.forPath(rows.sparkSession, uri)
        .alias("t")
        .merge(rows.alias("s"), condition)
        .whenMatchedUpdate(condition=newer, set={name: values.get(name, F.col(f"s.{name}")) for name in table.types})
        .whenNotMatchedInsertAll()
        .execute()
    )
