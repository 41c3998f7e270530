"""Upkeep of Delta tables: OPTIMIZE makes few files of many and sorts them, VACUUM deletes what left the table long ago.

`movement gold --upkeep` runs it. Neither changes a row, both are safe to repeat, and both leave the tables' progress.
The caller holds the gold tables' lease: Delta's own way to S3 knows one writer at a time.
Source: https://docs.delta.io/latest/optimizations-oss.html, https://docs.delta.io/latest/delta-utility.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.gold.delta_writes import no_increment
from jobs.gold.manifests import files_of
from jobs.gold.tables import TABLES, GoldTable
from jobs.lake.delta import open_delta

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Kept:
    """What upkeep did to a table: its files before and after."""

    table: str
    files_before: int
    files_after: int


def keep_up(spark: SparkSession, lake: str, retention_hours: int) -> list[Kept]:
    """OPTIMIZE and VACUUM of every gold table there is. `spark` is a `delta.gold_session`.

    `retention_hours`: files that have left a table stay as long, for readers that still use them.
    """
    kept = []
    for table in TABLES:
        before = open_delta(f"{lake}/{table.folder}")
        if before is None:
            continue
        optimize(spark, lake, table)
        vacuum(spark, lake, table, retention_hours)
        after = open_delta(f"{lake}/{table.folder}") or before
        kept.append(Kept(table.name, len(files_of(before)), len(files_of(after))))
    return kept


def optimize(spark: SparkSession, lake: str, table: GoldTable) -> None:
    """Writes small files together, sorted by the table's `order`, where a city's rows then lie side by side."""
    from delta.tables import DeltaTable

    no_increment(spark)
    found = DeltaTable.forPath(spark, f"{lake}/{table.folder}").optimize()
    if table.order:
        found.executeZOrderBy(*table.order)
    else:
        found.executeCompaction()


def vacuum(spark: SparkSession, lake: str, table: GoldTable, retention_hours: int) -> None:
    """Deletes files that are in no version younger than the retention."""
    from delta.tables import DeltaTable

    DeltaTable.forPath(spark, f"{lake}/{table.folder}").vacuum(retention_hours)
