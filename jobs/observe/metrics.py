"""Which metrics a batch, an idle stream and a failure give; the list with units and meaning is docs/metrics.md.

Pure: `observer` says when, `emf` and `cloudwatch` carry them away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.observe.figures import BatchFigures

Unit = Literal["Count", "Bytes", "Seconds", "Milliseconds", "Percent"]

AGE = "IteratorAgeMilliseconds"
PROGRESS = "Progress"
_STAGES = {"clear": "ClearSeconds", "write": "WriteSeconds", "register": "RegisterSeconds"}


@dataclass(frozen=True)
class Metric:
    """One value. `dimensions`: those beside `Stream`, at most one, with few values."""

    name: str
    unit: Unit
    value: float
    dimensions: Mapping[str, str] = field(default_factory=dict)


def batch_metrics(batch: BatchFigures) -> list[Metric]:
    """The metrics of a batch, but for the ages of single shards."""
    found = [
        Metric("RecordsRead", "Count", batch.read),
        Metric("RecordsWritten", "Count", batch.written),
        Metric("RecordsQuarantined", "Count", batch.quarantined),
        Metric("RecordsRescued", "Count", batch.rescued),
        Metric("RejectedShareExceeded", "Count", int(batch.share_exceeded)),
        Metric("BytesRead", "Bytes", batch.bytes_read),
        Metric("BytesWritten", "Bytes", batch.bytes_written),
        Metric("FilesWritten", "Count", batch.files),
        Metric("PartitionsRegistered", "Count", batch.registered),
        Metric("Retries", "Count", batch.retries),
        Metric("Throttles", "Count", batch.throttles),
        Metric("BatchesCommitted", "Count", 1),
        Metric(PROGRESS, "Count", 1),
        Metric("BatchSeconds", "Seconds", round(batch.seconds, 4)),
    ]
    found += [Metric(name, "Seconds", batch.stages[stage]) for stage, name in _STAGES.items() if stage in batch.stages]
    if batch.read:
        found.append(Metric("QuarantinedShare", "Percent", round(100 * batch.quarantined / batch.read, 4)))
    if batch.age is not None:
        found.append(Metric(AGE, "Milliseconds", batch.age))
    found += [
        Metric("RecordsQuarantined", "Count", count, {"Reason": reason})
        for reason, count in sorted(batch.reasons.items())
    ]
    return found


def shard_metrics(batch: BatchFigures, most: int) -> list[Metric]:
    """The age of each shard; none where the batch has more than `most` of them."""
    if len(batch.ages) > most:
        return []
    return [Metric(AGE, "Milliseconds", age, {"Shard": shard}) for shard, age in sorted(batch.ages.items())]


def plan_metrics(seconds: float) -> list[Metric]:
    """How long Spark took to learn where the next batch ends."""
    return [Metric("PlanSeconds", "Seconds", seconds)]


def idle_metrics() -> list[Metric]:
    """There was nothing to read: all is well, and nothing is behind."""
    return [Metric(PROGRESS, "Count", 1), Metric(AGE, "Milliseconds", 0)]


def failure_metrics() -> list[Metric]:
    """The query died."""
    return [Metric("BatchesFailed", "Count", 1)]
