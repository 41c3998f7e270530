"""Sends metrics to CloudWatch with PutMetricData, merged by minute, on a background thread.

The job only appends to a list in memory. If CloudWatch fails, throttles or hangs, metrics are dropped and counted, and
one line is logged; batches are not delayed.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jobs.common.aws import client
from jobs.metrics.metrics import Metric

log = logging.getLogger(__name__)

# The limits of PutMetricData: 1,000 metrics and 1 MB a call, 150 values a metric. A metric with one value takes about
# 300 bytes and each further value with its count about 60, so these limits keep a call below 1 MB.
CALL_METRICS = 500
CALL_VALUES = 10_000
METRIC_VALUES = 150
# Maximum number of queued values: about an hour of batches every few seconds.
MAX_QUEUED = 50_000
_CLOSE_SECONDS = 10.0

_Key = tuple[str, str, tuple[tuple[str, str], ...], datetime]


def _client() -> Any:
    # Short timeouts, because a slow CloudWatch delays the end of the job.
    return client("cloudwatch", connections=1, connect_timeout=3, read_timeout=5, retries={"max_attempts": 3})


class CloudWatchPublisher:
    """Sends the queued metrics every `interval` seconds, and the remaining ones when it is closed."""

    def __init__(
        self,
        namespace: str,
        stream: str,
        interval: float,
        *,
        make_client: Callable[[], Any] = _client,
        max_queued: int = MAX_QUEUED,
        close_seconds: float = _CLOSE_SECONDS,
    ) -> None:
        self._namespace = namespace
        self._stream = stream
        self._interval = interval
        self._make_client = make_client
        self._max_queued = max_queued
        self._close_seconds = close_seconds
        self._client: Any = None
        self._queue: list[tuple[Metric, datetime]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failing = False
        self.dropped = 0
        self.sent = 0
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)
        self._thread.start()

    def publish(self, metrics: Sequence[Metric], at: datetime, properties: Mapping[str, Any]) -> None:
        """Returns at once. Metrics beyond the limit of the queue are dropped and counted. `properties` are not sent."""
        minute = at.astimezone(UTC).replace(second=0, microsecond=0)
        with self._lock:
            room = max(0, self._max_queued - len(self._queue))
            self._queue += [(metric, minute) for metric in metrics[:room]]
            self.dropped += max(0, len(metrics) - room)

    @property
    def queued(self) -> int:
        """Number of values that wait to be sent."""
        return len(self._queue)

    def close(self) -> None:
        """Sends the queued metrics; waits a few seconds at most."""
        self._closing.set()
        self._thread.join(self._close_seconds)
        with self._lock:
            lost = self.dropped + len(self._queue)
        if lost or self._thread.is_alive():
            log.warning("CloudWatch: %d values sent, %d lost", self.sent, lost)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._closing.wait(self._interval)
            with self._lock:
                taken, self._queue = self._queue, []
            if taken:
                self._send(taken)

    def _send(self, taken: list[tuple[Metric, datetime]]) -> None:
        for number, data in requests(self._stream, taken):
            try:
                if self._client is None:
                    self._client = self._make_client()
                self._client.put_metric_data(Namespace=self._namespace, MetricData=data)
            except Exception as error:  # noqa: BLE001 - the job continues whatever CloudWatch does
                # Not sent again: if only the answer was lost, the values would count twice. boto3 retries what is safe.
                with self._lock:
                    self.dropped += number
                if not self._failing:
                    log.warning("metrics do not reach CloudWatch, the job continues: %s", error)
                self._failing = True
            else:
                self.sent += number
                if self._failing:
                    log.warning("metrics reach CloudWatch again; %d values were lost", self.dropped)
                self._failing = False


def requests(stream: str, taken: Sequence[tuple[Metric, datetime]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """For each call: the number of values and the `MetricData`. Values of one metric and minute are merged."""
    merged: dict[_Key, Counter[float]] = {}
    for metric, minute in taken:
        key = (metric.name, metric.unit, tuple(metric.dimensions.items()), minute)
        merged.setdefault(key, Counter())[metric.value] += 1
    data: list[dict[str, Any]] = []
    values = number = 0
    for (name, unit, dimensions, minute), counts in merged.items():
        items = list(counts.items())
        for start in range(0, len(items), METRIC_VALUES):
            part = items[start : start + METRIC_VALUES]
            if data and (len(data) >= CALL_METRICS or values + len(part) > CALL_VALUES):
                yield number, data
                data, values, number = [], 0, 0
            data.append(
                {
                    "MetricName": name,
                    "Dimensions": [{"Name": at, "Value": value} for at, value in (("Stream", stream), *dimensions)],
                    "Timestamp": minute,
                    "Unit": unit,
                    "Values": [float(value) for value, _ in part],
                    "Counts": [float(count) for _, count in part],
                }
            )
            values += len(part)
            number += sum(count for _, count in part)
    if data:
        yield number, data
