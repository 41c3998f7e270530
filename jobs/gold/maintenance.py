"""Maintenance of the gold tables: OPTIMIZE merges and sorts files, VACUUM deletes files that left the table long ago.

`movement gold --upkeep` runs it. Neither changes a row or a table's progress, and both are safe to repeat. The caller
holds the gold tables' lease, because Delta on S3 allows only one writer at a time.
Source: https://docs.delta.io/latest/optimizations-oss.html, https://docs.delta.io/latest/delta-utility.html.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.gold.delta_writes import clear_transaction
from jobs.gold.manifests import data_files
from jobs.gold.tables import GoldTable
from jobs.lake.delta import open_delta

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class MaintenanceResult:
    """How many files a table had before and after its maintenance."""

    table: str
    files_before: int
    files_after: int


def maintain_tables(
    spark: SparkSession, lake: str, tables: Iterable[GoldTable], retention_hours: int
) -> list[MaintenanceResult]:
    """Runs OPTIMIZE and VACUUM on each of the tables that exists. `spark` is a `delta_writes.gold_session`.

    `retention_hours`: how long files stay after they leave a table, for readers that still use them.
    """
    results = []
    for table in tables:
        before = open_delta(f"{lake}/{table.folder}")
        if before is None:
            continue
        optimize(spark, lake, table)
        vacuum(spark, lake, table, retention_hours)
        after = open_delta(f"{lake}/{table.folder}") or before
        results.append(MaintenanceResult(table.name, len(data_files(before)), len(data_files(after))))
    return results


def optimize(spark: SparkSession, lake: str, table: GoldTable) -> None:
    """Merges small files into larger ones, sorted by the table's `order`."""
    from delta.tables import DeltaTable

    clear_transaction(spark)
    optimizer = DeltaTable.forPath(spark, f"{lake}/{table.folder}").optimize()
    if table.order:
        optimizer.executeZOrderBy(*table.order)
    else:
        optimizer.executeCompaction()


def vacuum(spark: SparkSession, lake: str, table: GoldTable, retention_hours: int) -> None:
    """Deletes files that no version within the retention uses."""
    from delta.tables import DeltaTable

    DeltaTable.forPath(spark, f"{lake}/{table.folder}").vacuum(retention_hours)
