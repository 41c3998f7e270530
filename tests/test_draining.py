"""How the streaming job waits for the stream's tip and ends its query, without Spark."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import cast

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql.streaming import StreamingQuery

from jobs.batch_writer import BatchWriter
from jobs.stream_job import _end, _wait


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
