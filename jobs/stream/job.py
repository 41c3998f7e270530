"""The streaming job. Kinesis → raw, processed, quarantine → Glue partitions → ledger.

On a cluster: `spark-submit jobs/stream_job.py --config conf/emr.yaml`; on a laptop `movement stream` runs the
same code. A batch: write the files, register their partitions, write the ledger entry. A batch that is in the
ledger is skipped whole; one that a crash left half written is cleared and written again from the same records.
"""

from __future__ import annotations

import argparse
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import stream_tables
from jobs.common.aws import client
from jobs.common.errors import MovementError, TransientError
from jobs.common.job_main import job_parser, run_job, stop_on_signals
from jobs.common.spark_errors import explained_failure
from jobs.common.spark_session import has_class, spark_session
from jobs.lake.delta import check_format
from jobs.lake.lease import Claim
from jobs.lake.ledger import LedgerEntry
from jobs.lake.store import lake_at
from jobs.lake.task_report import RunTotals
from jobs.metrics.publisher import Observer
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings
from jobs.stream.connector import read_stream
from jobs.stream.delta_commits import DeltaLog
from jobs.stream.micro_batch import BatchWriter
from jobs.stream.query_metrics import batch_figures, watched

log = logging.getLogger(__name__)

_QUERY = "movement-stream"
_CHECKPOINT_FILES = "spark.sql.streaming.checkpointFileManagerClass"
_ABORTABLE = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"
# So often in a row, without a batch in between, a query is started again that lost a connection of Spark's own.
_RESTARTS = 5
# How long a stop waits for Spark to note in its checkpoint that the batch in hand is done.
_COMMIT_SECONDS = 10.0


@dataclass
class StreamResult(RunTotals):
    """What one run of the job did, over all its batches."""

    batches: int = 0
    raw: int = 0

    def add(self, entry: LedgerEntry) -> None:
        """Takes in one batch."""
        self.batches += 1
        self.raw += entry.report.raw
        self.count(entry.report, entry.partitions["processed"])


def run(
    spark: SparkSession,
    settings: Settings,
    *,
    until_drained: bool = False,
    stop: threading.Event | None = None,
    on_batch: Callable[[LedgerEntry], None] = lambda _: None,
) -> StreamResult:
    """Runs the job until `stop` is set, or with `until_drained` until the stream's tip at the start is written.

    Ends after the batch in hand. Raises ConfigurationError, AwsAccessError or another MovementError with what
    went wrong and the remedy.
    """
    stop = stop or threading.Event()
    begun, result = time.perf_counter(), StreamResult()
    contract = load_contract(settings.contract)
    lake = lake_at(settings.lake)
    delta = DeltaLog(lake, contract) if settings.sink.format == "delta" else None
    if delta is not None:
        delta.check()
    else:
        check_format(lake, settings.sink.format)
    incoming = read_stream(spark, settings, until_drained=until_drained)
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)

    with Observer(settings.observe, settings.stream.name) as observer, Claim(lake, settings.checkpoint_name) as claim:

        def done(entry: LedgerEntry) -> None:
            result.add(entry)
            observer.batch(batch_figures(entry))
            on_batch(entry)

        lake.clear_drafts()
        # With the claim: a second job, which is refused, must not have changed the running one's tables.
        catalog.ensure_tables(stream_tables(contract, settings.sink.format))
        if delta is not None:
            delta.ensure()
            caught_up = delta.catch_up_all()
            log.info("%d final batches were not in the Delta log, and are now", caught_up)

        def attempt() -> BatchWriter:
            return BatchWriter(settings, contract, lake, catalog, claim, done, incoming.records, delta)

        with watched(spark, observer, _QUERY):
            _run_through(attempt, lambda writer: _run_query(incoming.rows, settings, writer, stop, until_drained), stop)
    result.seconds = round(time.perf_counter() - begun, 3)
    return result


def _run_through(
    new_writer: Callable[[], BatchWriter],
    run_query: Callable[[BatchWriter], None],
    stop: threading.Event,
    pause: Callable[[int], float] = lambda failures: random.uniform(0.5, 1.0) * 2**failures,  # noqa: S311 - jitter
) -> None:
    """Runs the query to its end; starts it anew where Spark lost a connection of its own (`failures`): it goes on from
    its checkpoint, as after any end. Raises what it died of otherwise, or again and again without a batch in between.
    """
    failures = 0
    while True:
        writer = new_writer()
        try:
            return run_query(writer)
        except TransientError as error:
            failures = failures + 1 if writer.last_batch < 0 else 1
            # What went wrong within a batch has been tried again already, and may have left files behind.
            if writer.error is not None or failures > _RESTARTS:
                raise
            log.warning("%s. The query goes on from its checkpoint", error)
            if stop.wait(pause(failures)):
                return None  # no batch is half done: one that Spark could not note any more is in the ledger


def _run_query(
    rows: DataFrame, settings: Settings, writer: BatchWriter, stop: threading.Event, until_drained: bool
) -> None:
    """Starts the query, waits for its end, and raises what it died of."""
    every = 0 if until_drained else settings.stream_job.trigger_seconds
    with _checkpoint_files(rows.sparkSession, settings.checkpoint):
        try:
            query = (
                rows.writeStream.queryName(_QUERY)
                .foreachBatch(writer)
                .option("checkpointLocation", settings.checkpoint)
                .trigger(processingTime=f"{int(every * 1000)} milliseconds")
                .start()
            )
        except Py4JJavaError as error:
            raise explained_failure(error, "the streaming query's start") from error
        try:
            _wait(query, stop, until_drained)
        except StreamingQueryException as error:
            raise _explained(error, writer) from error
        finally:
            failure = _end(query, writer)
    if failure is not None:
        raise _explained(failure, writer) from failure


@contextmanager
def _checkpoint_files(spark: SparkSession, checkpoint: str) -> Iterator[None]:
    """Within, a checkpoint's file on S3 is written in one PUT, without the rename that S3 does not have.

    That takes Spark's module hadoop-cloud. Where a platform lacks it, Spark's own way is kept: a copy and a delete,
    slower but as safe, for the claim keeps other writers away.
    """
    if not checkpoint.startswith("s3"):
        yield
        return
    if not has_class(spark, _ABORTABLE):
        log.warning("Spark has no %s here: the checkpoint is written by renaming, which takes longer", _ABORTABLE)
        yield
        return
    spark.conf.set(_CHECKPOINT_FILES, _ABORTABLE)
    try:
        yield
    finally:
        spark.conf.unset(_CHECKPOINT_FILES)


def _wait(query: StreamingQuery, stop: threading.Event, until_drained: bool) -> None:
    """Returns when the query has ended or drained, or `stop` is set. Raises what the query died of.

    What is waited for wakes it at once; of the other two it hears within 0.2 s.
    """
    drained = threading.Event()
    died: list[StreamingQueryException] = []

    def drain() -> None:
        try:
            query.processAllAvailable()
        except StreamingQueryException as error:
            died.append(error)
        finally:
            drained.set()

    if until_drained:
        threading.Thread(target=drain, name="drain", daemon=True).start()
    awaited = drained if until_drained else stop
    while query.isActive and not awaited.wait(0.2) and not stop.is_set():
        pass
    if died and not stop.is_set():
        raise died[0]


def _end(query: StreamingQuery, writer: BatchWriter) -> Exception | None:
    """Stops the query between two batches: waits for the one in hand and for its note in the checkpoint.

    Returns what batch or query had died of by then, whoever had asked for the stop. What Spark reports after our own
    `query.stop()`, such as a batch that was not begun, is no failure.
    """
    with writer.in_hand:
        deadline = time.monotonic() + _COMMIT_SECONDS
        while query.isActive and time.monotonic() < deadline:
            progress = query.lastProgress
            if writer.last_batch < 0 or (progress is not None and int(progress["batchId"]) >= writer.last_batch):
                break
            time.sleep(0.05)
        failure: Exception | None = writer.error or query.exception()
        writer.ended = True
        if query.isActive:
            query.stop()
    return failure


def _explained(error: Exception, writer: BatchWriter) -> MovementError:
    """What the query died of, in our words."""
    return writer.error if isinstance(writer.error, MovementError) else explained_failure(error, "the streaming query")


def main(arguments: list[str] | None = None) -> int:
    """For spark-submit and Glue; the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument("--until-drained", action="store_true", help="end at the stream's tip of the start")
    return run_job(parser, _work, arguments)


def _work(settings: Settings, options: argparse.Namespace) -> StreamResult:
    stop = threading.Event()
    spark = spark_session(settings, "movement-stream")
    stop_on_signals(stop)  # after Spark, which puts a handler of its own in place
    return run(spark, settings, until_drained=options.until_drained, stop=stop)
