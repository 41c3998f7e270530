"""The life of the streaming query: waiting, stopping, restarting; and how Spark writes its checkpoint."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import cast

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession
from pyspark.sql.streaming import StreamingQuery

from jobs.common.errors import TerminalError, TransientError
from jobs.common.spark_errors import explained_failure
from jobs.stream import query as query_module
from jobs.stream.connector import SOURCE_ERRORS
from jobs.stream.micro_batch import MicroBatchWriter
from jobs.stream.query import (
    ABORTABLE_FILE_MANAGER,
    CHECKPOINT_FILE_MANAGER,
    RESTARTS,
    atomic_checkpoint_files,
    run_with_restarts,
    stop_query,
    wait_for_end,
)


class DrainingQuery:
    """A query that drains until the test says how draining ends."""

    isActive = True

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: StreamingQueryException | None = None

    def processAllAvailable(self) -> None:
        assert self.ended.wait(60)
        if self.error is not None:
            raise self.error


def test_the_wait_ends_when_the_stream_is_drained_or_a_stop_is_requested_or_the_query_failed() -> None:
    query, stop = DrainingQuery(), threading.Event()
    query.ended.set()
    wait_for_end(cast(StreamingQuery, query), stop, until_drained=True)

    query = DrainingQuery()
    stop.set()
    wait_for_end(cast(StreamingQuery, query), stop, until_drained=True)
    query.ended.set()

    query, stop = DrainingQuery(), threading.Event()
    query.error = StreamingQueryException("it died")
    query.ended.set()
    with pytest.raises(StreamingQueryException, match="it died"):
        wait_for_end(cast(StreamingQuery, query), stop, until_drained=True)


class EndingQuery:
    """A query that failed with `died` before it is stopped, or that has the error `after` once it is stopped."""

    lastProgress = None

    def __init__(self, died: Exception | None = None, after: Exception | None = None) -> None:
        self.died, self.after = died, after
        self.isActive = died is None

    def exception(self) -> Exception | None:
        return self.died

    def stop(self) -> None:
        self.isActive, self.died = False, self.after


@pytest.mark.parametrize(
    ("query", "batch_error", "expected"),
    [
        (EndingQuery(), None, None),
        (EndingQuery(after=StreamingQueryException("batch 3 was not started")), None, None),
        (EndingQuery(died=StreamingQueryException("its checkpoint is gone")), None, "its checkpoint is gone"),
        # Spark may notice a moment later that the query has failed.
        (EndingQuery(), RuntimeError("the executors are gone"), "the executors are gone"),
    ],
)
def test_an_error_before_the_stop_is_a_failure_and_one_caused_by_the_stop_is_not(
    query: EndingQuery, batch_error: Exception | None, expected: str | None
) -> None:
    writer = SimpleNamespace(busy=threading.Lock(), last_batch=-1, closed=False, error=batch_error)
    failure = stop_query(cast(StreamingQuery, query), cast(MicroBatchWriter, writer))
    assert (failure and str(failure)) == expected
    assert writer.closed
    assert not query.isActive


class Runs:
    """Runs of a query, one after the other: each completes a number of batches and then fails with its error, if any.

    `error` is the error of a batch. `stop_in_run`: a stop is requested while a query runs.
    """

    def __init__(self, *runs: tuple[int, Exception | None], error: Exception | None = None) -> None:
        self.remaining = list(runs)
        self.error = error
        self.started = 0
        self.stop = threading.Event()
        self.stop_in_run = False

    def writer(self) -> MicroBatchWriter:
        return cast(MicroBatchWriter, SimpleNamespace(last_batch=-1, error=None))

    def query(self, writer: MicroBatchWriter) -> None:
        self.started += 1
        if self.stop_in_run:
            self.stop.set()
        batches, error = self.remaining.pop(0)
        writer.last_batch, writer.error = batches - 1, self.error
        if error is not None:
            raise error

    def run_all(self) -> None:
        run_with_restarts(self.writer, self.query, self.stop, pause=lambda failures: 0.0)


CONNECTION_LOST = TransientError("the streaming query failed: java.net.SocketException: Connection reset")


def test_a_query_is_restarted_after_spark_lost_a_connection() -> None:
    runs = Runs((0, CONNECTION_LOST), (0, CONNECTION_LOST), (3, None))
    runs.run_all()
    assert runs.started == 3


def test_restarts_are_unlimited_while_batches_complete_between_the_failures() -> None:
    runs = Runs(*[(1, CONNECTION_LOST)] * (4 * RESTARTS.attempts), (1, None))
    runs.run_all()
    assert runs.remaining == []


def test_the_job_fails_after_the_maximum_of_restarts_without_a_batch() -> None:
    runs = Runs(*[(0, CONNECTION_LOST)] * 100)
    with pytest.raises(TransientError, match="Connection reset"):
        runs.run_all()
    assert runs.started == RESTARTS.attempts


@pytest.mark.parametrize(
    ("error", "of_batch"),
    [(TerminalError("no such bucket"), None), (CONNECTION_LOST, CONNECTION_LOST), (ValueError("a bug"), None)],
)
def test_any_other_error_is_raised_at_once(error: Exception, of_batch: Exception | None) -> None:
    runs = Runs((2, error), (1, None), error=of_batch)
    with pytest.raises(type(error), match=str(error)):
        runs.run_all()
    assert runs.started == 1


def test_a_stop_ends_the_job_between_two_runs_unless_a_batch_failed() -> None:
    runs = Runs((1, CONNECTION_LOST), (1, None))
    runs.stop_in_run = True
    runs.run_all()
    assert runs.started == 1
    runs = Runs((1, CONNECTION_LOST), error=CONNECTION_LOST)
    runs.stop_in_run = True
    with pytest.raises(TransientError):
        runs.run_all()


def test_after_a_stop_during_sparks_start_no_query_is_started() -> None:
    runs = Runs((1, None))
    runs.stop.set()
    runs.run_all()
    assert runs.started == 0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("java.net.SocketException: Connection reset\n\tat x", TransientError),
        (
            "An error occurred while calling o1.start.\n: java.io.UncheckedIOException: java.net.SocketException",
            TransientError,
        ),
        ("SdkClientException: Could not parse XML response.", TransientError),
        ("org.apache.http.ConnectionClosedException: Premature end of Content-Length", TransientError),
        ("java.io.FileNotFoundException: no such file", TerminalError),
        ("jobs.common.errors.BatchMismatchError: java.net. is in the text", TerminalError),
        ("spark_kinesis.errors.DataLossError: java.net. is in the text", TerminalError),
        ("spark_kinesis.errors.TransientSourceError: stream s: read records: reset", TransientError),
        ("spark_kinesis.errors.ThrottledError: stream s: read records: rate exceeded", TransientError),
    ],
)
def test_a_lost_connection_is_transient_and_other_failures_are_terminal(text: str, kind: type[Exception]) -> None:
    assert type(explained_failure(RuntimeError(text), "the query", SOURCE_ERRORS)) is kind


@pytest.mark.spark
def test_a_platform_without_hadoop_cloud_writes_checkpoints_sparks_own_way(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with atomic_checkpoint_files(spark, "s3://b/c"):
        assert spark.conf.get(CHECKPOINT_FILE_MANAGER) == ABORTABLE_FILE_MANAGER
    monkeypatch.setattr(query_module, "ABORTABLE_FILE_MANAGER", "no.such.FileManager")

    with caplog.at_level(logging.WARNING), atomic_checkpoint_files(spark, "s3://b/c"):
        assert spark.conf.get(CHECKPOINT_FILE_MANAGER, None) is None
    assert "Spark has no class no.such.FileManager" in caplog.text
