"""Metrics as lines in CloudWatch's embedded metric format. CloudWatch Logs turns them into metrics, without a call.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, TextIO

from jobs.metrics.metrics import Metric

log = logging.getLogger(__name__)

# A directive can name 100 metrics; the job has fewer than 30.


def emf_lines(
    namespace: str, stream: str, metrics: Sequence[Metric], at: datetime, properties: Mapping[str, Any]
) -> Iterator[str]:
    """One line for each set of dimension values. `properties` are added to each line, for searching the log."""

    def dimensions(metric: Metric) -> tuple[tuple[str, str], ...]:
        return tuple(metric.dimensions.items())

    for values, grouped in groupby(sorted(metrics, key=dimensions), key=dimensions):
        group = list(grouped)
        directive = {
            "Namespace": namespace,
            "Dimensions": [["Stream", *(name for name, _ in values)]],
            "Metrics": [{"Name": metric.name, "Unit": metric.unit} for metric in group],
        }
        line = {
            "_aws": {"Timestamp": int(at.timestamp() * 1000), "CloudWatchMetrics": [directive]},
            **properties,
            "Stream": stream,
            **dict(values),
            **{metric.name: metric.value for metric in group},
        }
        yield json.dumps(line, ensure_ascii=False, separators=(",", ":"))


class EmfPublisher:
    """Writes metrics as lines to `out` (default: standard output). If it is closed, metrics are counted and dropped."""

    def __init__(self, namespace: str, stream: str, out: TextIO | None = None) -> None:
        self._namespace = namespace
        self._stream = stream
        self._out = out
        self.dropped = 0

    def publish(self, metrics: Sequence[Metric], at: datetime, properties: Mapping[str, Any]) -> None:
        lines = "".join(f"{line}\n" for line in emf_lines(self._namespace, self._stream, metrics, at, properties))
        out = self._out or sys.stdout
        try:
            out.write(lines)  # one call, so that lines of other threads do not mix with them
            out.flush()
        except (OSError, ValueError) as error:
            if not self.dropped:
                log.warning("metrics cannot be written to standard output, the job continues: %s", error)
            self.dropped += len(metrics)

    def close(self) -> None:
        """There is no queue to flush."""
