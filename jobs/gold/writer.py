"""One increment into the tables that lack it: read once, counted against the ledger, written table by table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.common.errors import BatchMismatchError
from jobs.gold import transforms as frames
from jobs.gold.delta_writes import increment_session, tune, write
from jobs.gold.increments import Increment, SourceFile
from jobs.gold.manifests import rows_of
from jobs.gold.reader import ReadRows, ReadZones, Store, tasks_of
from jobs.gold.tables import CITY_SUMMARY, CORRIDORS, HISTORY, ZONES, GoldTable
from jobs.lake.delta import open_delta
from jobs.schema.partitions import parse_partition_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

# Those that a MERGE looks for by name; None among them: any.
Cities = tuple[str | None, ...]
_MAX_CITIES = 500


@dataclass(frozen=True)
class IncrementWriter:
    """Writes increments to the gold tables of the lake at `lake`. `spark` is a `delta.gold_session`.

    `open_lake` opens the lake on a worker. `check_lease` raises if another job has taken over; it is called
    before each table. `retention_hours`: of files that leave a table. `conf`: the user's Spark settings,
    which win over ours.
    """

    spark: SparkSession
    lake: str
    open_lake: Callable[[str], Store]
    retention_hours: int
    check_lease: Callable[[], None]
    conf: Mapping[str, object]

    def write(self, increment: Increment, files: Sequence[SourceFile]) -> None:
        """Takes every table of the increment to its last batch; `files` hold the batches' rows.

        Raises BatchMismatchError, before anything is written, where files and ledger disagree.
        """
        # A MERGE may write the table's own rows again beside the increment's.
        there = open_delta(f"{self.lake}/{CORRIDORS.folder}")
        tune(self.spark, self.conf, increment.rows + (rows_of(there) if there else 0))
        names = frozenset(batch.name for batch in increment.batches)
        tasks = tasks_of(files, self.spark.sparkContext.defaultParallelism)
        read = ReadRows(tasks, names, self.lake, self.open_lake)
        rows = self._frame(read, CORRIDORS.ddl).persist()
        try:
            begun = time.perf_counter()
            _check(increment, rows.count())
            log.info("%d rows read in %.2f s", increment.rows, time.perf_counter() - begun)
            increment_session(self.spark, increment.query, increment.last)
            cities = _cities(increment)
            steps = {
                HISTORY.name: lambda: self._put(rows, HISTORY),
                CORRIDORS.name: lambda: self._corridors(rows, cities),
                ZONES.name: lambda: self._zones(self._frame(ReadZones(read), ZONES.ddl), cities),
            }
            # Each table's log is its own, so that these three can go at once; the summary reads the corridors.
            with ThreadPoolExecutor(len(steps)) as pool:
                wanted = [pool.submit(step) for name, step in steps.items() if name in increment.tables]
            for done in wanted:
                done.result()
            if CITY_SUMMARY.name in increment.tables:
                self._summary(rows, cities)
        finally:
            rows.unpersist()

    def _frame(self, read: ReadRows | ReadZones, ddl: str) -> DataFrame:
        tasks = len(read.tasks if isinstance(read, ReadRows) else read.read.tasks)
        return self.spark.range(0, tasks, 1, max(tasks, 1)).mapInArrow(read, ddl)

    def _put(self, rows: DataFrame, table: GoldTable, **merge: Any) -> None:
        self.check_lease()
        begun = time.perf_counter()
        exists = open_delta(f"{self.lake}/{table.folder}") is not None
        write(rows, self.lake, table, exists=exists, retention_hours=self.retention_hours, **merge)
        log.info("%s written in %.2f s", table.folder, time.perf_counter() - begun)

    def _corridors(self, rows: DataFrame, cities: Cities) -> None:
        order = {"order": frames.corridor_order("t."), "source_order": frames.corridor_order("s.")}
        self._put(frames.latest_corridors(rows), CORRIDORS, cities=cities, **order)

    def _zones(self, zones: DataFrame, cities: Cities) -> None:
        order = {"order": frames.zone_order("t."), "source_order": frames.zone_order("s.")}
        self._put(frames.latest_zones(zones), ZONES, cities=cities, **order)

    def _summary(self, rows: DataFrame, cities: Cities) -> None:
        corridors = self.spark.read.format("delta").load(f"{self.lake}/{CORRIDORS.folder}")
        if None not in cities:
            corridors = corridors.where(corridors.city.isin(*cities))
        summaries = frames.city_summaries(corridors, frames.row_counts(rows))
        self._put(summaries, CITY_SUMMARY, cities=cities, add=("rows",))


def _check(increment: Increment, found: int) -> None:
    if found != increment.rows:
        names = f"{increment.batches[0].name} to {increment.batches[-1].number}"
        raise BatchMismatchError(
            f"batches {names}: the ledger counts {increment.rows} processed rows, their files hold {found}. Nothing "
            "was written to gold. Were files deleted or put there by hand? `raw/` still has every record"
        )


def _cities(increment: Increment) -> Cities:
    """The cities that the increment's rows may be of; not known where the partitions do not tell."""
    folders: Iterable[str] = dict.fromkeys(folder for batch in increment.batches for folder in batch.partitions)
    found = {parse_partition_path(folder).get("city") for folder in folders}
    return (None,) if None in found or len(found) > _MAX_CITIES else tuple(sorted(city for city in found if city))
