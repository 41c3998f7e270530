"""The job's reporter: told of each batch, of idleness and of failure, it writes the log line and publishes metrics.

Nothing that it does can fail or hold up the job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol

from jobs.metrics.cloudwatch import CloudWatchPublisher
from jobs.metrics.emf import EmfPublisher
from jobs.metrics.metrics import (
    BatchFigures,
    Metric,
    batch_metrics,
    failure_metrics,
    idle_metrics,
    plan_metrics,
    shard_metrics,
)
from jobs.settings.sections import ObserveSettings

log = logging.getLogger(__name__)


class Publisher(Protocol):
    """Where metrics go. Neither call raises."""

    def publish(self, metrics: Sequence[Metric], moment: datetime, properties: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Observer:
    """`with Observer(settings.observe, stream) as observer:` around the query's life."""

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
        self._shards_told = float("-inf")

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Metrics that wait are sent."""
        if self._publisher is not None:
            self._publisher.close()

    @property
    def publishes(self) -> bool:
        return self._publisher is not None

    def batch(self, figures: BatchFigures) -> None:
        """A batch is final."""
        log.info(
            "batch %s-%d: %d records, %d rejected, %d with unknown fields, %.2f s",
            figures.query,
            figures.batch,
            figures.read,
            figures.quarantined,
            figures.rescued,
            figures.seconds,
            extra={"fields": figures.as_line()},
        )
        metrics = batch_metrics(figures)
        if figures.ages and self._clock() - self._shards_told >= self._settings.interval_seconds:
            self._shards_told = self._clock()
            metrics += shard_metrics(figures, self._settings.max_shard_metrics)
        self._publish(metrics, figures.finished_at, {"query": figures.query, "batch": figures.batch})

    def planned(self, seconds: float) -> None:
        """Spark has asked the source where the next batch ends, which took so long."""
        self._publish(plan_metrics(seconds))

    def idle(self) -> None:
        """There is nothing to read; said about every 10 seconds while it is so."""
        self._publish(idle_metrics())

    def failed(self, error: Exception) -> None:
        """The query has died."""
        log.error(
            "the query failed: %s",
            type(error).__name__,
            extra={"fields": {"event": "failed", "error": type(error).__name__}},
        )
        self._publish(failure_metrics())

    def _publish(
        self, metrics: Sequence[Metric], moment: datetime | None = None, properties: Mapping[str, Any] | None = None
    ) -> None:
        if self._publisher is not None:
            self._publisher.publish(metrics, moment or datetime.now(UTC), properties or {})


def _publisher(settings: ObserveSettings, stream: str) -> Publisher | None:
    if settings.metrics == "emf":
        return EmfPublisher(settings.namespace, stream)
    if settings.metrics == "cloudwatch":
        return CloudWatchPublisher(settings.namespace, stream, settings.interval_seconds)
    return None
