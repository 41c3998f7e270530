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
from jobs.gold.delta_writes import set_transaction, tune_session, write_rows
from jobs.gold.increments import Increment
from jobs.gold.manifests import row_count
from jobs.gold.reader import RowReader, ZoneReader, split_into_tasks
from jobs.gold.tables import CITY_SUMMARY, CORRIDORS, HISTORY, ZONES, GoldTable
from jobs.lake.delta import open_delta
from jobs.lake.table_files import LiveFile
from jobs.schema.partitions import parse_partition_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

# The cities that a MERGE looks for; with None among them it looks for any city.
Cities = tuple[str | None, ...]
_MAX_CITIES = 500


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
    retention_hours: int
    check_lease: Callable[[], None]
    conf: Mapping[str, object]

    def write(self, increment: Increment, files: Sequence[LiveFile]) -> None:
        """Writes the increment to every table that lacks it; `files` contain the batches' rows.

        Raises BatchMismatchError, before anything is written, if the files' rows do not match the ledger.
        """
        # A MERGE may also rewrite rows that are already in the table.
        corridors = open_delta(f"{self.lake}/{CORRIDORS.folder}")
        tune_session(self.spark, self.conf, increment.rows + (row_count(corridors) if corridors else 0))
        names = frozenset(batch.name for batch in increment.batches)
        tasks = split_into_tasks(files, self.spark.sparkContext.defaultParallelism)
        reader = RowReader(tasks, names, self.lake)
        rows = self._read(reader, len(tasks), CORRIDORS.ddl).persist()
        try:
            started = time.perf_counter()
            _check_rows(increment, rows.count())
            log.info("%d rows read in %.2f s", increment.rows, time.perf_counter() - started)
            set_transaction(self.spark, increment.query, increment.last)
            cities = _cities(increment)
            steps = {
                HISTORY.name: lambda: self._write(rows, HISTORY),
                CORRIDORS.name: lambda: self._write_corridors(rows, cities),
                ZONES.name: lambda: self._write_zones(self._read(ZoneReader(reader), len(tasks), ZONES.ddl), cities),
            }
            # These three tables do not depend on each other; the summary reads the corridors.
            with ThreadPoolExecutor(len(steps)) as pool:
                writes = [pool.submit(step) for name, step in steps.items() if name in increment.tables]
            for write in writes:
                write.result()
            if CITY_SUMMARY.name in increment.tables:
                self._write_summary(rows, cities)
        finally:
            rows.unpersist()

    def _read(self, reader: RowReader | ZoneReader, tasks: int, ddl: str) -> DataFrame:
        return self.spark.range(0, tasks, 1, max(tasks, 1)).mapInArrow(reader, ddl)

    def _write(self, rows: DataFrame, table: GoldTable, **merge: Any) -> None:
        self.check_lease()
        started = time.perf_counter()
        exists = open_delta(f"{self.lake}/{table.folder}") is not None
        write_rows(rows, self.lake, table, exists=exists, retention_hours=self.retention_hours, **merge)
        log.info("%s written in %.2f s", table.folder, time.perf_counter() - started)

    def _write_corridors(self, rows: DataFrame, cities: Cities) -> None:
        order = {"order": transforms.corridor_order("t."), "source_order": transforms.corridor_order("s.")}
        self._write(transforms.latest_corridors(rows), CORRIDORS, cities=cities, **order)

    def _write_zones(self, zones: DataFrame, cities: Cities) -> None:
        order = {"order": transforms.zone_order("t."), "source_order": transforms.zone_order("s.")}
        self._write(transforms.latest_zones(zones), ZONES, cities=cities, **order)

    def _write_summary(self, rows: DataFrame, cities: Cities) -> None:
        corridors = self.spark.read.format("delta").load(f"{self.lake}/{CORRIDORS.folder}")
        if None not in cities:
            corridors = corridors.where(corridors.city.isin(*cities))
        summaries = transforms.city_summaries(corridors, transforms.row_counts(rows))
        self._write(summaries, CITY_SUMMARY, cities=cities, add=("rows",))


def _check_rows(increment: Increment, found: int) -> None:
    if found != increment.rows:
        names = f"{increment.batches[0].name} to {increment.batches[-1].number}"
        raise BatchMismatchError(
            f"batches {names}: the ledger counts {increment.rows} processed rows, their files hold {found}. Nothing "
            "was written to gold. Were files deleted or added by hand? `raw/` still has every record"
        )


def _cities(increment: Increment) -> Cities:
    """The cities of the increment's rows; (None,) if the partitions do not name them or if there are too many."""
    folders: Iterable[str] = dict.fromkeys(folder for batch in increment.batches for folder in batch.partitions)
    found = {parse_partition_path(folder).get("city") for folder in folders}
    return (None,) if None in found or len(found) > _MAX_CITIES else tuple(sorted(city for city in found if city))
