"""Spark's own events of the query: how long planning took, and that a stream is idle.

What a batch did comes from the ledger entry instead: it is there even where Spark's event is late or lost.
"""

from __future__ import annotations

import logging
from typing import Any

from pyspark.sql.streaming import StreamingQueryListener

from jobs.metrics.publisher import Observer

log = logging.getLogger(__name__)


class QueryListener(StreamingQueryListener):  # type: ignore[misc]
    """Hands the events of one query, by its name, on to the observer. Called on a thread of Spark's."""

    def __init__(self, observer: Observer, query: str) -> None:
        self._observer = observer
        self._query = query
        self._run: str | None = None

    def onQueryStarted(self, event: Any) -> None:
        if event.name == self._query:
            self._run = str(event.runId)

    def onQueryProgress(self, event: Any) -> None:
        progress = event.progress
        if str(progress.runId) != self._run:
            return
        spent = progress.durationMs.get("latestOffset")
        if spent is not None and progress.numInputRows:
            self._observer.planned(spent / 1000)

    def onQueryIdle(self, event: Any) -> None:
        if str(event.runId) == self._run:
            self._observer.idle()

    def onQueryTerminated(self, event: Any) -> None:
        if str(event.runId) == self._run:
            log.info("the query ended%s", " with an error" if event.exception else "")
