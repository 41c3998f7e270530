"""The job's metrics: writes a log line and publishes metrics for each batch, idle period and failure.

An error or a delay in publishing never affects the job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol

from jobs.lake.ledger import LedgerEntry
from jobs.metrics.cloudwatch import CloudWatchPublisher
from jobs.metrics.emf import EmfPublisher
from jobs.metrics.metrics import (
    Metric,
    batch_metrics,
    failure_metrics,
    idle_metrics,
    log_fields,
    plan_metrics,
    shard_metrics,
)
from jobs.settings.sections import ObserveSettings

log = logging.getLogger(__name__)


class Publisher(Protocol):
    """A destination of metrics. Its methods do not raise."""

    def publish(self, metrics: Sequence[Metric], at: datetime, properties: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JobMetrics:
    """The metrics of one run of the job: `with JobMetrics(settings.observe, stream) as metrics:`."""

    def __init__(
        self,
        settings: ObserveSettings,
        stream: str,
        *,
        publisher: Publisher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._publisher = publisher or _publisher(settings, stream)
        self._clock = clock
        self._shards_published_at = float("-inf")

    def __enter__(self) -> JobMetrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sends the metrics that are still queued."""
        if self._publisher is not None:
            self._publisher.close()

    @property
    def is_published(self) -> bool:
        """Whether the settings name a destination; if not, only log lines are written."""
        return self._publisher is not None

    def batch_committed(self, entry: LedgerEntry) -> None:
        """A batch became final."""
        log.info(
            "batch %s: %d records, %d rejected, %d with unknown fields, %.2f s",
            entry.name,
            entry.report.read,
            entry.report.quarantined,
            entry.report.rescued,
            entry.duration,
            extra={"fields": log_fields(entry)},
        )
        metrics = batch_metrics(entry)
        if entry.shard_ages and self._clock() - self._shards_published_at >= self._settings.interval_seconds:
            self._shards_published_at = self._clock()
            metrics += shard_metrics(entry, self._settings.max_shard_metrics)
        self._publish(metrics, entry.finished_at, {"query": entry.query, "batch": entry.batch})

    def planned(self, seconds: float) -> None:
        """Spark asked the source for the end of the next batch; the source took `seconds` to answer."""
        self._publish(plan_metrics(seconds))

    def idle(self) -> None:
        """There are no new records. Spark reports this about every 10 seconds."""
        self._publish(idle_metrics())

    def failed(self, error: Exception) -> None:
        """The query failed."""
        log.error(
            "the query failed: %s",
            type(error).__name__,
            extra={"fields": {"event": "failed", "error": type(error).__name__}},
        )
        self._publish(failure_metrics())

    def _publish(
        self, metrics: Sequence[Metric], at: datetime | None = None, properties: Mapping[str, Any] | None = None
    ) -> None:
        if self._publisher is not None:
            self._publisher.publish(metrics, at or datetime.now(UTC), properties or {})


def _publisher(settings: ObserveSettings, stream: str) -> Publisher | None:
    if settings.metrics == "emf":
        return EmfPublisher(settings.namespace, stream)
    if settings.metrics == "cloudwatch":
        return CloudWatchPublisher(settings.namespace, stream, settings.interval_seconds)
    return None
