"""How the streaming job waits for the stream's tip and ends its query, without Spark."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import cast

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql.streaming import StreamingQuery

from jobs.common.errors import TerminalError, TransientError
from jobs.common.spark_errors import explained_failure
from jobs.stream.job import _RESTARTS, _end, _run_through, _wait
from jobs.stream.micro_batch import BatchWriter


class DrainingQuery:
    """What `_wait` sees of a query: one that goes on until the test says how draining ends."""

    isActive = True

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: StreamingQueryException | None = None

    def processAllAvailable(self) -> None:
        assert self.ended.wait(60)
        if self.error is not None:
            raise self.error


def test_a_wait_for_the_tip_ends_when_it_is_reached_or_a_stop_is_asked_for_or_the_query_died() -> None:
    query, stop = DrainingQuery(), threading.Event()
    query.ended.set()
    _wait(cast(StreamingQuery, query), stop, until_drained=True)

    query = DrainingQuery()
    stop.set()
    _wait(cast(StreamingQuery, query), stop, until_drained=True)
    query.ended.set()

    query, stop = DrainingQuery(), threading.Event()
    query.error = StreamingQueryException("it died")
    query.ended.set()
    with pytest.raises(StreamingQueryException, match="it died"):
        _wait(cast(StreamingQuery, query), stop, until_drained=True)


class EndingQuery:
    """What `_end` sees of a query, which has died of `died` before, and calls `after` a failure once it is stopped."""

    lastProgress = None

    def __init__(self, died: Exception | None = None, after: Exception | None = None) -> None:
        self.died, self.after = died, after
        self.isActive = died is None

    def exception(self) -> Exception | None:
        return self.died

    def stop(self) -> None:
        self.isActive, self.died = False, self.after


@pytest.mark.parametrize(
    ("query", "batch_error", "told"),
    [
        (EndingQuery(), None, None),
        (EndingQuery(after=StreamingQueryException("batch 3 was not begun")), None, None),
        (EndingQuery(died=StreamingQueryException("its checkpoint is gone")), None, "its checkpoint is gone"),
        # Spark may take a moment to note that the query is dead.
        (EndingQuery(), RuntimeError("the executors are gone"), "the executors are gone"),
    ],
)
def test_what_died_before_it_was_stopped_is_a_failure_and_what_our_stop_cuts_off_is_none(
    query: EndingQuery, batch_error: Exception | None, told: str | None
) -> None:
    writer = SimpleNamespace(in_hand=threading.Lock(), last_batch=-1, ended=False, error=batch_error)
    failure = _end(cast(StreamingQuery, query), cast(BatchWriter, writer))
    assert (failure and str(failure)) == told
    assert writer.ended
    assert not query.isActive


class Runs:
    """The runs of a query, one after the other: each does so many batches and then dies of its error, if it has one.

    `error` is what a batch itself died of.
    """

    def __init__(self, *runs: tuple[int, Exception | None], error: Exception | None = None) -> None:
        self.left = list(runs)
        self.error = error
        self.begun = 0

    def writer(self) -> BatchWriter:
        return cast(BatchWriter, SimpleNamespace(last_batch=-1, error=None))

    def query(self, writer: BatchWriter) -> None:
        self.begun += 1
        batches, error = self.left.pop(0)
        writer.last_batch, writer.error = batches - 1, self.error
        if error is not None:
            raise error

    def through(self, stop: threading.Event | None = None) -> None:
        _run_through(self.writer, self.query, stop or threading.Event(), pause=lambda failures: 0.0)


BROKE = TransientError("the streaming query failed: java.net.SocketException: Connection reset")


def test_a_query_that_lost_a_connection_of_sparks_own_is_started_again() -> None:
    runs = Runs((0, BROKE), (0, BROKE), (3, None))
    runs.through()
    assert runs.begun == 3


def test_a_query_that_gets_on_between_its_failures_is_started_as_often_as_it_takes() -> None:
    runs = Runs(*[(1, BROKE)] * (4 * _RESTARTS), (1, None))
    runs.through()
    assert runs.left == []


def test_a_query_that_does_not_get_on_is_given_up() -> None:
    runs = Runs(*[(0, BROKE)] * 100)
    with pytest.raises(TransientError, match="Connection reset"):
        runs.through()
    assert runs.begun == _RESTARTS + 1


@pytest.mark.parametrize(
    ("error", "of_batch"), [(TerminalError("no such bucket"), None), (BROKE, BROKE), (ValueError("a bug"), None)]
)
def test_what_a_query_dies_of_otherwise_is_told_at_once(error: Exception, of_batch: Exception | None) -> None:
    runs = Runs((2, error), (1, None), error=of_batch)
    with pytest.raises(type(error), match=str(error)):
        runs.through()
    assert runs.begun == 1


def test_a_stop_that_is_asked_for_ends_the_job_between_two_runs_unless_a_batch_failed() -> None:
    stop = threading.Event()
    stop.set()
    runs = Runs((1, BROKE), (1, None))
    runs.through(stop)
    assert runs.begun == 1
    with pytest.raises(TransientError):
        Runs((1, BROKE), error=BROKE).through(stop)


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
        ("jobs.common.errors.DataLossError: java.net. is in the text", TerminalError),
    ],
)
def test_a_connection_that_broke_is_told_from_what_needs_somebody(text: str, kind: type[Exception]) -> None:
    assert type(explained_failure(RuntimeError(text), "the query")) is kind
