"""The exactly-once protocol: what the streaming job does with one micro-batch (docs/adr/0003).

1. A batch in the ledger is final: skip it. Its records must be the ones that Spark has planned.
2. Delete the files that a crashed run of the batch left behind.
3. Write raw, processed and quarantine files.
4. Check the share of rejected records; a rejected batch is withdrawn.
5. Register the new partitions in Glue.
6. Write the ledger entry. From here on the batch is final.
7. With `sink.format: delta`, commit the batch to the Delta log.

A crash before step 6 leaves a batch without an entry: Spark repeats it with the same records. A crash after step 6
leaves a final batch: Spark repeats it and step 1 skips it. A missing Delta commit is made up for at the next start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession

from jobs.catalog.glue import GlueCatalog
from jobs.common.errors import BatchMismatchError, MovementError, TerminalError, TooManyRejectedError, TransientError
from jobs.lake.lease import Lease
from jobs.lake.ledger import TABLES, Ledger, LedgerEntry
from jobs.lake.partition_locations import Layout, LayoutFile, copy_to_live_locations, partitions_in_lake
from jobs.lake.store import Lake
from jobs.lake.task_report import TaskReport
from jobs.schema.table import TableContract
from jobs.settings.settings import Settings
from jobs.stream.checkpoint import Checkpoint
from jobs.stream.delta_commits import DeltaCommitter
from jobs.stream.reject_rate import RejectRateMonitor
from jobs.stream.resume import same_records
from jobs.write.merge_small_files import write_batch
from jobs.write.new_partitions import KnownPartitions, PartitionLimit, remove_held
from jobs.write.new_partitions import alarm as too_many_partitions
from jobs.write.task import ReadRecords, WriteTask

log = logging.getLogger(__name__)


class MicroBatchWriter:
    """The function that Spark's `foreachBatch` calls with each micro-batch.

    busy         held while a batch is written; `stop_query` holds it to stop between two batches
    closed       refuse further batches, because the query is being stopped
    last_batch   number of the last batch that was written or skipped; -1 before the first
    error        the error that a batch failed with
    """

    def __init__(
        self,
        settings: Settings,
        contract: TableContract,
        lake: Lake,
        catalog: GlueCatalog,
        lease: Lease,
        on_batch: Callable[[LedgerEntry], None],
        records: ReadRecords | None,
        checkpoint: Checkpoint,
        delta: DeltaCommitter | None = None,
    ) -> None:
        """`records`: see `WriteTask`. `delta`: None for plain Parquet."""
        self._settings = settings
        self._contract = contract
        self._lake = lake
        self._catalog = catalog
        self._lease = lease
        self._on_batch = on_batch
        self._records = records
        self._checkpoint = checkpoint
        self._delta = delta
        self._reject_rate = RejectRateMonitor(settings.sink)
        self._layouts = LayoutFile(lake, "processed")
        self._layout: Layout | None = None  # as of the previous batch
        # The partitions of the processed table before the batch; None before the first one, and without a limit.
        self._known: KnownPartitions | None = None
        self.busy = threading.Lock()
        self.closed = False
        self.last_batch = -1
        self.error: Exception | None = None

    def __call__(self, rows: DataFrame, batch: int) -> None:
        with self.busy:
            if self.closed:
                # The query was stopped while this batch waited for the lock. The next start writes it.
                raise TransientError(f"batch {batch} was not started: the query has been stopped")
            try:
                self.write(query_name(rows.sparkSession), batch, lambda name: self._write_files(rows, name))
            except Exception as error:
                self.error = error
                raise
            self.last_batch = batch

    def write(self, query: str, batch: int, write_files: Callable[[str], TaskReport]) -> None:
        """The steps of the protocol, in order.

        `write_files` writes the batch's files, whose names start with its argument, and returns the batch's report.
        """
        name = f"{query}-{batch}"
        ledger = Ledger(self._lake, query)
        offset = self._checkpoint.offset(batch)
        final = ledger.entry(batch)
        if final is not None:
            # `resume` has compared them before the query's start: this is the last line of defence.
            if not same_records(final, offset, self._checkpoint.offset(batch - 1)):
                raise BatchMismatchError(
                    f"batch {name} is in the ledger of {self._lake.uri} with other records than the checkpoint "
                    f"{self._checkpoint.uri} plans for it: somebody has changed the checkpoint while the job runs. "
                    "Nothing was written or skipped; start the job again"
                )
            log.info("batch %s is in the ledger: skipped", name)
            return
        if offset is None:
            raise TerminalError(
                f"{self._checkpoint.uri}/offsets/{batch}, which Spark has just written, is missing or of a form that "
                "this release does not read: the ledger could not tell where the batch ends. Nothing was written. "
                "Give stream_job.checkpoint a folder that this job and Spark both reach, and use a supported Spark"
            )
        started, seconds = datetime.now(UTC), dict[str, float]()
        with _measured(seconds, "clear"):
            self._delete_leftovers(ledger, batch)
        with _measured(seconds, "write"):
            report = write_files(name)
        alarms = self._check_reject_rate(report, name) + self._check_new_partitions(report, name)
        with _measured(seconds, "register"):
            registered = self._register_partitions(report)
        alarms += [text for table in TABLES for text in self._catalog.refused(table, report.partitions(table))]
        entry = LedgerEntry(
            query=query,
            batch=batch,
            stream=self._settings.stream.name,
            started_at=started,
            finished_at=datetime.now(UTC),
            report=report,
            partitions={table: report.partitions(table) for table in TABLES},
            seconds=seconds,
            alarms=alarms,
            registered=registered,
            offset=offset,
        )
        self._lease.check()
        ledger.commit(entry)
        if self._known is not None:
            self._known.add(report.partitions("processed"))
        if self._delta is not None:
            self._delta.commit(entry)
        self._on_batch(entry)

    def _delete_leftovers(self, ledger: Ledger, batch: int) -> None:
        """Deletes the files of a crashed run. Only the first batch after a crash can have any."""
        self._lease.check()
        if self._lease.after_crash:
            deleted = ledger.remove_leftovers(batch)
            remove_held(self._lake, ledger.query)
            if deleted:
                log.warning("batch %s-%d: deleted %d files of a run that died", ledger.query, batch, len(deleted))
            self._lease.mark_clean()

    def _write_files(self, rows: DataFrame, name: str) -> TaskReport:
        # A partition of a Delta table never moves.
        layout = self._layout or (self._layouts.read() if self._delta is None else Layout("processed"))
        task = WriteTask(
            self._settings.lake,
            name,
            self._contract,
            self._settings.sink,
            locations=layout.relocated,
            records=self._records,
            limit=self._partition_limit(layout),
        )
        return write_batch(rows, task)

    def _partition_limit(self, layout: Layout) -> PartitionLimit | None:
        """The limit of new partitions; None if the settings have none.

        What is known comes from the lake's files and not from the catalog: a batch's attempt that died may have
        registered partitions, but its files are deleted before the batch is written again.
        """
        limit = self._settings.sink.max_new_partitions_per_batch
        if not limit:
            return None
        if self._known is None:
            found = partitions_in_lake(self._lake, "processed", self._contract.partition_by)
            self._known = KnownPartitions([*found, *layout.relocated])
        return PartitionLimit(self._known, limit)

    def _check_new_partitions(self, report: TaskReport, name: str) -> list[str]:
        """The batch's alarm if it has too many new partitions. The ledger does not store their names."""
        alarms = too_many_partitions(report, name, self._settings.sink.max_new_partitions_per_batch)
        report.new_partitions = None
        for alarm in alarms:
            log.warning("%s", alarm)
        return alarms

    def _check_reject_rate(self, report: TaskReport, name: str) -> list[str]:
        """The batch's alarms. If the job has to stop, deletes the batch's files and raises TooManyRejectedError.

        Without that, readers would see rows that are not final in partitions that earlier batches registered, until the
        next start, which may be days away.
        """
        try:
            alarms = self._reject_rate.check(report, name)
        except TooManyRejectedError:
            self._lease.check()
            try:
                self._lake.delete(file.path for file in report.files)
            except MovementError as error:
                log.warning("batch %s: its files remain until the next start deletes them: %s", name, error)
            raise
        for alarm in alarms:
            log.warning("%s", alarm)
        return alarms

    def _register_partitions(self, report: TaskReport) -> int:
        """Registers the batch's partitions in Glue; returns how many of them were new to this run.

        If partitions have moved since the files were written, moves the files first.
        """
        self._lease.check()
        if self._delta is not None:
            # The Delta log holds the partitions of `processed`.
            return sum(self._catalog.register(table, report.partitions(table)) for table in ("raw", "quarantine"))
        self._layout = layout = copy_to_live_locations(
            self._lake, self._layouts, report, "processed", self._lease.check
        )
        return sum(
            self._catalog.register(table, report.partitions(table), layout.relocated if table == layout.table else None)
            for table in TABLES
        )


@contextmanager
def _measured(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the duration of the `with` block to `seconds`."""
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 4)


def query_name(spark: SparkSession) -> str:
    """`<query>` of file names and ledger: the first 12 hexadecimal digits of the query's id.

    The id is stored in the checkpoint. A new checkpoint has a new id, so its batch 0 is never confused with the batch 0
    of an older checkpoint.
    """
    query_id: str | None = spark.sparkContext.getLocalProperty("sql.streaming.queryId")
    if not query_id:
        raise TerminalError("no streaming query is running on this thread: the query's id is unknown")
    return query_id.replace("-", "")[:12]
