"""How the streaming job waits for the stream's tip, without Spark."""

from __future__ import annotations

import threading
from typing import cast

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql.streaming import StreamingQuery

from jobs.stream_job import _wait


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
