"""The life of the streaming query: start, wait, stop between two batches, restart after a lost connection.

Input: the source's rows and the function that writes a micro-batch. The query's offsets are in Spark's checkpoint, so a
new query continues where the previous one ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException, StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from jobs.common.errors import MovementError, TransientError
from jobs.common.retry import RetryPolicy
from jobs.common.spark_errors import explained_failure
from jobs.common.spark_session import has_class
from jobs.settings.settings import Settings
from jobs.stream.connector import SOURCE_ERRORS
from jobs.stream.micro_batch import MicroBatchWriter

log = logging.getLogger(__name__)

QUERY_NAME = "movement-stream"
# Consecutive attempts without a batch in between, before the job fails.
RESTARTS = RetryPolicy(attempts=6, first_pause=2.0, longest_pause=60.0)
# Maximum time that a stop waits for Spark to commit the last batch in its checkpoint.
_COMMIT_SECONDS = 10.0
CHECKPOINT_FILE_MANAGER = "spark.sql.streaming.checkpointFileManagerClass"
ABORTABLE_FILE_MANAGER = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"


def run_with_restarts(
    new_writer: Callable[[], MicroBatchWriter],
    run_query: Callable[[MicroBatchWriter], None],
    stop: threading.Event,
    pause: Callable[[int], float] = RESTARTS.pause,
) -> None:
    """Runs the query until it ends. Restarts it from its checkpoint if Spark lost a connection between two batches.

    Does nothing if `stop` is set. Raises every other error, an error within a batch, and the last of
    `RESTARTS.attempts` consecutive failures.
    """
    failures = 0
    while not stop.is_set():
        writer = new_writer()
        try:
            run_query(writer)
            return
        except TransientError as error:
            failures = failures + 1 if writer.last_batch < 0 else 1
            # A failed batch has been retried already, and may have left files that only a new start deletes.
            if writer.error is not None or failures >= RESTARTS.attempts:
                raise
            log.warning("%s. The query continues from its checkpoint", error)
            stop.wait(pause(failures))  # every batch is either final or not started


def run_query(
    rows: DataFrame, settings: Settings, writer: MicroBatchWriter, stop: threading.Event, until_drained: bool
) -> None:
    """Runs the query once: until `stop` is set, or with `until_drained` until all available records are written.

    Raises the error that the query, or a batch, failed with.
    """
    seconds = 0 if until_drained else settings.stream_job.trigger_seconds
    with atomic_checkpoint_files(rows.sparkSession, settings.checkpoint):
        try:
            query = (
                rows.writeStream.queryName(QUERY_NAME)
                .foreachBatch(writer)
                .option("checkpointLocation", settings.checkpoint)
                .trigger(processingTime=f"{int(seconds * 1000)} milliseconds")
                .start()
            )
        except (Py4JJavaError, PySparkException) as error:
            raise explained_failure(error, "the streaming query's start", SOURCE_ERRORS) from error
        try:
            wait_for_end(query, stop, until_drained)
        except StreamingQueryException as error:
            raise _explained(error, writer) from error
        finally:
            failure = stop_query(query, writer)
    if failure is not None:
        raise _explained(failure, writer) from failure


def wait_for_end(query: StreamingQuery, stop: threading.Event, until_drained: bool) -> None:
    """Waits until the query has ended, or `stop` is set, or with `until_drained` all available records are written.

    Raises the error that the query failed with, unless `stop` is set.
    """
    drained = threading.Event()
    errors: list[StreamingQueryException] = []

    def drain() -> None:
        try:
            query.processAllAvailable()
        except StreamingQueryException as error:
            errors.append(error)
        finally:
            drained.set()

    if until_drained:
        threading.Thread(target=drain, name="drain", daemon=True).start()
    # Returns from this event at once; checks the other conditions every 0.2 s.
    awaited = drained if until_drained else stop
    while query.isActive and not awaited.wait(0.2) and not stop.is_set():
        pass
    if errors and not stop.is_set():
        raise errors[0]


def stop_query(query: StreamingQuery, writer: MicroBatchWriter) -> Exception | None:
    """Stops the query between two batches, once Spark has committed the last one in its checkpoint.

    Returns the error that a batch or the query had failed with before the stop. Errors caused by the stop, such as that
    of a batch that `writer` refused to start, are ignored.
    """
    with writer.busy:
        deadline = time.monotonic() + _COMMIT_SECONDS
        while query.isActive and time.monotonic() < deadline:
            progress = query.lastProgress
            if writer.last_batch < 0 or (progress is not None and int(progress["batchId"]) >= writer.last_batch):
                break
            time.sleep(0.05)
        failure: Exception | None = writer.error or query.exception()
        writer.closed = True
        if query.isActive:
            query.stop()
    return failure


def _explained(error: Exception, writer: MicroBatchWriter) -> MovementError:
    """The error of the batch if it is one of ours, otherwise Spark's error translated."""
    if isinstance(writer.error, MovementError):
        return writer.error
    return explained_failure(error, "the streaming query", SOURCE_ERRORS)


@contextmanager
def atomic_checkpoint_files(spark: SparkSession, checkpoint: str) -> Iterator[None]:
    """Has Spark write a checkpoint's file on S3 with one PUT, because S3 has no rename.

    Needs Spark's module hadoop-cloud. Without it, Spark copies and deletes each file: slower, but as safe, because the
    lease keeps other writers away.
    """
    if not checkpoint.startswith("s3"):
        yield
        return
    if not has_class(spark, ABORTABLE_FILE_MANAGER):
        log.warning(
            "Spark has no class %s: the checkpoint is written by renaming, which is slower", ABORTABLE_FILE_MANAGER
        )
        yield
        return
    spark.conf.set(CHECKPOINT_FILE_MANAGER, ABORTABLE_FILE_MANAGER)
    try:
        yield
    finally:
        spark.conf.unset(CHECKPOINT_FILE_MANAGER)
