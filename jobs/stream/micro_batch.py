"""What the streaming job does with a micro-batch: write the files, register their partitions, write the ledger entry.

`stream_job` gives it to Spark's `foreachBatch`. The order of its steps is the exactly-once protocol (docs/adr/0003).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from jobs.catalog.glue import GlueCatalog
from jobs.common.errors import MovementError, TerminalError, TooManyRejectedError, TransientError
from jobs.lake.lease import Claim
from jobs.lake.ledger import TABLES, Ledger, LedgerEntry
from jobs.lake.partition_locations import Layout, LayoutFile, settle
from jobs.lake.store import Lake
from jobs.lake.task_report import TaskReport
from jobs.schema.record_parser import RecordParser
from jobs.schema.table import TableContract
from jobs.settings.settings import Settings
from jobs.stream.delta_commits import DeltaLog
from jobs.stream.reject_rate import RejectedShare
from jobs.write.merge_small_files import written
from jobs.write.task import WriteTask

log = logging.getLogger(__name__)


class BatchWriter:
    """The function that Spark calls for each micro-batch. Its steps are the exactly-once protocol (docs/adr/0003)."""

    def __init__(
        self,
        settings: Settings,
        contract: TableContract,
        lake: Lake,
        catalog: GlueCatalog,
        claim: Claim,
        on_batch: Callable[[LedgerEntry], None],
        records: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]],
        delta: DeltaLog | None = None,
    ) -> None:
        """`records`: as `jobs.stream.connector.Incoming` has it. `delta`: the processed table's log, where it is a
        Delta table; the ledger stays the one truth."""
        self._settings = settings
        self._contract = contract
        self._lake = lake
        self._catalog = catalog
        self._claim = claim
        self._on_batch = on_batch
        self._records = records
        self._delta = delta
        self._rejected = RejectedShare(settings.sink)
        self._layouts = LayoutFile(lake, "processed")
        self._layout: Layout | None = None  # as the batch before this one found it
        self.in_hand = threading.Lock()
        self.ended = False
        self.last_batch = -1
        self.error: Exception | None = None

    def __call__(self, rows: DataFrame, batch: int) -> None:
        with self.in_hand:
            if self.ended:
                # The query was stopped while this batch waited for the lock: it belongs to the next start.
                raise TransientError(f"batch {batch} was not begun: the query has been stopped")
            try:
                self._write(rows, batch)
            except Exception as error:
                self.error = error
                raise
            self.last_batch = batch

    def _write(self, rows: DataFrame, batch: int) -> None:
        query = query_name(rows.sparkSession)
        ledger = Ledger(self._lake, query)
        if ledger.entry(batch) is not None:
            log.info("batch %s-%d is in the ledger: skipped", query, batch)
            return
        started, clock = datetime.now(UTC), time.perf_counter()
        self._claim.hold()
        if self._claim.after_crash:
            leftovers = ledger.remove_leftovers(batch)
            if leftovers:
                log.warning("batch %s-%d: deleted %d files of a run that died", query, batch, len(leftovers))
            self._claim.cleared()
        seconds = {"clear": time.perf_counter() - clock}
        clock = time.perf_counter()
        layout = self._layout or (self._layouts.read() if self._delta is None else Layout("processed"))
        task = WriteTask(
            self._settings.lake,
            f"{query}-{batch}",
            self._contract,
            self._settings.sink,
            RecordParser,
            locations=layout.elsewhere,
            records=self._records,
        )
        report = written(rows, task)
        seconds["write"], clock = time.perf_counter() - clock, time.perf_counter()
        try:
            alarms = self._rejected.alarms(report, f"{query}-{batch}")
        except TooManyRejectedError:
            self._withdraw(report, f"{query}-{batch}")
            raise
        for alarm in alarms:
            log.warning("%s", alarm)
        partitions = {table: report.partitions(table) for table in TABLES}
        self._claim.hold()
        if self._delta is None:  # no partition of a Delta table ever moves
            self._layout = layout = settle(self._lake, self._layouts, report, "processed", self._claim.hold)
        registered = sum(
            self._catalog.register(table, folders, layout.elsewhere if table == layout.table else None)
            for table, folders in partitions.items()
            if self._delta is None or table != layout.table  # Delta's partitions stand in its log
        )
        seconds["register"] = time.perf_counter() - clock
        entry = LedgerEntry(
            query=query,
            batch=batch,
            stream=self._settings.stream.name,
            started_at=started,
            finished_at=datetime.now(UTC),
            report=report,
            partitions=partitions,
            seconds={stage: round(spent, 4) for stage, spent in seconds.items()},
            alarms=alarms,
            registered=registered,
        )
        self._claim.hold()
        ledger.commit(entry)
        if self._delta is not None:
            self._delta.add(entry)
        self._on_batch(entry)

    def _withdraw(self, report: TaskReport, batch: str) -> None:
        """Deletes the files of a batch that is refused: its partitions may be registered, and who reads them would
        count rows that are not final until the next start, which may be days away."""
        self._claim.hold()
        try:
            self._lake.delete(file.path for file in report.files)
        except MovementError as error:
            log.warning("batch %s: its files stay until the next start deletes them: %s", batch, error)


def query_name(spark: SparkSession) -> str:
    """`<query>` of files and ledger: the start of the query's id, which lives in its checkpoint.

    A new checkpoint has a new id, so its batch 0 is never taken for the batch 0 of an older one.
    """
    identity: str | None = spark.sparkContext.getLocalProperty("sql.streaming.queryId")
    if not identity:
        raise TerminalError("no streaming query is running on this thread: the query's id is unknown")
    return identity.replace("-", "")[:12]
