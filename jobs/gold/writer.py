"""Writes one increment: reads its rows once, checks their number against the ledger, and writes each table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.common.errors import BatchMismatchError
from jobs.gold import transforms
from jobs.gold.definitions import store_definition
from jobs.gold.delta_writes import among, set_transaction, tune_session, write_rows
from jobs.gold.increments import Increment
from jobs.gold.manifests import row_count
from jobs.gold.reader import RowReader, split_into_tasks
from jobs.gold.tables import GoldTable, spark_ddl
from jobs.gold.zones import ZoneReader, zone_order
from jobs.lake.delta import open_delta
from jobs.lake.store import lake_at
from jobs.lake.table_files import LiveFile
from jobs.schema.gold_section import AggregateTable, HistoryTable, LatestTable, ZonesTable
from jobs.schema.partitions import parse_partition_path
from jobs.schema.table import TableContract

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

# For partition columns, the values of an increment's rows; only columns whose values are known and not too many.
Values = Mapping[str, Sequence[str]]
_MAX_VALUES = 500
_AT_ONCE = 3  # tables that are written at the same time


@dataclass(frozen=True)
class IncrementWriter:
    """Writes increments to the gold tables of the lake at `lake`.

    spark            a `delta_writes.gold_session`
    retention_hours  how long files stay after they leave a table
    check_lease      raises if another job has taken over; called before each table
    conf             the user's Spark settings, which win over ours
    """

    spark: SparkSession
    lake: str
    contract: TableContract
    tables: tuple[GoldTable, ...]
    retention_hours: int
    check_lease: Callable[[], None]
    conf: Mapping[str, object]

    def write(self, increment: Increment, files: Sequence[LiveFile]) -> None:
        """Writes the increment to every table that lacks it; `files` contain the batches' rows.

        Raises BatchMismatchError, before anything is written, if the files' rows do not match the ledger.
        """
        opened = [open_delta(f"{self.lake}/{table.folder}") for table in self.tables if table.key]
        # A MERGE may also rewrite rows that are already in the table.
        largest = max((row_count(found) for found in opened if found), default=0)
        tune_session(self.spark, self.conf, increment.rows + largest)
        tasks = split_into_tasks(files, self.spark.sparkContext.defaultParallelism)
        names = frozenset(batch.name for batch in increment.batches)
        reader = self._reader(tasks, names, self._columns())
        rows = self._read(reader, len(tasks), spark_ddl(reader.columns)).persist()
        try:
            started = time.perf_counter()
            _check_rows(increment, rows.count())
            log.info("%d rows read in %.2f s", increment.rows, time.perf_counter() - started)
            set_transaction(self.spark, increment.query, increment.last)
            values = _partition_values(increment)
            wanted = [table for table in self.tables if table.name in increment.tables]
            # Tables of processed rows do not depend on each other; the others read them.
            for step in (
                [table for table in wanted if table.source is None],
                [table for table in wanted if table.source is not None],
            ):
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    writes = [pool.submit(self._write_table, table, rows, tasks, names, values) for table in step]
                for write in writes:
                    write.result()
        finally:
            rows.unpersist()

    def _columns(self) -> tuple[str, ...]:
        """The columns that the tables need, without those of zones, which are large and read apart."""
        needed = [name for table in self.tables if not isinstance(table.spec, ZonesTable) for name in table.needs]
        return tuple(dict.fromkeys(needed)) or ("batch",)

    def _reader(self, tasks: Sequence[Sequence[LiveFile]], names: frozenset[str], columns: Iterable[str]) -> RowReader:
        kinds = self.contract.row_types
        return RowReader(tasks, names, self.lake, tuple((name, kinds[name]) for name in columns))

    def _read(self, reader: RowReader | ZoneReader, tasks: int, ddl: str) -> DataFrame:
        return self.spark.range(0, tasks, 1, max(tasks, 1)).mapInArrow(reader, ddl)

    def _write_table(
        self,
        table: GoldTable,
        rows: DataFrame,
        tasks: Sequence[Sequence[LiveFile]],
        names: frozenset[str],
        values: Values,
    ) -> None:
        only = {name: values[name] for name in table.key if name in values}
        spec = table.spec
        if isinstance(spec, HistoryTable):
            self._write(rows.select(*table.types), table)
        elif isinstance(spec, LatestTable):
            order = transforms.latest_order(table, "t."), transforms.latest_order(table, "s.")
            self._write(transforms.latest_rows(rows, table), table, newer=order[1] > order[0], only=only)
        elif isinstance(spec, ZonesTable):
            zones = self._read(ZoneReader(self._reader(tasks, names, table.needs), table), len(tasks), table.ddl)
            found = transforms.latest_rows(zones, table, zone_order())
            self._write(found, table, newer=zone_order("s.") > zone_order("t."), only=only)
        else:
            self._write_aggregate(table, spec, rows, only)

    def _write_aggregate(self, table: GoldTable, spec: AggregateTable, rows: DataFrame, only: Values) -> None:
        if table.source is None:
            found = transforms.increment(rows, table).select(*table.types)
            self._write(found, table, values=transforms.merged_values(table), only=only)
            return
        source = self.spark.read.format("delta").load(f"{self.lake}/gold/{table.source}")
        if not table.local:
            self._write(transforms.recomputed(source, table, None), table, replace=True)
            return
        found = transforms.recomputed(source.where(among(table, only)), table, transforms.increment(rows, table))
        self._write(found, table, values=transforms.merged_values(table), only=only)

    def _write(self, rows: DataFrame, table: GoldTable, **how: Any) -> None:
        self.check_lease()
        started = time.perf_counter()
        exists = open_delta(f"{self.lake}/{table.folder}") is not None
        store_definition(lake_at(self.lake), table)
        write_rows(rows, self.lake, table, exists=exists, retention_hours=self.retention_hours, **how)
        log.info("%s written in %.2f s", table.folder, time.perf_counter() - started)


def _check_rows(increment: Increment, found: int) -> None:
    if found != increment.rows:
        names = f"{increment.batches[0].name} to {increment.batches[-1].number}"
        raise BatchMismatchError(
            f"batches {names}: the ledger counts {increment.rows} processed rows, their files hold {found}. Nothing "
            "was written to gold. Were files deleted or added by hand? `raw/` still has every record"
        )


def _partition_values(increment: Increment) -> dict[str, tuple[str, ...]]:
    """The values of each partition column in the increment's rows; without columns that have null or too many."""
    folders = dict.fromkeys(folder for batch in increment.batches for folder in batch.partitions)
    found: dict[str, set[str | None]] = {}
    for folder in filter(None, folders):
        for name, value in parse_partition_path(folder).items():
            found.setdefault(name, set()).add(value)
    return {
        name: tuple(sorted(filter(None, values)))
        for name, values in found.items()
        if None not in values and len(values) <= _MAX_VALUES
    }
