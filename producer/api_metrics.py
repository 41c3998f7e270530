"""The counters of the HTTP API, for `GET /metrics` in Prometheus's text format. `api` updates them."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from producer.api_batcher import ApiBatcher

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _QueueCollector(Collector):
    """Reads the queue's counts at each scrape."""

    def __init__(self, batcher: ApiBatcher) -> None:
        self._batcher = batcher

    def collect(self) -> list[CounterMetricFamily | GaugeMetricFamily]:
        """One metric family for each count."""
        counts = self._batcher.queue.counts
        families: list[CounterMetricFamily | GaugeMetricFamily] = [
            CounterMetricFamily(f"movement_{name}", text, value=value)
            for name, text, value in (
                ("records_accepted", "Records that Kinesis accepted", counts.accepted),
                ("record_bytes_accepted", "Bytes of data that Kinesis accepted", counts.accepted_bytes),
                ("put_requests", "PutRecords requests sent", counts.requests),
                ("records_throttled", "Records that Kinesis throttled", counts.throttled),
                ("records_retried", "Records that were sent again", counts.retried),
                (
                    "records_possibly_duplicated",
                    "Records sent again after a request whose outcome is unknown",
                    counts.possible_duplicates,
                ),
            )
        ]
        pending = self._batcher.pending_records
        families.append(GaugeMetricFamily("movement_records_waiting", "Records that wait for Kinesis", value=pending))
        return families


class ApiMetrics:
    """The counters of one application. A registry for each allows several applications in one process."""

    def __init__(self, batcher: ApiBatcher) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_QueueCollector(batcher))
        self.requests = Counter(
            "movement_http_requests", "Requests with records by status", ["status"], registry=self._registry
        )
        self.rejected = Counter(
            "movement_records_rejected", "Records that were rejected, by reason", ["reason"], registry=self._registry
        )
        self.seconds = Histogram(
            "movement_http_seconds", "Seconds until the answer", registry=self._registry, buckets=_BUCKETS
        )

    def exposition(self) -> tuple[bytes, str]:
        """The text of all metrics, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
