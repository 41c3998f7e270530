"""Metrics from Spark's events of the streaming query: planning time, idle periods and failure.

The figures of a batch come from its ledger entry instead: it exists even if Spark's event is late or lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryListener

from jobs.metrics.publisher import JobMetrics

log = logging.getLogger(__name__)


@contextmanager
def observe_query(spark: SparkSession, metrics: JobMetrics, query: str) -> Iterator[None]:
    """Reports the events of the query with this name while the `with` block runs, and an exception that ends it."""
    if not metrics.is_published:
        yield
        return
    listener = QueryListener(metrics, query)
    spark.streams.addListener(listener)
    try:
        yield
    except Exception as error:
        metrics.failed(error)
        raise
    finally:
        spark.streams.removeListener(listener)


class QueryListener(StreamingQueryListener):
    """Reports the events of the query with this name. Spark calls it on a thread of its own."""

    def __init__(self, metrics: JobMetrics, query: str) -> None:
        self._metrics = metrics
        self._query = query
        self._run_id: str | None = None

    def onQueryStarted(self, event: Any) -> None:
        if event.name == self._query:
            self._run_id = str(event.runId)

    def onQueryProgress(self, event: Any) -> None:
        progress = event.progress
        if str(progress.runId) != self._run_id:
            return
        milliseconds = progress.durationMs.get("latestOffset")
        if milliseconds is not None and progress.numInputRows:
            self._metrics.planned(milliseconds / 1000)

    def onQueryIdle(self, event: Any) -> None:
        if str(event.runId) == self._run_id:
            self._metrics.idle()

    def onQueryTerminated(self, event: Any) -> None:
        if str(event.runId) == self._run_id:
            log.info("the query ended%s", " with an error" if event.exception else "")
