"""Metrics to CloudWatch by PutMetricData: gathered, merged by minute, sent by a thread of its own.

The job only ever appends to a list in memory. A CloudWatch that fails, throttles or hangs costs metrics, which are
counted, and one line in the log; never a second of a batch.
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

# PutMetricData takes 1,000 metrics and 1 MB a call, and of each metric 150 values. A datum with one value is some
# 300 bytes, a further value with its count some 60: so a call of 500 and 10,000 stays within.
CALL_METRICS = 500
CALL_VALUES = 10_000
METRIC_VALUES = 150
# Values that wait at most: an hour of batches every few seconds.
MOST_WAITING = 50_000
_CLOSE_SECONDS = 10.0

_Key = tuple[str, str, tuple[tuple[str, str], ...], datetime]


def _client() -> Any:
    # Short: what a slow CloudWatch holds up is the end of the job.
    return client("cloudwatch", connections=1, connect_timeout=3, read_timeout=5, retries={"max_attempts": 3})


class CloudWatchPublisher:
    """Sends every `interval` seconds what has been published since, and the rest when it is closed."""

    def __init__(
        self,
        namespace: str,
        stream: str,
        interval: float,
        *,
        make_client: Callable[[], Any] = _client,
        most_waiting: int = MOST_WAITING,
        close_seconds: float = _CLOSE_SECONDS,
    ) -> None:
        self._namespace = namespace
        self._stream = stream
        self._interval = interval
        self._make_client = make_client
        self._most_waiting = most_waiting
        self._close_seconds = close_seconds
        self._client: Any = None
        self._waiting: list[tuple[Metric, datetime]] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._failing = False
        self.dropped = 0
        self.sent = 0
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)
        self._thread.start()

    def publish(self, metrics: Sequence[Metric], moment: datetime, properties: Mapping[str, Any]) -> None:
        """Returns at once. What there is no room for is dropped and counted. CloudWatch takes no `properties`."""
        minute = moment.astimezone(UTC).replace(second=0, microsecond=0)
        with self._lock:
            room = max(0, self._most_waiting - len(self._waiting))
            self._waiting += [(metric, minute) for metric in metrics[:room]]
            self.dropped += max(0, len(metrics) - room)

    def close(self) -> None:
        """Sends what waits, for some seconds at most."""
        self._ending.set()
        self._thread.join(self._close_seconds)
        with self._lock:
            left = self.dropped + len(self._waiting)
        if left or self._thread.is_alive():
            log.warning("CloudWatch: %d values sent, %d given up", self.sent, left)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._ending.wait(self._interval)
            with self._lock:
                taken, self._waiting = self._waiting, []
            if taken:
                self._send(taken)

    def _send(self, taken: list[tuple[Metric, datetime]]) -> None:
        for number, data in requests(self._stream, taken):
            try:
                if self._client is None:
                    self._client = self._make_client()
                self._client.put_metric_data(Namespace=self._namespace, MetricData=data)
            except Exception as error:  # noqa: BLE001 - whatever CloudWatch does, the job goes on
                # Not sent again: a call whose answer was lost would count twice. boto3 has retried what it safely can.
                with self._lock:
                    self.dropped += number
                if not self._failing:
                    log.warning("metrics do not reach CloudWatch, the job goes on: %s", error)
                self._failing = True
            else:
                self.sent += number
                if self._failing:
                    log.warning("metrics reach CloudWatch again; %d values were given up", self.dropped)
                self._failing = False


def requests(stream: str, taken: Sequence[tuple[Metric, datetime]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The `MetricData` of each call, with the number of values in it."""
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
